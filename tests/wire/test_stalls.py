"""Responses that stop at every byte offset without an end: the read timeout ends the wait, and nothing is left behind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import httpx
import pytest

from .engines import OURS, SIDES, THEIRS, Side, Way
from .observing import Answer, Ask, ask, is_right
from .origin import Origin, origin
from .plays import Act, Play, response, whole

RESPONSES = {
    "a length": response(b"twelve bytes", b"X: y"),
    "chunks": response(b"", b"Transfer-Encoding: chunked", length=False) + b"4\r\nabcd\r\n0\r\nX: y\r\n\r\n",
    "until the end": response(b"as long as it lasts", length=False),
}
SHORT = httpx.Timeout(connect=5.0, read=0.05, write=5.0, pool=30.0)


@pytest.mark.parametrize("name", RESPONSES)
def test_a_stall_at_every_offset_is_a_read_timeout(way: Way, name: str) -> None:
    raw = RESPONSES[name]
    plays = {f"p{place}": whole(*([raw[:place]] if place else []), Act.STALL) for place in range(len(raw))}

    async def seen(side: Side) -> list[Answer]:
        async with side.client(way, server.port, timeout=SHORT) as client:
            asks = [Ask(path=f"/{place}", is_whole=number % 2 == 0) for number, place in enumerate(plays)]
            answers = await way.together(*[partial(ask, client, what) for what in asks])
            assert is_right(await ask(client, Ask(path="/after", more={"timeout": 5.0})))
            return answers

    with origin(plays) as server:
        ours = way.run(lambda: seen(OURS))
        _all_closed(way, server)
        theirs = way.run(lambda: seen(THEIRS))
    for place, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        assert left.error == "ReadTimeout", f"{name}, stalled at {place}: {left}"
        assert right.error == "ReadTimeout", f"{name}, stalled at {place}: {right}"
        if left.status and right.status:  # on a busy machine the time may be up before the head is read
            assert left == right, f"{name}, stalled at {place}: ours {left}, httpx {right}"


def _all_closed(way: Way, server: Origin) -> None:
    async def case() -> None:
        await way.until(lambda: server.open <= 1, what="what timed out is closed")

    way.run(case)


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_a_body_that_keeps_coming_slowly_is_no_timeout(way: Way, side: Side) -> None:
    """The negative control: the limit is for one wait, not for all of them together."""
    raw = response(b"0123456789" * 4, b"X: y")
    paused = whole(*(raw[place : place + 1] for place in range(len(raw))))

    async def case() -> Answer:
        async with side.client(way, server.port, timeout=httpx.Timeout(5.0, read=1.0)) as client:
            return await ask(client, Ask())

    with origin({"case": paused}) as server:
        answer = way.run(case)
    assert (answer.error, answer.body) == ("", b"0123456789" * 4)


def test_an_interim_response_and_then_nothing(way: Way) -> None:
    _same(way, whole(b"HTTP/1.1 103 Early Hints\r\n\r\n", Act.STALL))


def test_a_connection_that_timed_out_is_not_used_again(way: Way) -> None:
    _same(way, whole(Act.STALL))


def _same(way: Way, play: Play) -> None:
    async def seen(side: Side) -> list[Answer]:
        async with side.client(way, server.port, timeout=SHORT) as client:
            first = await ask(client, Ask())
            after = await ask(client, Ask(path="/after", more={"timeout": 5.0}))
            assert is_right(after), after
            return [first, replace(after, headers=())]

    with origin({"case": play}) as server:
        ours, theirs = way.run(lambda: seen(OURS)), way.run(lambda: seen(THEIRS))
    assert ours == theirs
    assert ours[0].error == "ReadTimeout"
    assert server.order[0] != server.order[1]
