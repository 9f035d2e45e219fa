"""A client that has gone takes its request with it: cancelled at the instance within a second, and nothing is left."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.eventually import eventually

from .origin import Exchange
from .stage import Stage
from .wire import Client, get

WITHIN = 1.0
LEAVING: dict[str, Callable[[Client], None]] = {
    "closes": Client.close,
    "resets": Client.reset,
    "half-closes": Client.half_close,
}


def in_flight(found: Any) -> Iterator[float]:
    """Every number in *found* whose name speaks of what is in flight."""
    if isinstance(found, dict):
        for key, value in found.items():
            if "flight" in key and isinstance(value, int | float):
                yield value
            else:
                yield from in_flight(value)
    elif isinstance(found, list):
        for each in found:
            yield from in_flight(each)


def assert_nothing_in_flight(stage: Stage) -> None:
    def is_empty() -> bool:
        numbers = list(in_flight(stage.sidecar.services()))
        assert numbers, json.dumps(stage.sidecar.services())
        return not any(numbers)

    eventually(is_empty, timeout=2 * WITHIN, what="nothing is in flight")


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_while_the_instance_thinks(stage: Stage, how: str) -> None:
    held = stage.hold("/thinking")
    client = stage.client()
    try:
        client.send(get("/experiment/thinking"))
        assert held.reached.wait(5.0)
        assert any(in_flight(stage.sidecar.services())), "in flight while it is"
        LEAVING[how](client)
        assert held.gone.wait(WITHIN)
    finally:
        client.close()
    assert_nothing_in_flight(stage)


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_in_the_middle_of_an_answer(stage: Stage, how: str) -> None:
    gone = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                exchange.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            gone.set()
            raise

    stage.origin.on("/endless", answer)
    client = stage.client()
    client.send(get("/experiment/endless")).head()
    client.exactly(100_000)
    LEAVING[how](client)
    assert gone.wait(WITHIN)
    assert_nothing_in_flight(stage)


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_during_a_silence_of_the_answer(stage: Stage, how: str) -> None:
    """As with server-sent events: nobody writes, so nobody would notice by writing."""
    gone = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"
        )
        if exchange.wait_gone(5.0):
            gone.set()

    stage.origin.on("/events", answer)
    client = stage.client()
    client.send(get("/experiment/events")).until(b":\n\n")
    LEAVING[how](client)
    assert gone.wait(WITHIN)
    assert_nothing_in_flight(stage)


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_in_the_middle_of_its_own_body(stage: Stage, how: str, framing: bytes) -> None:
    reached, gone = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.take(1)
        reached.set()
        if exchange.wait_gone(5.0):
            gone.set()

    stage.origin.on("/upload", answer)
    client = stage.client()
    try:
        client.send(
            b"POST /experiment/upload HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n4\r\nabcd\r\n"
        )
        assert reached.wait(5.0)
        LEAVING[how](client)
        assert gone.wait(WITHIN)
    finally:
        client.close()
    assert_nothing_in_flight(stage)


def test_a_client_that_resets_while_it_is_held_back(stage: Stage) -> None:
    """Nothing is read from it meanwhile. (An orderly end would lie behind what nobody reads yet.)"""
    reached, ended, go_on = threading.Event(), threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        reached.set()
        go_on.wait(5.0)
        if exchange.wait_gone(5.0):
            ended.set()

    stage.origin.on("/held-back", answer)
    client = stage.client()
    client.send(
        b"POST /experiment/held-back HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\n\r\nx"
    )
    assert reached.wait(5.0)
    client.socket.setblocking(False)
    while select.select([], [client.socket], [], 0.3)[1]:
        client.socket.send(b"x" * 1_000_000)
    client.reset()
    assert_nothing_in_flight(stage)
    go_on.set()
    assert ended.wait(WITHIN), "the instance is told, as soon as it reads"


def test_many_that_leave_at_once_leave_nothing_behind(stage: Stage) -> None:
    held = stage.hold("/crowd")
    stage.ask(get("/experiment/x"))
    before = stage.sidecar.open_files()
    clients = [stage.client() for _ in range(100)]
    for client in clients:
        client.send(get("/experiment/crowd"))
    eventually(lambda: len(stage.origin.find("/crowd")) == 100, what="all have reached the instance")
    for client in clients:
        client.reset()
    assert_nothing_in_flight(stage)
    eventually(lambda: stage.sidecar.open_files() <= before + 2, what="no descriptor is left open")
    held.release.set()
    assert stage.ask(get("/experiment/x")).status == 200


def test_control_a_client_that_stays_gets_its_answer(stage: Stage) -> None:
    held = stage.hold("/staying")
    with stage.client() as client:
        client.send(get("/experiment/staying"))
        assert held.reached.wait(5.0)
        assert not held.gone.wait(0.2)
        held.release.set()
        assert client.reply().body == b"late"
