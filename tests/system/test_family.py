"""All that a process started is found, and ended with it: real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discoclient.system.family import Guardian, family, is_empty, signal_group
from discoclient.system.process import Process, end, send, spawn
from tests.dev.kv import is_alive
from tests.support.eventually import eventually
from tests.support.processes import Processes

Start = Callable[..., tuple[Process, list[int]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs a shell script in a session of its own; the pids that it writes to ``$OUT``, once there are so many of them.

    At the end all of the session is ended, and what has left it by its pid.
    """
    started: list[tuple[Process, Path]] = []

    def run(script: str, count: int = 1) -> tuple[Process, list[int]]:
        out = tmp_path / f"pids-{len(started)}"
        process = spawn(["/bin/sh", "-c", script], env={**os.environ, "OUT": str(out)})
        started.append((process, out))
        eventually(lambda: len(read(out)) == count, what=f"{count} pids", timeout=10)
        return process, read(out)

    yield run
    for process, out in started:
        end(process, grace=0.0)
        signal_group(process.pid, signal.SIGKILL)
        for pid in read(out):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


def read(out: Path) -> list[int]:
    text = out.read_text() if out.exists() else ""
    return [int(line) for line in text.splitlines() if text.endswith("\n")]


# ---- who belongs to it


def test_children_and_their_children_belong_to_it_and_others_do_not(start: Start) -> None:
    one, pids = start('sleep 600 & echo $! >> "$OUT"; sh -c "sleep 600 & echo \\$! >> $OUT; wait" & wait', 2)
    other, _ = start('sleep 600 & echo $! >> "$OUT"; wait')
    found = family(one.pid)
    assert one.pid in found
    assert set(pids) < found
    assert len(found) == 4
    assert other.pid not in found
    assert os.getpid() not in found


def test_an_orphan_of_its_session_belongs_to_it(start: Start) -> None:
    """Its parent is gone, and it was given to another."""
    process, (orphan,) = start('(sleep 600 & echo $! >> "$OUT"); exec sleep 600')
    eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == "sleep")
    assert orphan in family(process.pid)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
def test_a_child_with_a_session_of_its_own_belongs_to_it_while_its_parent_lives(start: Start) -> None:
    process, (child,) = start('setsid sh -c "echo \\$\\$ >> $OUT; exec sleep 600" & wait')
    assert child in family(process.pid)


def test_a_name_with_spaces_and_parentheses_confuses_nobody(start: Start, tmp_path: Path) -> None:
    odd = tmp_path / ") S 1 (("
    shutil.copy(shutil.which("sleep") or "/bin/sleep", odd)
    process, (pid,) = start(f'"{odd}" 600 & echo $! >> "$OUT"; wait')
    eventually(lambda: Path(f"/proc/{pid}/comm").read_text().startswith(") S 1"))
    assert family(process.pid) == {process.pid, pid}


def test_what_is_gone_has_no_family() -> None:
    process = spawn(["true"])
    process.wait()
    assert family(process.pid) == {process.pid}


# ---- signals to all of it


def test_a_signal_reaches_all_of_the_group(start: Start) -> None:
    process, (child,) = start('sleep 600 & echo $! >> "$OUT"; wait')
    assert not is_empty(process.pid)
    assert signal_group(process.pid, signal.SIGTERM)
    process.wait(10)
    eventually(lambda: not is_alive(child))
    eventually(lambda: is_empty(process.pid))
    assert not signal_group(process.pid, signal.SIGTERM)


def test_a_group_is_not_empty_while_its_first_process_was_not_reaped() -> None:
    """Its number can't be given to others before."""
    process = spawn(["true"])
    eventually(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert not is_empty(process.pid)
    process.wait()
    assert is_empty(process.pid)


def test_a_group_is_not_empty_while_a_child_outlives_its_parent(start: Start) -> None:
    process, (child,) = start('sleep 600 & echo $! >> "$OUT"')
    process.wait(10)
    assert not is_empty(process.pid)
    assert signal_group(process.pid, signal.SIGKILL)
    eventually(lambda: is_empty(process.pid) or not is_alive(child))


# ---- the guardian

OWNER = """
import os, signal, subprocess, sys
from discoclient.system.family import Guardian

command = subprocess.Popen(["/bin/sh", "-c", sys.argv[1]], start_new_session=True)
if sys.argv[2] != "none":
    guardian = Guardian(command.pid, grace=float(sys.argv[2]))
    guarded_by = guardian._shell.pid
else:
    guarded_by = 0
print("owns", command.pid, guarded_by, flush=True)
if sys.argv[3] == "dismiss":
    guardian.dismiss()
    print("dismissed", flush=True)
signal.pause()
"""
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def owned(processes: Processes) -> Iterator[Callable[..., tuple[object, int, int]]]:
    groups: list[int] = []

    def run(script: str, grace: str = "30", then: str = "wait") -> tuple[object, int, int]:
        owner = processes.code(OWNER, script, grace, then)
        _, group, guardian = owner.wait_for_line("owns").split()
        groups.append(int(group))
        return owner, int(group), int(guardian)

    yield run
    for group in groups:
        signal_group(group, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_the_owner_dies_of_its_command_and_all_it_started_end(owned: Start, number: int) -> None:
    owner, group, guardian = owned("sleep 600 & sleep 600 & wait")
    os.kill(owner.pid, number)
    eventually(lambda: not is_alive(guardian), timeout=20, what="the guardian has done its work")
    eventually(lambda: is_empty(group), what="all of the group is gone")


def test_without_a_guardian_a_command_outlives_its_owner(owned: Start) -> None:
    """Negative control."""
    owner, group, _ = owned("sleep 600 & wait", "none")
    owner.kill()
    assert not is_empty(group)


def test_a_command_that_does_not_heed_sigterm_is_killed_after_the_grace(owned: Start) -> None:
    owner, group, guardian = owned(STUBBORN, "0.3")
    owner.kill()
    eventually(lambda: not is_alive(guardian), timeout=20)
    eventually(lambda: is_empty(group))


def test_a_command_has_the_whole_grace_to_end(owned: Start, tmp_path: Path) -> None:
    """It is told to end, and may finish what it is at."""
    mark = tmp_path / "mark"
    owner, group, guardian = owned(
        f"trap 'sleep 0.3; echo finished > {mark}; exit' TERM; while :; do sleep 0.1; done"
    )
    owner.kill()
    eventually(lambda: not is_alive(guardian), timeout=20)
    assert mark.read_text() == "finished\n"
    eventually(lambda: is_empty(group))


def test_a_guardian_that_is_dismissed_ends_and_leaves_the_command_alone(owned: Start) -> None:
    owner, group, guardian = owned("sleep 600 & wait", "0", "dismiss")
    owner.wait_for_line("dismissed")
    assert not is_alive(guardian)
    owner.kill()
    assert not is_empty(group)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_guardian_does_not_go_by_itself(owned: Start, number: int) -> None:
    """A service manager that stops us sends its signals to all that we started."""
    owner, group, guardian = owned("sleep 600 & wait")
    os.kill(guardian, number)
    owner.kill()
    eventually(lambda: not is_alive(guardian), timeout=20)
    eventually(lambda: is_empty(group))


def test_a_guardian_of_what_is_gone_ends_at_once(owned: Start) -> None:
    owner, group, guardian = owned("exit 0")
    owner.kill()
    eventually(lambda: not is_alive(guardian), timeout=10)
    assert is_empty(group)


def test_to_dismiss_twice_or_after_it_was_killed_is_no_error() -> None:
    process = spawn(["sleep", "600"])
    try:
        guardian = Guardian(process.pid, grace=1.0)
        guardian.dismiss()
        guardian.dismiss()
        killed = Guardian(process.pid, grace=1.0)
        killed._shell.send_signal(signal.SIGKILL)
        killed._shell.wait()
        killed.dismiss()
        assert process.poll() is None
    finally:
        end(process, grace=0.0)


def test_a_guardian_holds_nothing_of_ours_open() -> None:
    """Else whoever reads what we print would wait for it, and not for us."""
    process = spawn(["sleep", "600"])
    try:
        guardian = Guardian(process.pid, grace=1.0)
        folder = Path(f"/proc/{guardian._shell.pid}/fd")
        eventually(
            lambda: Path(f"/proc/{guardian._shell.pid}/comm").read_text().strip() in ("sh", "dash", "bash")
        )
        assert {entry.name for entry in folder.iterdir()} <= {"0", "1", "2", "10", "255"}
        assert os.readlink(folder / "1") == os.readlink(folder / "2") == "/dev/null"
        guardian.dismiss()
    finally:
        assert send(process, signal.SIGTERM)
        assert isinstance(process, subprocess.Popen)
        process.wait()
