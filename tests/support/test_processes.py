"""Processes under test: what they say is heard, and none is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.processes import Processes, running

ROOT = Path(__file__).parents[2]
FOREVER = "import signal; print('up'); signal.pause()"


def test_lines_are_found_one_after_the_other(processes: Processes) -> None:
    process = processes.code("print('a 1'); print('b'); print('a 2')")
    assert process.wait_for_line("a") == "a 1"
    assert process.wait_for_line(lambda line: line.startswith("a")) == "a 2"
    assert process.wait() == 0
    assert process.output == "a 1\nb\na 2"


def test_a_line_that_never_comes_is_an_error_at_the_end_of_the_output(processes: Processes) -> None:
    process = processes.code("import sys; print('a'); print('oops', file=sys.stderr); sys.exit(3)")
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"did not print 'b' within 60 s(.|\n)*oops"):
        process.wait_for_line("b", timeout=60.0)
    assert time.monotonic() - began < 30.0
    assert process.wait() == 3


def test_a_line_that_does_not_come_in_time_is_an_error(processes: Processes) -> None:
    process = processes.code(FOREVER)
    process.wait_for_line("up")
    with pytest.raises(AssertionError, match=r"still running\) did not print 'b' within 0\.1 s"):
        process.wait_for_line("b", timeout=0.1)


def test_much_output_does_not_block_the_process(processes: Processes) -> None:
    process = processes.code("for _ in range(100_000): print('x' * 20)")
    assert process.wait(timeout=30.0) == 0


def test_this_repository_is_importable_and_the_environment_is_ours_and_more(processes: Processes) -> None:
    code = "import os, sys, discoclient.dev, tests.support; print(os.environ['EXTRA'], 'PATH' in os.environ, sys.argv[1:])"
    process = processes.python("-c", code, "one", env={"EXTRA": "more"})
    assert process.wait_for_line() == "more True ['one']", process.errors


def test_stop_asks_first_and_kill_does_not(processes: Processes) -> None:
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
    for end, expected in (("stop", 7), ("kill", -signal.SIGKILL)):
        process = processes.code(code)
        process.wait_for_line("up")
        assert process in running()
        assert getattr(process, end)() == expected
        assert process not in running()
        assert process.stop() == expected  # again


def test_a_process_that_does_not_end_is_an_error(processes: Processes) -> None:
    process = processes.code(FOREVER)
    with pytest.raises(AssertionError, match=r"still runs after 0\.1 s"):
        process.wait(timeout=0.1)


def test_a_paused_process_says_nothing_until_it_goes_on(processes: Processes) -> None:
    process = processes.code("import sys, time\nwhile True: print(time.monotonic()); time.sleep(0.01)")
    process.wait_for_line()
    process.pause()

    def grows() -> bool:
        before = len(process.output)
        with pytest.raises(AssertionError):
            process.wait_for_line("never", timeout=0.1)
        return len(process.output) > before

    eventually(lambda: not grows(), what="all that was in the pipe is read")
    assert not grows()
    before = len(process.output)
    process.resume()
    eventually(lambda: len(process.output) > before)


def test_a_signal_reaches_the_process(processes: Processes) -> None:
    process = processes.code(FOREVER)
    process.wait_for_line("up")
    process.signal(signal.SIGUSR1)
    assert process.wait() == -signal.SIGUSR1


def test_the_end_of_the_block_ends_all() -> None:
    with Processes() as several:
        one, two = several.code(FOREVER), several.code(FOREVER)
        assert {one, two} <= running()
    assert not {one, two} & running()
    assert not one.is_running


LEAK = """
from tests.support.processes import PythonProcess

def test_it():
    process = PythonProcess("-c", "import signal; signal.pause()")
    print("pid", process.pid)
    {end}
"""


@pytest.mark.parametrize(("end", "expected"), [("process.stop()", 0), ("pass", 1)])
def test_a_test_that_leaves_a_process_behind_fails(end: str, expected: int, tmp_path: Path) -> None:
    (tmp_path / "test_leak.py").write_text(LEAK.format(end=end))
    options = ["-q", "-s", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", "/dev/null", tmp_path / "test_leak.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == expected, found.stdout + found.stderr
    assert ("left behind" in found.stdout) == (expected == 1)
    pid = next(line.split()[-1] for line in found.stdout.splitlines() if line.startswith("pid"))
    assert not Path(f"/proc/{pid}").exists()
