"""A body that only the connection's end can end: a reset is no such end, on whichever side it is noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from tests.support.servers import Behaviour, Exchange, Servers

from .scene import LOOPS, async_pieces, async_to, pieces, run_on, sync_to

BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


def say(end: Callable[[Exchange], None], *, is_early: bool = False) -> Behaviour:
    """A body without a length, and *end*; with *is_early* before the request's was read."""

    async def behave(exchange: Exchange) -> None:
        if not is_early:
            await exchange.body()
        await exchange.begin(200, {})
        await exchange.write(b"some of it")
        end(exchange)
        if is_early:
            await exchange.wait_for_end()

    return behave


def bodies(name: str) -> bytes | Iterator[bytes]:
    return pieces(80) if name == "pieces" else b"p" * 8_000_000


def async_bodies(name: str) -> bytes | AsyncIterator[bytes]:
    return async_pieces(80) if name == "pieces" else b"p" * 8_000_000


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reset_is_no_end_of_a_body_on_a_loop(loop: str) -> None:
    async def case() -> None:
        async with async_to(server) as client:
            for _ in range(3):
                with pytest.raises(BROKEN):
                    await client.get("/")

    with Servers() as servers:
        server = servers.start(say(Exchange.reset))
        run_on(loop, case)


def test_a_reset_is_no_end_of_a_body_in_a_thread() -> None:
    with Servers() as servers:
        server = servers.start(say(Exchange.reset))
        with sync_to(server) as client:
            for _ in range(3):
                with pytest.raises(BROKEN):
                    client.get("/")


@pytest.mark.parametrize("content", ["bytes", "pieces"])
@pytest.mark.parametrize("loop", LOOPS)
def test_nor_is_one_that_shows_while_sending_on_a_loop(loop: str, content: str) -> None:
    async def case() -> None:
        async with async_to(server) as client:
            with pytest.raises(BROKEN):
                await client.post("/", content=async_bodies(content))

    with Servers() as servers:
        server = servers.start(say(Exchange.reset, is_early=True))
        run_on(loop, case)


@pytest.mark.parametrize("content", ["bytes", "pieces"])
def test_nor_is_one_that_shows_while_sending_in_a_thread(content: str) -> None:
    with Servers() as servers:
        server = servers.start(say(Exchange.reset, is_early=True))
        with sync_to(server) as client, pytest.raises(BROKEN):
            client.post("/", content=bodies(content))


@pytest.mark.parametrize("is_early", [True, False])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_orderly_end_is_one(loop: str, is_early: bool) -> None:
    """The negative control: early or not, on a loop and in a thread."""

    async def case() -> None:
        async with async_to(server) as client:
            content = async_bodies("pieces") if is_early else b""
            assert (await client.post("/", content=content)).content == b"some of it"

    with Servers() as servers:
        server = servers.start(say(Exchange.say_no_more if is_early else Exchange.close, is_early=is_early))
        run_on(loop, case)
        with sync_to(server) as client:
            assert client.post("/", content=bodies("pieces") if is_early else b"").content == b"some of it"
