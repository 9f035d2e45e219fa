"""The services that the benchmark of deploys deploys: how they work, leave, and go wrong."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.deploy_bad import KINDS
from benchmarks.deploy_service import MOODS, WORK, Connection, Instance
from benchmarks.deploy_stub import cut


class Transport:
    """In the place of a socket."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def connect(instance: Instance) -> tuple[Connection, Transport]:
    connection, transport = Connection(instance), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


async def answered(transport: Transport) -> bytes:
    async with asyncio.timeout(10):
        while not transport.sent:
            await asyncio.sleep(0.001)
    return transport.sent


async def test_a_post_is_in_the_ledger_before_its_answer_is_sent(tmp_path: Path) -> None:
    with Path(tmp_path, "ledger").open("wb") as ledger:
        connection, transport = connect(Instance("v7", "well", ledger.fileno()))
        connection.data_received(b"POST /work HTTP/1.1\r\nContent-Length: 7\r\n\r\nround")
        assert Path(tmp_path, "ledger").read_text() == "", "half a body is no request"
        connection.data_received(b" 1")
        assert Path(tmp_path, "ledger").read_text() == "round 1\n"
        assert transport.sent == b""
        answer = await answered(transport)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nv7")
    assert not transport.is_closed


@pytest.mark.parametrize(
    "head", [b"GET /work HTTP/1.1\r\nconnection: close\r\n\r\n", b"GET /work HTTP/1.0\r\nHost: a\r\n\r\n"]
)
async def test_who_wants_one_answer_gets_one_and_the_end_of_the_connection(head: bytes) -> None:
    connection, transport = connect(Instance("v1", "well", None))
    connection.data_received(head)
    assert b"\r\nConnection: close\r\n" in await answered(transport)
    assert transport.is_closed


async def test_one_that_leaves_closes_what_is_idle_and_finishes_what_is_not() -> None:
    instance = Instance("v1", "well", None)
    (idle, closed), (busy, open_) = connect(instance), connect(instance)
    busy.data_received(b"GET /work HTTP/1.1\r\n\r\n")
    instance.leave()
    assert (closed.is_closed, open_.is_closed) == (True, False)
    idle.connection_lost(None)
    assert not instance.idle.is_set()
    assert b"\r\nConnection: close\r\n" in await answered(open_)
    busy.connection_lost(None)
    assert instance.idle.is_set()


def test_moods_are_what_health_checks_and_callers_see(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("benchmarks.deploy_service.monotonic", lambda: now)
    well, unready, sickens = (Instance("v1", mood, None) for mood in ("well", "unready", "sickens"))

    def statuses(target: bytes) -> list[int]:
        return [each.respond(b"GET", target, b"")[0] for each in (well, unready, sickens)]

    assert statuses(b"/healthz") == [200, 503, 200]
    now += 2.0
    assert statuses(b"/healthz") == [200, 503, 503]
    assert statuses(b"/work") == [200, 503, 200], "who sickens works as before"
    assert well.respond(b"GET", b"/elsewhere", b"")[0] == 404
    assert WORK[0] <= well.respond(b"GET", b"/work", b"")[1] <= WORK[1]
    assert set(KINDS) == set(MOODS) - {"well"}


def test_the_light_service_waits_for_the_body_and_keeps_what_comes_after_it() -> None:
    request = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
    for end in range(len(request)):
        assert cut(request[:end]) == (b"", request[:end])
    assert cut(request + b"GET") == (b"post / http/1.1\r\ncontent-length: 4", b"GET")
