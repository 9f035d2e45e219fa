"""``disco run`` itself is killed: its command goes with it, and the lease with both."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.running.keys import Keys
from tests.running.stage import HEALTH, SLOW, Deploy, Stage, command
from tests.support.eventually import eventually


def ends_soon(run: Deploy, *, within: float) -> None:
    eventually(lambda: not run.is_serving, timeout=within, what="the command is gone too")


@pytest.mark.parametrize("how", ["port", "socket"])
def test_the_command_dies_with_its_supervisor_and_the_lease_ends_by_itself(
    stage: Stage, keys: Keys, how: str
) -> None:
    options, program = (["--socket", *HEALTH], ["--fd", "3"]) if how == "socket" else ([], [])
    run = stage.ready(*options, "--ttl", "2", program=program)
    lease = keys.instances("experiment")[run.id].lease
    run.send(signal.SIGKILL)
    ends_soon(run, within=5.0)
    assert run.process.wait() == -signal.SIGKILL
    eventually(lambda: run.state == "gone", timeout=2.0 + 5.0, what="nobody renews the lease")
    assert keys.time_to_live(lease) == -1


def test_a_command_that_ignores_sigterm_dies_with_its_supervisor_too(stage: Stage) -> None:
    run = stage.ready("--stop-timeout", "0.5", "--ttl", "2", program=["--on-term", "ignore"])
    run.send(signal.SIGKILL)
    ends_soon(run, within=0.5 + 3.0)


def test_a_command_that_is_not_ready_yet_dies_with_its_supervisor(stage: Stage, keys: Keys) -> None:
    run = stage.run("--stop-timeout", "0.5", program=["--deaf", "--on-term", "ignore"])
    assert run.facts["pid"]
    run.send(signal.SIGKILL)
    ends_soon(run, within=0.5 + 3.0)
    assert keys.history() == []


def test_what_a_shell_has_started_dies_with_the_supervisor(stage: Stage) -> None:
    folder: Path = stage._folder / "wrapped"
    line = " ".join(command(folder))
    run = stage.ready("--stop-timeout", "0.5", command_line=["sh", "-c", f"{line}; exit $?"], name="wrapped")
    assert run.facts["ppid"] != run.process.pid, "there is a shell between"
    run.send(signal.SIGKILL)
    ends_soon(run, within=0.5 + 3.0)


def test_what_has_a_session_of_its_own_ends_with_the_command(stage: Stage) -> None:
    """It was ready because that one listens, so it is that one that has to go."""
    folder: Path = stage._folder / "apart"
    line = " ".join(["setsid", "-w", *command(folder)])
    run = stage.ready("--stop-timeout", "1", command_line=["sh", "-c", f"{line}; exit $?"], name="apart")
    assert run.facts["pgid"] == run.pid, "it has a group of its own"
    run.send(signal.SIGTERM)
    run.wait()
    assert not run.is_serving, run.words
    assert run.has("TERM")


def test_a_supervisor_that_stands_still_loses_its_lease_and_has_it_again(stage: Stage, keys: Keys) -> None:
    """For as long as it stands, the registry forgets; its command serves on, and is registered again."""
    run = stage.ready("--ttl", "2")
    run.send(signal.SIGSTOP)
    eventually(lambda: run.state == "gone", timeout=2.0 + 5.0)
    assert run.is_serving
    began = time.monotonic()
    run.send(signal.SIGCONT)
    run.wait_for("ready", timeout=SLOW)
    assert time.monotonic() - began < 10.0
    assert run.is_serving
