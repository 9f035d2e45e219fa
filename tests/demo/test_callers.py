"""The load of the demo: what it counts as an answer and as a failure."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from discoclient.cli.demo_callers import THREADS, Callers
from discoclient.testing import TestRegistry, memory_registry
from tests.support.eventually import eventually
from tests.support.ports import free_port


@contextmanager
def listening(body: bytes, status: int = 200, bodies: list[str] | None = None) -> Iterator[int]:
    """*bodies* collects what POSTs carry."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert bodies is not None
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def registry() -> Iterator[TestRegistry]:
    with memory_registry() as made:
        yield made


def both_called(callers: Callers) -> bool:
    return {call.caller for call in callers.calls} == {"sync", "async"}


def test_both_kinds_call_and_the_number_is_the_bodys(registry: TestRegistry) -> None:
    with listening(b"417") as port:
        registry.add("experiment", port)
        with Callers("experiment", rate=50, registry=registry.url) as callers:
            eventually(lambda: both_called(callers))
    assert {(call.number, call.error, call.attempts) for call in callers.calls} == {(417, "", 1)}
    assert all(call.began < call.ended for call in callers.calls)
    assert callers.failure is None


def test_nothing_is_sent_after_the_block_and_no_caller_is_left(registry: TestRegistry) -> None:
    with listening(b"417") as port:
        registry.add("experiment", port)
        with Callers("experiment", rate=50, registry=registry.url) as callers:
            eventually(lambda: both_called(callers))
            assert calling_threads()
        count = len(callers.calls)
        assert not calling_threads()
        assert len(callers.calls) == count


def calling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "demo-caller"]


def test_posts_are_sent_only_while_they_are_wanted_and_each_carries_a_number_of_its_own(
    registry: TestRegistry,
) -> None:
    bodies: list[str] = []
    with listening(b"417", bodies=bodies) as port:
        registry.add("experiment", port)
        with Callers("experiment", rate=100, registry=registry.url) as callers:
            eventually(lambda: both_called(callers))
            callers.is_posting = True
            eventually(lambda: len({call.caller for call in callers.calls if call.post is not None}) == 2)
            callers.is_posting = False
            posts = len(bodies)
            count = len(callers.calls)
            eventually(lambda: len(callers.calls) > count + 20)
    sent = [call.post for call in callers.calls if call.post is not None]
    assert {call.error for call in callers.calls} == {""}
    assert len(sent) < len(callers.calls) / 2
    assert (
        len(sent) == len(set(sent)) <= posts + THREADS + 1
    )  # what was under way when they were no longer wanted
    assert sorted(map(str, sent)) == sorted(bodies)


def test_a_higher_rate_sends_more(registry: TestRegistry) -> None:
    with listening(b"417") as port:
        registry.add("experiment", port)
        with (
            Callers("experiment", rate=10, registry=registry.url) as slow,
            Callers("experiment", rate=100, registry=registry.url) as quick,
        ):
            eventually(lambda: len(quick.calls) >= 60, timeout=20)
    assert len(slow.calls) < 0.5 * len(quick.calls)


def test_an_error_and_a_bad_status_are_failures(registry: TestRegistry) -> None:
    with listening(b"no", status=500) as port:
        registry.add("experiment", port)
        registry.add("experiment", free_port())
        with Callers("experiment", rate=50, registry=registry.url, balancer="round_robin") as callers:
            eventually(lambda: both_called(callers))
    assert {call.number for call in callers.calls} == {None}
    assert {call.error for call in callers.calls} == {"status 500"}  # tried again where it was refused


def test_a_refused_connection_is_a_failure_of_its_own_kind(registry: TestRegistry) -> None:
    registry.add("experiment", free_port())
    with Callers("experiment", rate=50, registry=registry.url) as callers:
        eventually(lambda: both_called(callers))
    assert Counter(call.error.partition(":")[0] for call in callers.calls).keys() == {"ConnectError"}


def test_an_answer_that_is_no_number_ends_the_caller_and_is_not_swallowed(registry: TestRegistry) -> None:
    with listening(b"who knows") as port:
        registry.add("experiment", port)
        with Callers("experiment", rate=50, registry=registry.url) as callers:
            eventually(lambda: callers.failure is not None)
