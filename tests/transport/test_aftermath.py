"""What one request leaves behind for the next one on its connection: nothing."""

from __future__ import annotations

import anyio
import httpx
import pytest

from discoclient import RetryPolicy
from tests.client.fleet import Fleet
from tests.client.shells import SHELLS, Shell, in_every_shell
from tests.support.servers import Behaviour, Exchange, answer, break_off, in_turn, never
from tests.transport.engines import engine_for, everywhere, ways

AUTO = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
"""Each shell over the engine that it has by itself."""

EVERYWHERE_ASYNC = pytest.mark.parametrize(
    ("shell", "engine"),
    [(Shell("asyncio"), engine) for engine in ("native", "httpcore", "lent")] + [(Shell("trio"), "httpcore")],
    ids=["asyncio-native", "asyncio-httpcore", "asyncio-lent", "trio-httpcore"],
)


SHORT = 0.3
"""Seconds in which even a busy machine answers at once."""


def slow_second() -> Behaviour:
    """The second answer takes longer than the first might have."""
    return in_turn(answer(b"one"), answer(b"two", delay=SHORT + 0.05))


@AUTO
@in_every_shell
async def test_the_timeout_of_one_request_does_not_end_the_next(shell: Shell, fleet: Fleet) -> None:
    """The timer of the first one is still there when the second one waits."""
    server = fleet.add(slow_second(), http_keepalive=600)
    async with shell.client() as client:
        assert (await client.post(timeout=SHORT)).content == b"one"
        assert (await client.post(timeout=10.0)).content == b"two"
        assert server.accepted == 1
        with pytest.raises(httpx.ReadTimeout):  # the negative control
            await client.post(timeout=SHORT)


@AUTO
@in_every_shell
async def test_the_deadline_of_one_request_does_not_end_the_next(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(slow_second(), http_keepalive=600)
    async with shell.client() as client:
        await client.wait_ready()
        assert (await client.post(extensions={"disco": {"deadline": SHORT}})).content == b"one"
        assert (await client.post()).content == b"two"
    assert server.accepted == 1


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def talkative(excess: bytes) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine" + excess)

    return behave


@pytest.mark.parametrize("excess", [b"!", POISON])
@ways
@in_every_shell
async def test_what_came_too_much_answers_nobody(shell: Shell, fleet: Fleet, excess: bytes) -> None:
    server = fleet.add(talkative(excess), http_keepalive=600)
    async with shell.client() as client:
        for _ in range(3):
            assert (await client.post()).content == b"fine"
    assert server.accepted == 3, "each on a connection of its own"


@in_every_shell
async def test_over_httpcore_it_does(shell: Shell, fleet: Fleet) -> None:
    """The negative control, and a reason for an engine of our own: httpx takes it for the next answer (httpcore 1.0)."""
    fleet.add(talkative(POISON), http_keepalive=600)
    async with shell.client(engine="httpcore") as client:
        assert [(await client.post()).content for _ in range(2)] == [b"fine", b"poison"]


@everywhere
@in_every_shell
async def test_head_and_get_of_the_same_thing_may_take_turns(shell: Shell, engine: str, fleet: Fleet) -> None:
    """Their heads are the same, and their bodies are not."""
    server = fleet.add(answer(b"body"), http_keepalive=600)
    async with shell.client(engine=engine_for(shell, engine), timeout=2.0) as client:
        for method in ("GET", "HEAD", "GET", "HEAD", "HEAD", "GET"):
            response = await client.request(method)
            assert response.content == (b"" if method == "HEAD" else b"body")
            assert response.headers["content-length"] == "4"
    assert server.accepted == 1


@everywhere
@in_every_shell
async def test_a_body_that_is_cut_short_is_never_taken_for_whole(
    shell: Shell, engine: str, fleet: Fleet
) -> None:
    server = fleet.add(in_turn(break_off(b"half"), answer(b"whole")))
    async with shell.client(engine=engine_for(shell, engine), retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
        assert (await client.get()).content == b"whole"
    assert server.accepted == 2


@EVERYWHERE_ASYNC
@in_every_shell
async def test_a_request_that_is_cancelled_leaves_its_place_to_the_next(
    shell: Shell, engine: str, fleet: Fleet
) -> None:
    server = fleet.add(never())
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5.0, pool=1.0)
    async with shell.client(engine=engine_for(shell, engine), limits=limits, timeout=timeout) as client:
        for number in range(1, 4):
            async with anyio.create_task_group() as group:
                group.start_soon(client.get)
                await shell.eventually(lambda number=number: server.requests == number, what="it waits")  # type: ignore[misc]
                group.cancel_scope.cancel()
        server.behaviour = answer(b"fine")
        assert (await client.get()).content == b"fine"
    assert fleet.in_flight() == 0
