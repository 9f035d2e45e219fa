"""How a process ends: what is under way is finished; who is in a hurry says so; who has no time is cut off."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.sidecar.running.starting import Started, Starter
from tests.support.eventually import eventually
from tests.support.servers import HttpServer, hold


class Slow:
    """A request that takes until it is told to end, in a thread of its own."""

    def __init__(self, started: Started, server: HttpServer) -> None:
        self.over = threading.Event()
        self.answer: httpx.Response | Exception | None = None
        self._url = f"{started.url}/experiment/slow"
        server.behaviour = hold(self.over.is_set)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(lambda: any(seen.target == "/slow" for seen in server.seen), what="it is under way")

    def _run(self) -> None:
        try:
            self.answer = httpx.get(self._url, timeout=20.0)
        except httpx.HTTPError as error:
            self.answer = error

    def join(self) -> httpx.Response | Exception | None:
        self._thread.join(10)
        return self.answer


@pytest.fixture
def slow_of(server: HttpServer) -> Iterator[list[Slow]]:
    begun: list[Slow] = []
    yield begun
    for each in begun:
        each.over.set()
        each.join()


def refuses(started: Started) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", started.port)) != 0


def test_a_request_under_way_is_finished_while_new_ones_are_refused(
    start: Starter, server: HttpServer, slow_of: list[Slow]
) -> None:
    started = start().wait_ready()
    slow_of.append(slow := Slow(started, server))
    started.kill(signal.SIGTERM)
    eventually(lambda: refuses(started), what="nobody listens")
    assert started.state()["is_draining"]
    assert started.readiness()[0] == 503
    started.kill(signal.SIGTERM)  # again: several may send one
    slow.over.set()
    answer = slow.join()
    assert isinstance(answer, httpx.Response)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert started.process.wait() == 0
    assert started.errors == ""
    assert ["STOPPING=1"] in [lines for _, lines in started.notified.drain()]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_after_that_ends_it_at_once(
    first: signal.Signals, start: Starter, server: HttpServer, slow_of: list[Slow]
) -> None:
    started = start().wait_ready()
    slow_of.append(slow := Slow(started, server))
    started.kill(first)
    eventually(lambda: refuses(started), what="nobody listens")
    began = time.monotonic()
    started.kill(signal.SIGINT)
    assert started.process.wait() == 0
    assert time.monotonic() - began < 5.0  # the request would have had 30 s
    assert isinstance(slow.join(), httpx.HTTPError)
    assert "interrupted twice: what is under way is cut off" in started.errors


def test_when_the_time_is_over_the_rest_is_cut_off_and_that_is_said(
    start: Starter, server: HttpServer, slow_of: list[Slow]
) -> None:
    started = start("--drain-timeout", "0.2").wait_ready()
    slow_of.append(slow := Slow(started, server))
    started.kill(signal.SIGTERM)
    assert started.process.wait() == 0
    assert isinstance(slow.join(), httpx.HTTPError)
    assert "not all was finished within 0.2 s: the rest is cut off" in started.errors


def test_another_may_start_while_the_first_still_finishes(
    start: Starter, server: HttpServer, slow_of: list[Slow]
) -> None:
    started = start().wait_ready()
    slow_of.append(slow := Slow(started, server))
    started.kill(signal.SIGTERM)
    eventually(lambda: refuses(started), what="nobody listens")
    second = start(port=started.port, admin=started.admin_port).wait_ready()
    assert {second.state()["pid"] for _ in range(10)} == {second.pid}  # whose admin address it is by now
    slow.over.set()
    assert isinstance(slow.join(), httpx.Response)
    assert started.process.wait() == 0
    assert {second.state()["pid"] for _ in range(10)} == {second.pid}


def test_after_a_hang_up_only_the_next_one_is_looked_at_while_the_first_still_finishes(
    start: Starter, server: HttpServer, slow_of: list[Slow]
) -> None:
    started = start().wait_ready()
    slow_of.append(slow := Slow(started, server))
    started.kill(signal.SIGHUP)
    second = eventually(start.successors, what="a successor", timeout=15).pop()
    eventually(lambda: f"MAINPID={second}" in str(started.notified.drain()), what="it is ready", timeout=15)
    pids = [started.state()["pid"] for _ in range(30)]
    assert pids[10:] == [second] * 20  # the first few may still reach the old one
    slow.over.set()
    assert isinstance(slow.join(), httpx.Response)
    assert started.process.wait() == 0


def test_it_can_be_interrupted_before_it_serves_without_a_traceback(start: Starter) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        started = start(port=stranger.getsockname()[1])
        ours = Path(f"/proc/{started.pid}/status")
        # It waits for the address, with the signals set by then that mean nothing to it yet.
        eventually(lambda: _ignores(ours, signal.SIGUSR1), what="it has begun", timeout=15)
        started.kill(signal.SIGUSR1)
        started.kill(signal.SIGHUP)
        started.kill(signal.SIGINT)
        assert started.process.wait() == 130
        assert "Traceback" not in started.errors


def _ignores(status: Path, number: signal.Signals) -> bool:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("SigIgn:"))
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


def test_an_address_of_a_stranger_is_an_error_in_bounded_time(start: Starter) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        started = start(port=stranger.getsockname()[1])
        assert started.process.wait(timeout=20) == 1
    assert len(started.errors.splitlines()) == 1
    assert "the address is in use, and not by a sidecar of this user" in started.errors


def test_a_log_that_can_not_be_written_ends_the_start_with_code_2(start: Starter, tmp_path: Path) -> None:
    started = start("--bind", f"unix:{tmp_path}/a", "--access-log", str(tmp_path))
    assert started.process.wait(timeout=15) == 2
    assert f"--access-log {tmp_path}" in started.errors
    assert list(tmp_path.iterdir()) == []


def test_a_killed_one_is_followed_by_one_that_listens_within_a_second(start: Starter, tmp_path: Path) -> None:
    first = start("--bind", f"unix:{tmp_path}/a").wait_ready()
    first.kill(signal.SIGKILL)
    assert first.process.wait() == -signal.SIGKILL
    second = start("--bind", f"unix:{tmp_path}/a", port=first.port, admin=first.admin_port)
    eventually(lambda: not refuses(second), what="it listens", timeout=20)
    assert _used(second.pid) < 1.0  # seconds of a processor, which neighbours of this test can't take from it
    assert second.wait_ready().get() == 200


def _used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
