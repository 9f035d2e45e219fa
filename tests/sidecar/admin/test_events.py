"""Server-sent events: the state once a period, what happens as it happens, and nobody who does not read."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from disco_sidecar.admin import Limits
from tests.support.eventually import eventually

from .serving import Served
from .states import a_service, a_state

QUICK = Limits(period=0.05, stall=0.4)
LISTEN = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(limits=QUICK) as server:
        yield server


class Listening:
    """The events of one client, as they come."""

    def __init__(self, served: Served) -> None:
        self._client = httpx.Client(trust_env=False, timeout=10.0)
        self._stream = self._client.stream("GET", f"{served.url}/api/events")
        self.response = self._stream.__enter__()
        self._lines = self.response.iter_lines()

    def next(self, wanted: str = "") -> tuple[str, dict[str, Any]]:
        """The next event of this kind."""
        kind = ""
        for line in self._lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind.startswith(wanted):
                return kind, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended")

    def close(self) -> None:
        self._stream.__exit__(None, None, None)
        self._client.close()


@pytest.fixture
def listening(served: Served) -> Iterator[Listening]:
    one = Listening(served)
    yield one
    one.close()


def test_the_first_state_comes_at_once_and_whole(served: Served, listening: Listening) -> None:
    assert listening.response.headers["content-type"] == "text/event-stream"
    assert listening.next() == ("state", served.state)


def test_later_states_bring_only_the_end_of_the_history(served: Served, listening: Listening) -> None:
    listening.next("state")
    later = listening.next("state")[1]
    [whole], [short] = served.state["services"], later["services"]
    assert short["history"] == whole["history"][-5:]
    assert {**short, "history": None} == {**whole, "history": None}
    assert len(whole["history"]) == 60


def test_a_change_is_seen_within_a_period_or_two(served: Served, listening: Listening) -> None:
    served.state = a_state(a_service("other"))
    names = [listening.next("state")[1]["services"][0]["service"] for _ in range(4)]
    assert names[-1] == "other"


def test_what_happens_is_told_as_it_happens_from_any_thread(served: Served, listening: Listening) -> None:
    listening.next("state")
    thread = threading.Thread(
        target=served.happenings.add, args=("experiment", "ejected", "10.0.0.1:80 ejected")
    )
    thread.start()
    thread.join()
    told = listening.next("happening")[1]
    assert (told["service"], told["kind"], told["text"]) == ("experiment", "ejected", "10.0.0.1:80 ejected")


def test_masses_of_events_are_cut_short(served: Served, listening: Listening) -> None:
    listening.next("state")

    async def flood() -> None:
        for number in range(5000):
            served.happenings.add("experiment", "change", f"number {number}")

    served.on_loop(flood)
    first = listening.next("happening")[1]
    assert first["text"] == "number 4900"


def test_the_state_is_asked_for_once_however_many_listen(served: Served) -> None:
    all_of_them = [Listening(served) for _ in range(5)]
    before = served.asked
    for _ in range(5):
        for one in all_of_them:
            one.next("state")
    # Each had its first; and then one for all, for each further period (and perhaps the one that is under way).
    assert served.asked - before <= 8
    for one in all_of_them:
        one.close()


def test_nobody_listens_nobody_asks(served: Served) -> None:
    one = Listening(served)
    one.next("state")
    one.close()
    eventually(lambda: served.server.connections == 0)
    samples = served.samples
    eventually(lambda: served.samples >= samples + 1)
    asked = served.asked
    eventually(lambda: served.samples >= samples + 4)
    assert served.asked == asked


def test_one_who_does_not_read_is_dropped_and_the_others_go_on(served: Served, listening: Listening) -> None:
    served.state = a_state(a_service(problem="x" * 200_000))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(served.address)
        slow.sendall(LISTEN)
        eventually(lambda: served.server.connections == 2)
        most = 0
        for _ in range(200):
            listening.next("state")
            if served.server.connections == 1:
                break
            most = max([most, *(each.unsent for each in list(served.server._connections))])
        assert served.server.connections == 1
    # One state, and what the kernel did not take: never a second one behind it.
    assert 0 < most < 2 * 210_000


def test_without_the_limit_it_would_stay_for_ever() -> None:
    with Served(limits=Limits(period=0.02, stall=3600.0)) as served, socket.socket() as slow:
        served.state = a_state(a_service(problem="x" * 200_000))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(served.address)
        slow.sendall(LISTEN)
        eventually(lambda: served.samples > 40)
        assert served.server.connections == 1


def test_one_who_speaks_into_the_stream_is_dropped(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(LISTEN)
        connection.recv(10)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        eventually(lambda: served.server.connections == 0)


def test_a_client_that_is_gone_is_forgotten(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(LISTEN)
        connection.recv(10)
        eventually(lambda: served.server.connections == 1)
    eventually(lambda: served.server.connections == 0)


def test_listeners_leave_room_for_a_scrape() -> None:
    with Served(limits=Limits(streams=2)) as served:
        listening = [Listening(served) for _ in range(2)]
        refused = httpx.get(f"{served.url}/api/events", trust_env=False)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert httpx.get(f"{served.url}/metrics", trust_env=False).status_code == 200
        for one in listening:
            one.close()


def test_a_state_that_fails_is_left_out_and_the_stream_goes_on(
    served: Served, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    listening.next("state")
    served.state = {"broken": True}
    eventually(lambda: "the state could not be told" in caplog.text)
    served.state = a_state(a_service("other"))
    eventually(lambda: listening.next("state")[1]["services"][0]["service"] == "other")
