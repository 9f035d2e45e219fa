"""Idle connections that the server closed, or said something on, before they are used again."""

from __future__ import annotations

import pytest

from .engines import OURS, SIDES, Side, Way
from .observing import Ask, ask, is_right
from .origin import origin
from .plays import Act, Play, early, response, whole

BODY = {"GET": None, "POST": lambda is_sync: b"body"}

ENDS: dict[str, Play] = {
    "closed": whole(response(b"fine"), Act.SHUT),
    "reset": whole(response(b"fine"), Act.RESET),
    "closed at once": whole(response(b"fine"), Act.CLOSE),
    "a 408, and closed": whole(
        response(b"fine"), response(b"", b"Connection: close", status=b"408 Late"), Act.SHUT
    ),
}


@pytest.mark.parametrize("method", BODY)
@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_an_idle_connection_that_the_server_closed_is_noticed(
    way: Way, side: Side, name: str, method: str
) -> None:
    """Whatever the method: what is noticed before anything is sent costs nobody anything."""

    async def case() -> None:
        async with side.client(way, server.port) as client:
            for _ in range(3):
                assert (await ask(client, Ask())).body == b"fine"
                await way.until(lambda: server.is_settled)
                assert is_right(await ask(client, Ask(method, "/after", content=BODY[method])))

    with origin({"case": ENDS[name]}) as server:
        way.run(case)


@pytest.mark.parametrize("method", BODY)
@pytest.mark.parametrize("end", [Act.CLOSE, Act.RESET])
def test_a_connection_that_is_closed_on_the_next_request_is_an_error_and_no_answer(
    way: Way, method: str, end: Act
) -> None:
    """The race that can't be won: the server closes as the request arrives. A GET may be sent once more, a POST never."""

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            assert is_right(await ask(client, Ask(path="/after")))
            before = len(server.order)
            answer = await ask(client, Ask(method, content=BODY[method]))
            assert answer.error in ("RemoteProtocolError", "ReadError", "WriteError"), answer
            assert len(server.order) - before <= (1 if method == "POST" else 2)
            assert is_right(await ask(client, Ask(path="/after")))

    with origin({"case": early(end)}) as server:
        way.run(case)


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_many_idle_connections_that_were_closed_are_all_noticed(way: Way, side: Side) -> None:
    async def case() -> None:
        async with side.client(way, server.port) as client:
            await way.together(*[lambda: ask(client, Ask())] * 10)
            await way.until(lambda: server.is_settled)
            answers = await way.together(*[lambda: ask(client, Ask("POST", "/after"))] * 10)
            assert all(is_right(answer) for answer in answers), answers

    with origin({"case": whole(response(b"fine"), Act.SHUT)}) as server:
        way.run(case)


def test_a_connection_that_was_half_closed_by_the_server_is_closed_by_us(way: Way) -> None:
    """Otherwise it lies about in CLOSE_WAIT until somebody asks for it."""

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            assert (await ask(client, Ask())).body == b"fine"
            await way.until(lambda: server.is_settled)
            assert is_right(await ask(client, Ask(path="/after")))
            await way.until(lambda: server.open <= 1, what="the half closed one is gone")

    with origin({"case": whole(response(b"fine"), Act.SHUT)}) as server:
        way.run(case)
