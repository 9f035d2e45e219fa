"""docs/render.md is true: its checks tell good from bad, its fields and defaults are the real ones."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from disco_sidecar.rendering import Job, Pair, Renderer, Told
from disco_sidecar.rendering.fleet import Service, Target, select
from disco_sidecar.rendering.templates import Template
from discoclient import connect
from discoclient.control.hub import fresh_hub
from tests.cli.records import instance
from tests.sidecar.rendering.proxies import find, needs, nginx

TEXT = (Path(__file__).parents[2] / "docs" / "render.md").read_text()
CHECKS = re.findall(r"^--check (.*)$", TEXT, re.MULTILINE)
GOOD = "upstream x { server 127.0.0.1:{{ services.experiment.instances[0].port }}; }\n"
BAD = "upstream x { server {{ services|length }} }\n"


def may_unshare() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def shell(check: str) -> str:
    """The word after ``--check`` as the command gets it."""
    return subprocess.run(["/bin/sh", "-c", f"printf %s {check}"], capture_output=True, text=True).stdout


FRAGMENTS = [check for check in CHECKS if "{}'" not in check]


def test_there_are_three_ways_to_check_a_fragment() -> None:
    assert len(FRAGMENTS) == 3


@needs("nginx")
@pytest.mark.parametrize("check", FRAGMENTS, ids=["in place", "in a view of its own", "alone"])
def test_each_way_to_check_a_fragment_lets_the_good_in_and_keeps_the_bad_out(
    tmp_path: Path, check: str
) -> None:
    if "unshare" in check and not may_unshare():
        pytest.skip("this user may not have a mount namespace of its own")
    with nginx(tmp_path) as proxy:
        command = shell(check)
        for documented, here in (
            ("/etc/nginx/conf.d/experiment.conf", str(proxy.out)),
            ("/run/disco-check.conf", f"{tmp_path}/check.conf"),
            ("nginx -t -q -c", f"{find('nginx')} -p {tmp_path} -t -q -c"),
        ):
            command = command.replace(documented, here)
        if "-c" not in command.partition("nginx -")[2]:
            command = command.replace("nginx -t -q", proxy.check)
        good, bad = tmp_path / "good.j2", tmp_path / "bad.j2"
        good.write_text(GOOD)
        bad.write_text(BAD)
        results = []
        for template in (good, bad):
            told: list[Told] = []
            pairs = (Pair(str(template), str(proxy.out)),)
            job = Job(services=("experiment",), pairs=pairs, check=command, once=True)
            with fresh_hub(), connect("static://experiment=127.0.0.1:7") as handle:
                results.append(Renderer(job, handle, tell=told.append).run())
            assert proxy.out.read_text() == "upstream x { server 127.0.0.1:7; }\n"
            assert template is good or "[emerg]" in told[0].output
        assert results == [True, False]


def test_every_field_that_a_template_sees_is_named() -> None:
    section = TEXT.partition("## What a template sees")[2].partition("\n## ")[0]
    named = set(re.findall(r"`\.(\w+)`", section))
    fields = {field.name for kind in (Service, Target) for field in dataclasses.fields(kind)}
    assert named == fields | {"scheme", "keepalive"}


def test_the_snippet_renders(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```jinja\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "t.j2"
    path.write_text(snippet)
    services = {"experiment": select("experiment", [instance("experiment", "aaaaaaaa", weight=50)])}
    assert (
        Template(path).render(services) == b"upstream experiment {\n    server 10.0.0.5:8000 weight=50;\n}\n"
    )


def test_the_defaults_are_the_defaults() -> None:
    job = Job(services=("experiment",), pairs=(Pair("t", "o"),))
    assert f"every `--interval` seconds ({job.interval:g})" in TEXT
    assert f"longer than `--timeout` seconds ({job.timeout:g})" in TEXT
    assert f"exit 4 after {job.discovery_timeout:g} s" in TEXT
