"""The templates in examples/render are valid for whatever a registry may hold, says the program that reads them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from disco_sidecar.rendering.fleet import Service, select
from disco_sidecar.rendering.templates import Template
from discoclient import Instance, State
from tests.cli.records import instance
from tests.sidecar.rendering.conftest import EXAMPLES
from tests.sidecar.rendering.proxies import find, needs


def told_by_nginx(rendered: Path) -> subprocess.CompletedProcess[str]:
    main = rendered.with_name("main.conf")
    main.write_text(f"pid {main}.pid;\nerror_log stderr;\nevents {{}}\nhttp {{ include {rendered}; }}\n")
    return told_by(f"{find('nginx')}", "-t", "-q", "-p", str(rendered.parent), "-c", str(main))


def told_by_haproxy(rendered: Path) -> subprocess.CompletedProcess[str]:
    return told_by(f"{find('haproxy')}", "-c", "-f", str(rendered))


def told_by(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def member(number: int, **fields: object) -> Instance:
    return instance("experiment", f"aaaaaaa{number}", **({"port": 8000 + number} | fields))


FLEETS: dict[str, list[Instance]] = {
    "one": [member(1)],
    "none": [],
    "IPv6": [member(1, host="2001:db8::1"), member(2, host="::1")],
    "weights": [member(1, weight=10_000), member(2, weight=0.5), member(3, weight=0)],
    "standbys": [member(1), member(2, state=State.UNREADY), member(3, state=State.DRAINING)],
    "nothing but standbys": [member(1, weight=0), member(2, state=State.UNREADY)],
    "keepalive": [member(1, http_keepalive=0), member(2, http_keepalive=7.5)],
    "https": [member(1, scheme="https"), member(2, scheme="https")],
    "evil": [member(1, version="1;} \n", hostname='"', zone="${x}", metadata={"}": "\n#{"}, slot="a b;")],
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("nginx.conf.j2", told_by_nginx, id="nginx", marks=needs("nginx")),
        pytest.param("haproxy.cfg.j2", told_by_haproxy, id="haproxy", marks=needs("haproxy")),
    ],
)
def test_a_shipped_template_is_valid(
    tmp_path: Path,
    name: str,
    told: Callable[[Path], subprocess.CompletedProcess[str]],
    fleet: list[Instance],
) -> None:
    services: dict[str, Service] = {"experiment": select("experiment", fleet), "ledger": select("ledger", [])}
    rendered = tmp_path / "rendered"
    rendered.write_bytes(Template(EXAMPLES / name).render(services))
    done = told(rendered)
    assert done.returncode == 0, done.stderr + rendered.read_text()
    assert "warn" not in (done.stdout + done.stderr).lower(), done.stderr
    rendered.write_text(rendered.read_text() + "no-such-directive x\n")
    assert told(rendered).returncode != 0  # it does look
