"""Commands: where the file's name comes in, what they said, and that they end."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import pytest

from disco_sidecar.rendering.commands import Outcome, names_the_file, run
from tests.support.eventually import eventually

FILE = Path("/tmp/a 'b' $c/x.conf")


def said(command: str, *, timeout: float = 10.0) -> Outcome:
    return run(command, FILE, timeout=timeout, clock=monotonic)


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("printf %s {}", str(FILE)),
        ("printf '%s|' {} {}", f"{FILE}|{FILE}|"),
        ('printf %s "$F"', str(FILE)),
        ('printf %s "${F}"', str(FILE)),
        ("""printf 'events {} http { include %s; }' "$F" """, f"events {{}} http {{ include {FILE}; }}"),
        ("printf '%s' $FILE$F_", ""),
        ("echo out; echo err >&2", "out\nerr"),
    ],
)
def test_the_file_is_named_by_a_placeholder_or_a_variable(command: str, wanted: str) -> None:
    done = said(command)
    assert (done.problem, done.output) == ("", wanted)


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("nginx -t", False), ("x -f {}", True), ("x $F", True), ("x ${F}", True), ("x $FILE", False)],
)
def test_whether_a_command_names_the_file(command: str, wanted: bool) -> None:
    assert names_the_file(command) is wanted


def test_a_failure_is_told_with_what_was_said_last() -> None:
    done = said("seq 1 10000; echo 'no \"events\" section' >&2; exit 3")
    assert done.problem == "exit code 3"
    assert done.output.endswith('10000\nno "events" section')
    assert len(done.output) <= 4096
    assert said("/nonexistent/nginx -t").problem == "exit code 127"
    assert said("kill -9 $$").problem == "ended by signal 9"


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = monotonic()
    done = said(f"sleep 300 & echo $! > {tmp_path}/pid; echo waiting; wait", timeout=0.3)
    assert done.problem == "it took more than 0.3 s, and was ended"
    assert done.output == "waiting"
    assert monotonic() - began < 5
    eventually(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_it_is_broken_off_when_it_is_no_longer_wanted() -> None:
    done = run("sleep 300", FILE, timeout=300, clock=monotonic, is_over=lambda: True)
    assert done.problem == "broken off"


def test_what_a_command_leaves_running_is_not_waited_for_and_lives_on(tmp_path: Path) -> None:
    """As a daemon that was started anew by a reload."""
    began = monotonic()
    done = said(f"sleep 300 & echo $! > {tmp_path}/pid")
    pid = int((tmp_path / "pid").read_text())
    try:
        assert done.problem == ""
        assert monotonic() - began < 5
        assert not is_gone(pid)
    finally:
        os.kill(pid, 9)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # dead, and whoever inherited it has not looked yet
