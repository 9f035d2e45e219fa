"""``disco render`` as people meet it: what it says, how it ends, and what it does not accept."""

import importlib.util
import json
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from disco_sidecar.rendering import Job, Pair, Renderer
from discoclient.cli import render
from tests.cli.conftest import Disco, StartDisco
from tests.cli.records import Records, instance
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes

FIXED = "static://experiment=10.0.0.5:8000,10.0.0.6:8000"
SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "t.j2"
    path.write_text("{% for i in services.experiment.instances %}{{ i.address }}\n{% endfor %}")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_once_renders_and_ends_and_the_second_time_there_is_nothing_to_do(
    disco: Disco, template: Path, out: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = (
        "--template",
        template,
        "--out",
        out,
        "--check",
        'grep -q 8000 "$F"',
        "--reload",
        f"echo reload {{}} >> {log}",
    )
    command = ("--registry", FIXED, "render", "--once", *map(str, words), "experiment")
    first = disco(*command)
    assert first == type(first)(0, "", "disco: out: written and reloaded (2 of experiment)\n")
    assert out.read_text() == "10.0.0.5:8000\n10.0.0.6:8000\n"
    assert log.read_text() == f"reload {out}\n"
    second = disco(*command)
    assert second == type(second)(0, "", "disco: out: as it should be already\n")
    assert log.read_text() == f"reload {out}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--check", "echo line 7: oh; exit 3"], ["the check failed (exit code 3), the old file stays", "  | line 7: oh"]),
        (["--reload", "echo no such unit; exit 5"], ["written, but the reload failed (exit code 5)", "  | no such unit"]),
        (["--check", "sleep 60", "--timeout", "0.2"], ["it took more than 0.2 s, and was ended"]),
    ],
    ids=["check", "reload", "slow"],
)  # fmt: skip
def test_once_that_did_not_work_out_is_exit_code_1_with_what_the_command_said(
    disco: Disco, template: Path, out: Path, options: Sequence[str], words: Sequence[str]
) -> None:
    result = disco(
        "--registry", FIXED, "render", "--once", "--template", str(template), "--out", str(out), *options, "experiment"
    )  # fmt: skip
    assert (result.code, result.out) == (1, "")
    for wanted in words:
        assert wanted in result.err
    assert result.err.splitlines()[-1] == "disco: out: not rendered"


def test_once_with_a_service_that_nobody_runs_is_exit_code_1_and_touches_nothing(
    disco: Disco, template: Path, out: Path, registry_url: str
) -> None:
    words = ("--once", "--template", str(template), "--out", str(out), "experiment")
    result = disco("--registry", registry_url, "render", *words)
    assert result.code == 1
    assert "experiment has no instance; nothing is written until it has one" in result.err
    assert not out.exists()
    assert disco("--registry", registry_url, "render", "--allow-empty", *words).code == 0
    assert out.read_text() == ""


def test_a_registry_that_does_not_answer_at_the_start_is_exit_code_4(
    disco: Disco, template: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "DISCOVERY_TIMEOUT", 0.3)
    out.write_text("yesterday's")
    url = f"etcd://127.0.0.1:{free_port()}"
    result = disco("--registry", url, "render", "--template", str(template), "--out", str(out), "experiment")
    assert (result.code, result.out, out.read_text()) == (4, "", "yesterday's")
    assert "the registry did not answer" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_follows_as_json_until_it_is_told_to_end(
    start_disco: StartDisco, records: Records, template: Path, out: Path, number: signal.Signals
) -> None:
    records.put(instance("experiment", "aaaaaaaa"))
    words = ("--template", str(template), "--out", str(out), "--check", "! grep :9 {}", "--interval", "0")
    process = start_disco("--registry", records.url, "render", "--json", *words, "experiment")
    process.wait_for_line('"written"', timeout=SLOW)
    records.put(instance("experiment", "bbbbbbbb", port=9))
    process.wait_for_line('"failed"', timeout=SLOW)
    process.signal(number)
    assert process.wait(timeout=SLOW) == 0
    written, failed = [json.loads(line) for line in process.output.splitlines()]
    for line in (written, failed):
        assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert written == {
        "event": "written",
        "text": "out: written (1 of experiment)",
        "output": "",
        "files": [str(out)],
        "instances": {"experiment": 1},
    }
    assert failed == {
        "event": "failed",
        "text": "out: the check failed (exit code 1), the old file stays",
        "output": "10.0.0.5:9",
        "step": "check",
    }
    assert process.errors == ""
    assert out.read_text() == "10.0.0.5:8000\n"
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "t.j2"]


def test_what_was_put_in_place_and_not_checked_when_it_was_killed_is_taken_back_by_the_next(
    disco: Disco, start_disco: StartDisco, template: Path, out: Path, tmp_path: Path
) -> None:
    out.write_text("old")
    words = ("--registry", FIXED, "render", "--template", str(template), "--out", str(out), "experiment")
    process = start_disco(*words, "--check", f"touch {tmp_path}/checking; exec sleep 300")
    eventually((tmp_path / "checking").exists, timeout=SLOW)
    process.kill()
    assert out.read_text() == "10.0.0.5:8000\n10.0.0.6:8000\n"
    assert disco(*words, "--once", "--check", "false").code == 1
    assert out.read_text() == "old"
    assert disco(*words, "--once", "--check", "true", "--reload", f"touch {tmp_path}/reloaded").code == 0
    assert (tmp_path / "reloaded").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_every_option_reaches_the_job(
    disco: Disco, template: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    class Spy(Renderer):
        def __init__(self, job: Job, *arguments: Any, **options: Any) -> None:
            jobs.append(job)
            super().__init__(job, *arguments, **options)

    monkeypatch.setattr("disco_sidecar.rendering.Renderer", Spy)
    pairs = [(str(template), str(out)), (str(template), f"{out}2")]
    words = [word for t, o in pairs for word in ("--template", t, "--out", o)]
    words += ["--check", "true", "--reload", "true {}", "--interval", "0.25", "--timeout", "7", "--once"]
    assert disco("--registry", FIXED, "render", *words, "--allow-empty", "experiment", "ledger").code == 0
    assert jobs == [
        Job(
            services=("experiment", "ledger"),
            pairs=tuple(Pair(*pair) for pair in pairs),
            check="true",
            reload="true {}",
            interval=0.25,
            timeout=7.0,
            discovery_timeout=render.DISCOVERY_TIMEOUT,
            once=True,
            allow_empty=True,
        )
    ]


READER = """
import subprocess, sys
render = subprocess.Popen([sys.executable, "-m", "discoclient.cli", *sys.argv[1:]], stdout=subprocess.PIPE)
print(render.stdout.readline().decode(), end="", flush=True)
render.stdout.close()
render.wait()
"""


def test_it_goes_on_when_nobody_reads_what_it_says(
    processes: Processes, records: Records, template: Path, out: Path
) -> None:
    """Unlike ``disco watch``, which is there to be read."""
    records.put(instance("experiment", "aaaaaaaa"))
    words = ("--json", "--interval", "0", "--template", str(template), "--out", str(out), "experiment")
    reader = processes.code(READER, "--registry", records.url, "render", *words)
    reader.wait_for_line('"written"', timeout=SLOW)
    for number in range(1, 3):
        records.put(instance("experiment", f"bbbbbbb{number}", port=number))
        eventually(lambda: out.read_text().count("\n") == number + 1, timeout=SLOW)  # noqa: B023
    reader.signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "o", "experiment"], ["--template"]),
        (["--template", "{t}", "experiment"], ["--out"]),
        (["--template", "{t}", "--out", "{o}"], ["SERVICE"]),
        (["--template", "{t}", "--out", "{o}", "--out", "x", "experiment"], ["each --template has its --out", "1 and 2"]),
        (["--template", "{t}", "--out", "{o}", "a_b"], ["'a_b' is not a service name"]),
        (["--template", "{t}", "--out", "/nonexistent/o", "experiment"], ["there is no folder /nonexistent"]),
        (["--template", "{t}.no", "--out", "{o}", "experiment"], ["can't read the template", "No such file"]),
        (["--template", "{bad}", "--out", "{o}", "experiment"], ["bad.j2:2: ", "'endfor'"]),
        (["--template", "{t}", "--out", "{o}", "--interval", "-1", "experiment"], ["--interval", "0 or more"]),
        (["--template", "{t}", "--out", "{o}", "--timeout", "0", "experiment"], ["--timeout", "more than 0"]),
        (["--template", "{t}", "--out", "{o}", "--check", "", "experiment"], ["--check is empty"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if value and value[0].startswith("--") else "",
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_before_the_registry_is_asked(
    disco: Disco, template: Path, out: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    bad = template.with_name("bad.j2")
    bad.write_text("\n{% for x in y %}{% endif %}")
    names = {"{t}": template, "{o}": out, "{bad}": bad, "{t}.no": f"{template}.no"}
    result = disco(
        "--registry", "etcd://127.0.0.1:1", "render", *(str(names.get(each, each)) for each in arguments)
    )
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    for wanted in words:
        assert wanted in result.err


@pytest.mark.parametrize("name", ["disco_sidecar", "jinja2"])
def test_without_the_sidecar_one_line_says_what_to_install(
    disco: Disco, template: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(render, "find_spec", lambda wanted: None if wanted == name else found(wanted))
    result = disco(
        "--registry", FIXED, "render", "--template", str(template), "--out", str(out), "experiment"
    )
    assert (result.code, result.out) == (2, "")
    assert result.err == f"disco: disco render needs {name}: pip install 'discoclient[sidecar]'\n"
