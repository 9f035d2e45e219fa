"""An answer that is here before the request's body is sent: it reaches the caller, whatever the service does next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.support.servers import Behaviour, Exchange, Servers

from .scene import LOOPS, async_pieces, async_to, run_on

BODIES: dict[str, Callable[[], bytes | AsyncIterator[bytes]]] = {
    "bytes": lambda: b"p" * 8_000_000,
    "pieces": lambda: async_pieces(80),
}
LONG = 600_000


def say(then: Callable[[Exchange], None], *, status: int = 200) -> Behaviour:
    """A whole answer before a byte of the body was read, and *then*."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(status, {"content-length": "3"})
        await exchange.write(b"yes")
        then(exchange)
        await asyncio.Event().wait()

    return behave


async def say_much_and_read(exchange: Exchange) -> None:
    """A long answer, while the body is read."""
    await exchange.begin(200, {"content-length": str(LONG)})
    await asyncio.gather(exchange.write(b"x" * LONG), exchange.body())


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=BODIES)
def body(request: pytest.FixtureRequest) -> Callable[[], bytes | AsyncIterator[bytes]]:
    return BODIES[request.param]


ENDS: dict[str, Callable[[Exchange], None]] = {
    "closes": Exchange.close,
    "resets": Exchange.reset,
    "says that no more comes": Exchange.say_no_more,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_service_that_answers_and_ends_is_not_waited_for(
    loop: str, body: Callable[[], bytes | AsyncIterator[bytes]], end: str
) -> None:
    """The answer, or with a reset an error of the connection: but at once, and not when a timeout has passed."""

    async def case() -> None:
        async with async_to(server, timeout=None) as client:
            async with asyncio.timeout(5.0):
                try:
                    response = await client.post("/", content=body())
                except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    assert end != "says that no more comes"
                else:
                    assert (response.status_code, response.content) == (200, b"yes")

    with Servers() as servers:
        server = servers.start(say(ENDS[end]))
        for _ in range(3):
            run_on(loop, case)


def test_a_service_that_answers_and_takes_no_more_runs_into_the_write_timeout(loop: str) -> None:
    """The negative control: nothing says that the body is not wanted."""

    async def case() -> None:
        async with async_to(server, timeout=httpx.Timeout(5.0, write=0.2)) as client:
            with pytest.raises(httpx.WriteTimeout):
                await client.post("/", content=b"p" * 30_000_000)

    with Servers() as servers:
        server = servers.start(say(lambda exchange: None), receive_buffer=4096)
        run_on(loop, case)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_long_answer_that_began_while_sending_is_read_to_its_end(
    loop: str, body: Callable[[], bytes | AsyncIterator[bytes]], is_whole: bool
) -> None:
    """It is held while nobody reads it; and not any more when somebody does."""

    async def case() -> None:
        async with async_to(server) as client:
            if is_whole:
                response = await client.post("/", content=body())
                assert len(response.content) == LONG
                assert response.elapsed.total_seconds() < 5.0
                return
            async with client.stream("POST", "/", content=body()) as response:
                assert len(await response.aread()) == LONG

    with Servers() as servers:
        server = servers.start(say_much_and_read)
        run_on(loop, case)
