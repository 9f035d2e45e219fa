"""Limits: on sizes, on times, on connections. Whoever goes over them is told so, and costs nobody else anything."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.eventually import eventually

from .stage import Stage
from .wire import Client, ask, get

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Short times, and few connections."""
    settings = {"header_timeout": 0.5, "idle_timeout": 0.6, "read_timeout": 5.0, "max_connections": 40}
    with Stage(settings=settings) as stage:
        yield stage


@pytest.mark.parametrize(
    ("name", "raw", "statuses"),
    [
        ("a target of 64 KiB", get("/experiment/" + "a" * 65_536), (414,)),
        ("a query of 64 KiB", get("/experiment/x?" + "a" * 65_536), (414,)),
        (
            "a method of 64 KiB",
            b"G" * 65_536 + b" /experiment/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
            (400, 414, 501),
        ),
        ("a value of 64 KiB", get("/experiment/x", "X: " + "a" * 65_536), (431,)),
        ("a name of 64 KiB", get("/experiment/x", "X" * 65_536 + ": a"), (431,)),
        ("fields of 64 KiB", get("/experiment/x", *(f"X-{n}: {'a' * 900}" for n in range(70))), (431,)),
        ("a thousand fields", get("/experiment/x", *(f"X-{n}: a" for n in range(1000))), (431,)),
        ("101 fields and more", get("/experiment/x", *(f"X{n}:" for n in range(110))), (431,)),
        ("a Host of 64 KiB", get("/experiment/x", host="a" * 65_536), (400, 421, 431)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_too_large_is_refused(stage: Stage, name: str, raw: bytes, statuses: tuple[int, ...]) -> None:
    with stage.nothing_forwarded(), stage.client() as client:
        reply = client.send(raw).reply()
        assert reply.status in statuses, name
        assert reply.says_close
        assert client.is_closed()


def test_control_what_is_just_within_the_limits_gets_through(stage: Stage) -> None:
    assert stage.ask(get("/experiment/" + "a" * 7_900)).status == 200
    assert stage.ask(get("/experiment/x", "X: " + "a" * 16_000)).status == 200
    assert stage.ask(get("/experiment/x", *(f"X-{n}: a" for n in range(95)))).status == 200


@pytest.mark.parametrize(
    "start", [b"GET /experiment/", b"GET /experiment/x HTTP/1.1\r\nHost: localhost\r\nX: "]
)
def test_a_line_without_an_end_is_cut_off_and_not_collected(stage: Stage, start: bytes) -> None:
    before = stage.sidecar.memory()
    for _ in range(5):
        with stage.client() as client:
            client.send(start)
            for _ in range(4):
                client.send(b"a" * MEGABYTE)
            assert client.rest()[9:12] in (b"414", b"431", b"")
    assert stage.sidecar.memory() - before < 8 * MEGABYTE


def test_many_large_heads_leave_the_memory_flat(stage: Stage) -> None:
    raw = get("/experiment/x", "X: " + "a" * 65_536)
    for _ in range(20):
        stage.ask(raw)
    before = stage.sidecar.memory()
    for _ in range(200):
        assert stage.ask(raw).status == 431
    assert stage.sidecar.memory() - before < 4 * MEGABYTE


@pytest.mark.parametrize("start", [b"", b"G", b"GET /experiment/x HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_is_waited_for_no_longer_than_its_time(stage: Stage, start: bytes) -> None:
    began = time.monotonic()
    with stage.nothing_forwarded(), stage.client() as client:
        client.send(start)
        assert client.rest()[9:12] in (b"408", b"")
    assert 0.3 < time.monotonic() - began < 2.5


def test_a_head_that_drips_is_waited_for_no_longer(stage: Stage) -> None:
    """Slowloris: each byte comes in time, the head never does."""
    began = time.monotonic()
    with stage.nothing_forwarded(), stage.client() as client:
        client.send(b"GET /experiment/x HTTP/1.1\r\nHost: localhost\r\n")
        while not client.has_data(timeout=0.1):
            client.send(b"X")
            assert time.monotonic() - began < 5.0, "it goes on for ever"
        assert client.rest()[9:12] in (b"408", b"")
    assert time.monotonic() - began < 2.5


def test_an_idle_connection_is_closed_after_its_time_without_a_word(stage: Stage) -> None:
    with stage.client() as client:
        assert client.send(get("/experiment/x")).reply().status == 200
        began = time.monotonic()
        assert client.is_closed(timeout=4.0)
        assert 0.3 < time.monotonic() - began < 2.5


def test_a_slow_answer_is_not_an_idle_connection(stage: Stage) -> None:
    held = stage.hold("/takes-its-time")
    with stage.client() as client:
        client.send(get("/experiment/takes-its-time"))
        assert held.reached.wait(5.0)
        assert not client.has_data(timeout=1.3)
        held.release.set()
        assert client.reply().body == b"late"


def test_a_body_that_drips_is_no_slow_head(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"POST /experiment/drips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            assert not client.has_data(timeout=0.1)
            client.send(b"x")
        assert client.reply().status == 200
    assert stage.origin.only("/drips").body == b"xxxxxxxx"


def test_more_connections_than_allowed_are_turned_away_and_the_others_go_on(stage: Stage) -> None:
    held = stage.hold("/occupied")
    clients = [stage.client() for _ in range(40)]
    try:
        for client in clients:
            client.send(get("/experiment/occupied"))
        eventually(lambda: len(stage.origin.find("/occupied")) == 40, what="they are all at the instance")
        refused = 0
        for _ in range(10):
            try:
                refused += ask(stage.sidecar.address, get("/experiment/x"), timeout=1.0).status == 503
            except OSError:
                refused += 1
        assert refused >= 8
        held.release.set()
        assert [client.reply().status for client in clients] == [200] * 40
    finally:
        held.release.set()
        for client in clients:
            client.close()
    eventually(lambda: stage.ask(get("/experiment/x")).status == 200, what="there is room again")


def test_the_admin_address_answers_while_the_others_are_full(stage: Stage) -> None:
    clients = [Client(stage.sidecar.address) for _ in range(60)]
    try:
        assert stage.sidecar.page("/healthz").status == 200
    finally:
        for client in clients:
            client.close()
    eventually(lambda: stage.ask(get("/experiment/x")).status == 200, what="there is room again")
