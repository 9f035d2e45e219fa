"""Registered when it is ready and never before; marked when it is not well; gone when it is dead."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

import pytest

from tests.cli.web import Web
from tests.running.keys import Keys
from tests.running.stage import HEALTH, SLOW, Stage
from tests.support.eventually import eventually


def test_nothing_is_registered_before_the_health_path_says_so(stage: Stage, keys: Keys) -> None:
    folder = stage._folder / "late"
    run = stage.run(*HEALTH, name="late", program=["--delay", "0.2"])
    run.touch("sick")
    eventually(lambda: run.probes >= 3, timeout=SLOW)
    assert keys.history() == []
    (folder / "sick").unlink()
    run.wait_for("ready")
    assert keys.states(run.id) == ["ready"]


def test_nothing_is_registered_before_the_command_listens(stage: Stage, keys: Keys) -> None:
    run = stage.run(program=["--delay", "0.6"])
    assert run.facts["pid"]
    assert keys.history() == []
    run.wait_for("ready")
    assert run.get().status_code == 200, "it listens by then"


def test_the_health_path_is_asked_at_the_address_that_is_registered(stage: Stage, keys: Keys) -> None:
    """What listens on 127.0.0.1 alone is of no use to callers elsewhere, however well it is."""
    elsewhere = ("--host", "127.0.0.2", *HEALTH)
    alone = stage.run(*elsewhere, "--ready-timeout", "0.7", "--slot", "1")
    run = stage.ready(*elsewhere, "--slot", "2", program=["--bind", "0.0.0.0"])
    assert run.record["host"] == "127.0.0.2"
    assert f"127.0.0.2:{run.port}" in (run.folder / "probes").read_text()
    assert alone.wait() == 3
    assert "127.0.0.2" in alone.process.errors
    assert keys.states(alone.id) == []


@pytest.mark.parametrize("health", [HEALTH, ()], ids=["health path", "accepts"])
def test_somebody_else_who_listens_on_the_port_is_not_the_command(
    stage: Stage, keys: Keys, health: tuple[str, ...]
) -> None:
    """He accepts and answers well, and what is below us does not listen at all."""
    with Web() as stranger:
        run = stage.run("--port", str(stranger.port), *health, "--ready-timeout", "0.7", program=["--deaf"])
        assert run.wait() == 3
    assert keys.history() == []
    assert not run.was_started or not run.is_serving


def test_a_port_that_was_taken_between_its_choice_and_its_use_is_told_of(stage: Stage, keys: Keys) -> None:
    """It is not chosen again: that would be to run the command twice."""
    run = stage.run(program=["--delay", "1"])
    port = int(run.facts["env"]["PORT"])
    with socket.create_server(("127.0.0.1", port)):
        assert run.wait() == 3
    assert f"port {port}, which was free, is in use by another process" in run.process.errors
    assert keys.history() == []


def test_what_is_not_ready_in_time_is_ended_and_is_exit_code_3(stage: Stage, keys: Keys) -> None:
    began = time.monotonic()
    run = stage.run(
        "--ready-timeout", "2", "--stop-timeout", "0.3", program=["--deaf", "--on-term", "ignore"]
    )
    assert run.wait() == 3
    assert time.monotonic() - began >= 2
    assert not run.is_serving
    assert run.has("TERM"), "it was asked first"
    assert keys.history() == []
    assert "not ready within 2 s" in run.process.errors.splitlines()[-1]
    assert all(line.startswith("disco: ") for line in run.process.errors.splitlines())


def test_a_command_that_ends_at_the_start_is_exit_code_3(stage: Stage, keys: Keys) -> None:
    """Also if it calls it a success."""
    run = stage.run("--ready-timeout", "60", program=["--exit", "0"])
    assert run.wait() == 3
    assert keys.history() == []
    assert "0" in run.process.errors.splitlines()[-1]
    assert "in use" not in run.process.errors


def test_a_service_that_is_not_well_is_unready_and_ready_again_when_it_is(stage: Stage, keys: Keys) -> None:
    """A probe that hangs is one that failed."""
    run = stage.ready(*HEALTH, "--health-failures", "3", "--health-timeout", "0.2")
    before = run.probes
    run.touch("sick")
    run.wait_for("unready")
    assert run.probes - before >= 3
    run.untouch("sick")
    run.wait_for("ready")
    run.touch("mute")
    run.wait_for("unready")
    run.untouch("mute")
    run.wait_for("ready")
    assert keys.states(run.id) == ["ready", "unready", "ready", "unready", "ready"]
    assert run.is_serving


def test_without_a_health_path_a_service_that_does_not_accept_any_more_is_unready(
    stage: Stage, keys: Keys
) -> None:
    """A listener that is closed, in a process that lives on."""
    script = (
        "import json, os, pathlib, socket, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "(folder / 'new').write_text(json.dumps({'pid': os.getpid(), 'env': dict(os.environ)}))\n"
        "(folder / 'new').rename(folder / 'facts.json')\n"
        "while not (folder / 'deaf').exists(): time.sleep(0.01)\n"
        "listener.close()\n"
        "time.sleep(60)\n"
    )
    run = stage.ready(command_line=["python3", "-c", script, "FOLDER"])
    run.touch("deaf")
    run.wait_for("unready")
    assert run.is_serving


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
def test_the_command_s_death_takes_it_out_at_once_and_its_signal_is_told(
    stage: Stage, keys: Keys, number: signal.Signals, code: int
) -> None:
    run = stage.ready("--ttl", "60", "--quiet", "30", program=["--on-term", "die"])
    lease = keys.instances("experiment")[run.id].lease
    began = time.monotonic()
    run.send_child(number)
    run.wait_for("gone", timeout=5.0)
    assert time.monotonic() - began < 5.0
    assert run.wait() == code
    assert keys.time_to_live(lease) == -1
    assert keys.states(run.id) == ["ready", "gone"]


def test_a_command_that_dies_as_soon_as_it_is_registered_was_ready(stage: Stage, keys: Keys) -> None:
    """Its own exit code is told, and not that it never became ready. A supervisor that is stopped meanwhile is a slow one."""
    run = stage.run(*HEALTH)
    assert run.pid
    eventually_at_once(lambda: run.state == "ready")
    run.send(signal.SIGSTOP)
    run.send_child(signal.SIGKILL)
    run.send(signal.SIGCONT)
    assert run.wait() == 137, run.words
    assert keys.states(run.id) == ["ready", "gone"]


def eventually_at_once(predicate: Callable[[], bool]) -> None:
    """Look without a pause: what comes next is to be as early as it can be."""
    until = time.monotonic() + SLOW
    while not predicate():
        assert time.monotonic() < until


def test_the_command_s_own_exit_code_is_the_exit_code(stage: Stage, keys: Keys) -> None:
    script = (
        "import json, os, pathlib, socket, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "(folder / 'new').write_text(json.dumps({'pid': os.getpid(), 'env': dict(os.environ)}))\n"
        "(folder / 'new').rename(folder / 'facts.json')\n"
        "while not (folder / 'end').exists(): time.sleep(0.01)\n"
        "sys.exit(42)\n"
    )
    run = stage.ready(command_line=["python3", "-c", script, "FOLDER"])
    run.touch("end")
    assert run.wait() == 42
    assert run.state == "gone"


def test_a_socket_that_is_taken_is_said_at_once(stage: Stage, keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = stage.run(
            "--socket", "--port", str(port), *HEALTH, "--ready-timeout", "60", program=["--fd", "3"]
        )
        assert run.wait(timeout=15.0) != 0
    assert str(port) in run.process.errors
    assert "Traceback" not in run.process.errors
    assert keys.history() == []
    assert not run.was_started
