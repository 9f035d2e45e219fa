"""docs/sidecar.md is true: its options, refusals, limits and metrics are the sidecar's, and its check prints what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import disco_sidecar
from disco_sidecar.http.answer import MOST_BYTES
from disco_sidecar.http.answer import MOST_FIELDS as MOST_ANSWERED
from disco_sidecar.http.fields import MOST_FIELDS
from disco_sidecar.http.reading import Limits
from disco_sidecar.proxy.client import MOST_WAITING
from disco_sidecar.settings import OPTIONS, PREFIX, Option, Settings, gather
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.servers import Servers

TEXT = (Path(__file__).parents[2] / "docs" / "sidecar.md").read_text()
SOURCE = Path(disco_sidecar.__file__).parent
UNITS = {"S": " s", "BYTES": " bytes"}


def section(title: str) -> str:
    return TEXT.partition(f"\n{title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ][2:]


def default(option: Option) -> str:
    """The table's cell for what holds if nothing is said."""
    if option.kind is bool:
        return "on" if option.default else "off"
    said = re.search(r"\(default: (.*)\)$", option.help)
    return said[1] + UNITS.get(option.metavar, "") if said else "-"


def code(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [block for said, block in blocks if said == language]


def test_the_table_has_each_option_with_its_default() -> None:
    table = [(cells[0].strip("`"), cells[2].replace("`", "")) for cells in rows(section("## Options"))]
    assert table == [(option.flag, default(option)) for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_the_default_that_the_help_tells_is_the_default(option: Option) -> None:
    values = option.default if isinstance(option.default, tuple) else [option.default]
    for value in values:
        if value is not None and option.kind is not bool:
            assert default(option) == (f"{value:g}" if isinstance(value, int | float) else value) + UNITS.get(
                option.metavar, ""
            )


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_what_can_be_said_several_times_is_said_to_be_repeatable(option: Option) -> None:
    (takes,) = (cells[1] for cells in rows(section("## Options")) if cells[0] == f"`{option.flag}`")
    assert takes.endswith("repeatable") is option.is_many
    assert (takes == "") is (option.kind is bool)


def test_the_example_file_is_read_and_the_check_prints_what_is_shown(tmp_path: Path) -> None:
    (file,) = code("toml")
    path = tmp_path / "sidecar.toml"
    path.write_text(file)
    Settings.of(gather({}, {}, config=str(path)))
    (shown,) = (block for block in code("") if "--check" in block)
    command, _, printed = shown.removeprefix("$ ").partition("\n")
    assert PREFIX in command
    names = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environ = {**os.environ, "PATH": names}
    done = subprocess.run(
        ["bash", "-c", command], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_each_refusal_has_a_row_and_each_row_is_a_refusal() -> None:
    told = {
        (int(status), reason)
        for status, reasons, *_ in rows(section("## What it refuses"))
        for reason in re.findall(r"`(\w+)`", reasons)
    }
    source = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if "admin" not in path.parts)
    found = {(int(status), reason) for status, reason in re.findall(r'\(\s*(\d{3}),\s*"(\w+)"', source)}
    assert told == found


def test_the_limits_that_cannot_be_turned_are_these() -> None:
    limits = Limits()
    assert f"at most {limits.line} bytes, a head {limits.head} bytes and {MOST_FIELDS} fields" in TEXT
    assert f"an answer's head {MOST_BYTES} bytes and {MOST_ANSWERED} fields; {MOST_WAITING} requests" in TEXT
    assert f"more than {limits.line} bytes" in TEXT
    assert f"more than {limits.head} bytes, or {MOST_FIELDS} fields" in TEXT


def test_each_metric_is_there_and_no_other(processes: Processes, tmp_path: Path) -> None:
    admin, port = tmp_path / "admin", free_port()
    options = [
        "--bind",
        f"unix:{tmp_path}/bind",
        "--listen",
        f"{port}=experiment",
        "--admin",
        f"unix:{admin}",
    ]
    with Servers() as servers:
        options += ["--registry", f"static://experiment=127.0.0.1:{servers.start().port}"]
        sidecar = processes.python("-m", "disco_sidecar", *options, env={"DISCO_LOG": "info"})
        eventually(lambda: ": ready" in sidecar.errors, timeout=20, what="it is ready")
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200
        uds = httpx.HTTPTransport(uds=str(admin))
        with httpx.Client(transport=uds, base_url="http://localhost") as client:
            assert client.get("/readyz").status_code == 200
            scraped = client.get("/metrics").text
    there = set(re.findall(r"^# TYPE (disco_sidecar_\w+)", scraped, re.MULTILINE))
    told = [
        name
        for cells in rows(section("### Metrics"))
        for name in re.findall(r"`(disco_sidecar_\w+)`", cells[0])
    ]
    assert sorted(told) == sorted(there)
    assert set(re.findall(r"disco_sidecar_\w+", TEXT)) <= there
    for cells in rows(section("### Metrics")):
        for name in re.findall(r"`(\w+)`", cells[0]):
            seen = {
                label
                for labels in re.findall(rf"^{name}(?:_bucket)?\{{(.*?)\}}", scraped, re.MULTILINE)
                for label in re.findall(r'(\w+)="', labels)
            }
            named = set(filter(None, cells[1].split(", ")))
            assert seen - {"le", "version"} <= named, name


def test_each_admin_path_is_there() -> None:
    from disco_sidecar.admin.site import PATHS

    told = re.findall(r"^\| (`/.*?) \|", section("## Operation"), re.MULTILINE)
    assert {path for cell in told for path in re.findall(r"`(/[\w/]*)`", cell)} == set(PATHS)
