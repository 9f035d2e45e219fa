"""How many connections there are, who gets the next one, and how long one waits for it."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from .engines import OURS, SIDES, Side, Way
from .observing import Ask, ask, is_right
from .origin import origin
from .plays import Act, ok, response, whole


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_requests_one_after_the_other_share_a_connection(way: Way, side: Side) -> None:
    async def case() -> None:
        async with side.client(way, server.port) as client:
            for number in range(30):
                answer = await ask(client, Ask("POST" if number % 2 else "GET", is_whole=number % 3 == 0))
                assert answer.body == b"fine"

    with origin({"case": ok()}) as server:
        way.run(case)
        assert server.order == [1] * 30


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_never_more_connections_than_allowed_and_all_are_served(way: Way, limit: int) -> None:
    """Not of httpx, whose own pool now and then forgets one of many threads."""

    async def case() -> None:
        limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit)
        async with OURS.client(way, server.port, limits=limits, timeout=30.0) as client:
            answers = await way.together(*[partial(ask, client, Ask())] * 30)
            assert {answer.body for answer in answers} == {b"fine"}

    with origin({"case": ok()}) as server:
        way.run(case)
        assert 1 <= len(server.connections) <= limit


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_without_a_limit_there_are_more(way: Way, side: Side) -> None:
    """The negative control."""

    async def case() -> None:
        async with side.client(way, server.port, timeout=0.3) as client:
            answers = await way.together(*[partial(ask, client, Ask())] * 5)
            assert {answer.error for answer in answers} == {"ReadTimeout"}

    with origin({"case": whole(Act.STALL)}) as server:
        way.run(case)
        assert len(server.connections) == 5


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_waiting_for_a_connection_is_a_pool_timeout_and_frees_what_it_waited_for(
    way: Way, side: Side
) -> None:
    limits = httpx.Limits(max_connections=1)
    timeout = httpx.Timeout(20.0, pool=0.05)

    async def case() -> None:
        async with side.client(way, server.port, limits=limits, timeout=timeout) as client:
            held = await client.open("GET", "/case")
            for _ in range(3):
                assert (await ask(client, Ask(path="/after"))).error == "PoolTimeout"
            await client.read(held)
            await client.close_response(held)
            assert is_right(await ask(client, Ask(path="/after")))

    with origin({"case": whole(response(b"x" * 3_000_000))}) as server:
        way.run(case)
        assert len(server.connections) == 1


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_a_connection_that_is_lost_makes_room_for_another(way: Way, side: Side) -> None:
    limits = httpx.Limits(max_connections=1)

    async def case() -> None:
        async with side.client(way, server.port, limits=limits, timeout=5.0) as client:
            for _ in range(5):
                assert (await ask(client, Ask())).error
                assert is_right(await ask(client, Ask(path="/after")))

    with origin({"case": whole(b"HTTP/1.1 200 OK\r\nContent-Le", Act.SHUT)}) as server:
        way.run(case)


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_no_idle_connections_if_none_are_allowed(way: Way, side: Side) -> None:
    limits = httpx.Limits(max_connections=10, max_keepalive_connections=0)

    async def case() -> None:
        async with side.client(way, server.port, limits=limits) as client:
            for _ in range(3):
                assert is_right(await ask(client, Ask(path="/after")))
            await way.until(lambda: server.open == 0, what="nothing is kept")

    with origin() as server:
        way.run(case)
        assert server.order == [1, 2, 3]


@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_an_idle_connection_is_closed_when_its_time_is_over(way: Way, side: Side) -> None:
    limits = httpx.Limits(keepalive_expiry=0.05)

    async def case() -> None:
        async with side.client(way, server.port, limits=limits) as client:
            assert is_right(await ask(client, Ask(path="/after")))
            await way.pause(0.12)
            assert is_right(await ask(client, Ask(path="/after")))

    with origin() as server:
        way.run(case)
        assert server.order == [1, 2]


def test_the_waiting_are_served_in_turn(way: Way) -> None:
    """Nobody starves: with one connection, twenty that wait are all served before anybody's third time."""
    if way.is_sync:
        pytest.skip("threads come in the order that the machine likes")
    served: list[int] = []

    async def case() -> None:
        async with OURS.client(
            way, server.port, limits=httpx.Limits(max_connections=1), timeout=30.0
        ) as client:

            async def several(number: int) -> None:
                for _ in range(3):
                    await ask(client, Ask())
                    served.append(number)

            await way.together(*[partial(several, number) for number in range(20)])

    with origin({"case": ok()}) as server:
        way.run(case)
    first_third_time = min(place for place, number in enumerate(served) if served[:place].count(number) == 2)
    assert set(served[:first_third_time]) == set(range(20)), served


def test_a_closed_client_leaves_no_connection(way: Way) -> None:
    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            await way.together(*[partial(ask, client, Ask())] * 5)
        await way.until(lambda: server.open == 0, what="all are closed with the last client of the service")

    with origin({"case": ok()}) as server:
        way.run(case)
