"""A program that ends without closing anything: soon, in silence, and its lease is given back, whatever etcd does."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence

import pytest

from discoclient.dev import EtcdCluster
from tests.faults.harness import PROGRAMS
from tests.faults.raw import Raw
from tests.support.processes import Processes, PythonProcess
from tests.support.servers import Servers

SOON = 3.0
"""Seconds from a program's last line to its end. It takes well under one; the machine may be busy with other things."""

ENDINGS = {
    "fall": (0, ""),
    "exception": (1, "RuntimeError: the end"),
    "exit": (7, ""),
    "sigint": (-2, "KeyboardInterrupt"),
    "calling": (0, ""),
}
"""By ending: the exit code, and the last line on standard error."""


class Leaving:
    """A program that ends without closing anything, `programs/leaving.py`."""

    def __init__(self, process: PythonProcess, how: str) -> None:
        self.process = process
        self.how = how
        self.id = process.wait_for_line("ready", timeout=30).split()[1]

    def assert_ends_soon(self) -> None:
        if self.how == "sigint":
            self.process.wait_for_line("watching")
            self.process.signal(signal.SIGINT)
        else:
            self.process.signal(signal.SIGUSR1)
            self.process.wait_for_line("last")
        code = self.process.wait(timeout=SOON)
        wanted, last = ENDINGS[self.how]
        assert code == wanted
        assert self._noise() == ([last] if last else []), self.process.errors

    def _noise(self) -> list[str]:
        """What stands on standard error, but for the frames of tracebacks, and what joins two of them."""
        framework = (
            r"( .*|Traceback .*:|During handling .*:|The above .*:|asyncio\.exceptions\.CancelledError|)"
        )
        return [line for line in self.process.errors.splitlines() if not re.fullmatch(framework, line)]


class Stage:
    """An etcd, an instance to call, and programs that end."""

    def __init__(self, etcd: EtcdCluster, url: str, servers: Servers, processes: Processes) -> None:
        self.url = url
        self.raw = Raw(etcd, url)
        self.raw.add("experiment", port=servers.start().port)
        self._processes = processes

    def start(self, kind: str, *hows: str, flags: Sequence[str] = (), without: str = "") -> list[Leaving]:
        """One for each ending, all of them ready to end."""
        arguments = [*flags, PROGRAMS / "leaving.py", "--without", without, kind]
        started = [
            (self._processes.python(*arguments, how, env={"DISCO_REGISTRY": self.url}), how) for how in hows
        ]
        return [Leaving(process, how) for process, how in started]

    def start_of_each_kind(self, *, without: str = "") -> list[Leaving]:
        return [one for kind in ("sync", "async") for one in self.start(kind, "fall", without=without)]

    def holds(self, leaving: Leaving) -> bool:
        """Whether its lease still stands."""
        return self.raw.instance("leaving", leaving.id) is not None


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture
def stage(etcd: EtcdCluster, registry_url: str, servers: Servers, processes: Processes) -> Stage:
    """On the node that all tests share."""
    return Stage(etcd, registry_url, servers, processes)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_however_a_program_ends_it_ends_soon_in_silence_and_gives_its_lease_back(
    stage: Stage, kind: str
) -> None:
    programs = stage.start(kind, "fall", "exception", "exit", "sigint")
    (control,) = stage.start(kind, "fall", without="exit-hook")
    for program in programs:
        assert stage.holds(program)
        program.assert_ends_soon()
        assert not stage.holds(program), f"{program.how}: 60 s before the ttl would have taken it away"
    control.assert_ends_soon()
    assert stage.holds(control), "the negative control leaves it behind"


def test_a_program_that_ends_draws_no_warning_in_development_mode(stage: Stage) -> None:
    flags = ["-X", "dev", "-W", "error"]
    programs = [*stage.start("sync", "fall", flags=flags), *stage.start("async", "fall", flags=flags)]
    for program in programs:
        program.assert_ends_soon()
        assert not stage.holds(program)


def test_threads_that_still_call_when_a_program_ends_are_not_made_to_fail(stage: Stage) -> None:
    """A daemon thread that is cut short says nothing; one that fails has Python print its traceback."""
    (program,) = stage.start("sync", "calling")
    (control,) = stage.start("sync", "calling", without="calls-at-exit")
    program.assert_ends_soon()
    assert not stage.holds(program)
    with pytest.raises(AssertionError, match="Exception in thread"):
        control.assert_ends_soon()


@pytest.mark.parametrize("harm", ["kill", "pause"])
def test_a_program_ends_as_soon_when_etcd_does_not_answer(
    etcd_node: EtcdCluster, servers: Servers, processes: Processes, harm: str
) -> None:
    (member,) = etcd_node.members
    # More than one address, as of a cluster: each of them takes its time not to answer.
    stage = Stage(
        etcd_node, f"etcd://{','.join([f'127.0.0.1:{member.client_port}'] * 3)}", servers, processes
    )
    programs = stage.start_of_each_kind()
    # A dead one refuses at once, which needs no bound.
    controls = stage.start("sync", "fall", without="exit-bound") if harm == "pause" else []
    getattr(member, harm)()
    for program in programs:
        program.assert_ends_soon()
    for control in controls:
        with pytest.raises(AssertionError, match="still runs"):
            control.assert_ends_soon()
        control.process.kill()
    member.resume()
