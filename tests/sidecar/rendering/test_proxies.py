"""Real nginx and real HAProxy behind ``disco render``, on a real etcd: traffic follows the registry, and survives mistakes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from discoclient import State
from discoclient.control.hub import find_address, hub
from discoclient.dev import EtcdCluster
from tests.cli.records import Records
from tests.sidecar.rendering.conftest import EXAMPLES, RenderTo
from tests.sidecar.rendering.proxies import Proxy, Traffic, haproxy, needs, nginx, serving
from tests.support.eventually import eventually
from tests.support.processes import PythonProcess

SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""

Kind = tuple[Callable[[Path], AbstractContextManager[Proxy]], str]

NGINX: Kind = nginx, "nginx.conf.j2"
HAPROXY: Kind = haproxy, "haproxy.cfg.j2"
BOTH = [
    pytest.param(NGINX, id="nginx", marks=needs("nginx")),
    pytest.param(HAPROXY, id="haproxy", marks=needs("haproxy")),
]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def proxy(kind: Kind, tmp_path: Path) -> Iterator[Proxy]:
    with kind[0](tmp_path) as running:
        yield running


@pytest.fixture
def render(proxy: Proxy, kind: Kind, disco_render: RenderTo) -> Callable[..., PythonProcess]:
    """``disco render`` for the proxy, with the template that is shipped unless another one is said."""

    def start(
        url: str, *more: object, template: object = EXAMPLES / kind[1], check: bool = True
    ) -> PythonProcess:
        words = ["--template", template, "--out", proxy.out, "--reload", proxy.reload, "--interval", "0.2"]
        checks = ["--check", proxy.check] if check else []
        return disco_render(url, *words, *checks, *more, env={"PORT": str(proxy.port)})

    return start


def callers(url: str) -> int:
    """How many are announced as callers of ``experiment``."""
    address = find_address(url)
    listing = hub().registry(address).list(address.keys.clients("experiment"))
    return len(hub().background.submit(listing).result().entries)


def naive(kind: Kind, folder: Path) -> Path:
    """As somebody may write it: with a free text of the registry in it as it stands there."""
    text = (EXAMPLES / kind[1]).read_text()
    raw = "server {{ instance.address }} {{ instance.record.get('metadata').get('options', '') }}"
    for line in (
        "server {{ instance.address }} weight",
        "server {{ instance.id }} {{ instance.address }} weight",
    ):
        text = text.replace(
            line, raw.replace("server", line.partition(" {{ instance.address")[0], 1) + " weight"
        )
    assert "options" in text
    found = folder / "naive.j2"
    found.write_text(text)
    return found


@pytest.mark.parametrize("kind", BOTH, indirect=True)
def test_traffic_follows_the_registry_without_a_failed_request(
    proxy: Proxy, render: Callable[..., PythonProcess], records: Records
) -> None:
    with serving("aaaaaaaa", "bbbbbbbb", "cccccccc") as (first, second, third):
        records.put(first)
        process = render(records.url)
        proxy.wait_for("aaaaaaaa")
        with Traffic(proxy) as traffic:
            records.put(second)
            proxy.wait_for("aaaaaaaa", "bbbbbbbb")
            records.put(third, replace(first, state=State.DRAINING))
            proxy.wait_for("bbbbbbbb", "cccccccc")
            records.remove(first)
            records.put(replace(third, state=State.UNREADY))
            proxy.wait_for("bbbbbbbb")
        assert set(traffic.answers) == {"aaaaaaaa", "bbbbbbbb", "cccccccc"}, traffic.answers
        assert "written and reloaded (2 of experiment)" in process.errors
        assert callers(records.url) == 0  # it only looks: no drain waits for a word from it
        process.signal(signal.SIGTERM)
        assert process.wait(timeout=SLOW) == 0
        proxy.wait_for("bbbbbbbb")  # it needs nobody to go on
    assert [path.name for path in proxy.out.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", BOTH, indirect=True)
def test_what_the_proxy_would_not_start_with_never_stays_and_it_is_told_in_the_proxys_words(
    proxy: Proxy, kind: Kind, render: Callable[..., PythonProcess], records: Records, tmp_path: Path
) -> None:
    with serving("aaaaaaaa", "bbbbbbbb", "cccccccc") as (first, second, third):
        bad = replace(second, metadata={"options": "no-such-option"})
        records.put(first)
        process = render(records.url, template=naive(kind, tmp_path))
        proxy.wait_for("aaaaaaaa")
        good = proxy.out.read_text()
        records.put(bad)
        eventually(
            lambda: "the check failed (exit code 1), the old file stays" in process.errors, timeout=SLOW
        )
        eventually(lambda: "no-such-option" in process.errors, timeout=SLOW)
        eventually(lambda: proxy.out.read_text() == good, timeout=SLOW)
        assert proxy.is_valid()
        assert proxy.answerers() == {"aaaaaaaa"}
        records.remove(bad)
        records.put(third)
        proxy.wait_for("aaaaaaaa", "cccccccc")


@pytest.mark.parametrize("kind", BOTH, indirect=True)
def test_without_the_check_the_proxy_would_not_start_again(
    proxy: Proxy, kind: Kind, render: Callable[..., PythonProcess], records: Records, tmp_path: Path
) -> None:
    """The negative control."""
    with serving("aaaaaaaa") as (first,):
        records.put(replace(first, metadata={"options": "no-such-option"}))
        render(records.url, template=naive(kind, tmp_path), check=False)
        eventually(lambda: "no-such-option" in proxy.out.read_text(), timeout=SLOW)
        eventually(lambda: not proxy.is_valid(), timeout=SLOW)


@pytest.mark.parametrize("kind", [BOTH[0]], indirect=True)
def test_a_fleet_that_vanished_from_the_registry_is_called_on(
    proxy: Proxy, render: Callable[..., PythonProcess], records: Records
) -> None:
    with serving("aaaaaaaa", "bbbbbbbb") as (first, second):
        records.put(first, second)
        process = render(records.url)
        proxy.wait_for("aaaaaaaa", "bbbbbbbb")
        records.remove(first)
        proxy.wait_for("bbbbbbbb")
        records.remove(second)
        eventually(lambda: "experiment has no instance any more" in process.errors, timeout=SLOW)
        assert proxy.answerers() == {"bbbbbbbb"}
        assert proxy.is_valid()


@pytest.mark.parametrize("kind", BOTH, indirect=True)
def test_with_allow_empty_the_shipped_templates_give_an_error_page_and_no_dead_proxy(
    proxy: Proxy, render: Callable[..., PythonProcess], records: Records
) -> None:
    render(records.url, "--allow-empty")
    eventually(lambda: proxy.ask() in ("502", "503"), timeout=SLOW)
    assert proxy.is_valid()


@pytest.mark.parametrize("kind", [BOTH[0]], indirect=True)
def test_while_etcd_is_away_the_file_stays_and_afterwards_it_follows_again(
    proxy: Proxy, render: Callable[..., PythonProcess], etcd_node: EtcdCluster
) -> None:
    records = Records(etcd_node.registry_url)
    with serving("aaaaaaaa", "bbbbbbbb") as (first, second):
        records.put(first)
        process = render(records.url)
        proxy.wait_for("aaaaaaaa")
        before = proxy.out.stat()
        (member,) = etcd_node.members
        member.kill()
        eventually(lambda: "the registry does not answer" in process.errors, timeout=SLOW)
        assert proxy.answerers() == {"aaaaaaaa"}
        assert proxy.out.stat().st_ino == before.st_ino
        member.start()
        eventually(lambda: "the registry answers again" in process.errors, timeout=SLOW)
        records.put(second)
        proxy.wait_for("aaaaaaaa", "bbbbbbbb")
