"""A response that is closed while somebody reads it: whoever reads learns that this is not its end."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from tests.support.eventually import eventually_async
from tests.support.servers import Exchange, Servers, stream

from .scene import LOOPS, async_to, run_on, sync_to

PARTS = [b"part " * 2000] * 20


async def half(exchange: Exchange) -> None:
    await exchange.body()
    await exchange.begin(200, {"content-length": "10"})
    await exchange.write(b"half")
    await exchange.wait_for_end()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_waits_for_more_is_told_when_another_closes_the_response(loop: str) -> None:
    async def case() -> None:
        async with async_to(server, timeout=None) as client:
            response = await client.send(client.build_request("GET", "/"), stream=True)
            came: list[bytes] = []

            async def read() -> None:
                async for part in response.aiter_raw():
                    came.append(part)  # noqa: PERF401 - as they come

            reading = asyncio.create_task(read())
            await eventually_async(lambda: came)
            await asyncio.sleep(0)  # it waits for the rest now
            await response.aclose()
            async with asyncio.timeout(5.0):
                with pytest.raises(httpx.ReadError, match="closed"):
                    await reading
            assert came == [b"half"]

    with Servers() as servers:
        server = servers.start(half)
        run_on(loop, case)


@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_goes_on_after_closing_gets_no_silent_end_on_a_loop(loop: str) -> None:
    async def case() -> None:
        async with async_to(server) as client, client.stream("GET", "/") as response:
            parts = response.aiter_raw()
            await anext(parts)
            await response.aclose()
            with pytest.raises(httpx.ReadError, match="closed"):
                async for _ in parts:
                    pass

    with Servers() as servers:
        server = servers.start(stream(PARTS, pause=0.01))
        run_on(loop, case)


def test_whoever_goes_on_after_closing_gets_no_silent_end_in_a_thread() -> None:
    with Servers() as servers:
        server = servers.start(stream(PARTS, pause=0.01))
        with sync_to(server) as client, client.stream("GET", "/") as response:
            parts = response.iter_raw()
            next(parts)
            response.close()
            with pytest.raises(httpx.ReadError, match="closed"):
                list(parts)


def test_closing_after_the_last_byte_is_an_end_like_any_other() -> None:
    """The negative control."""
    with Servers() as servers:
        server = servers.start()
        with sync_to(server) as client, client.stream("GET", "/") as response:
            parts = response.iter_raw()
            assert next(parts) == str(server.port).encode()
            response.close()
            assert list(parts) == []
            assert client.get("/").status_code == 200
        assert server.accepted == 1


def test_a_reader_that_was_closed_never_sees_the_next_answer() -> None:
    """The connection goes on after a complete response: what comes over it then is not the old reader's."""
    with Servers() as servers:
        server = servers.start()
        with sync_to(server) as client:
            with client.stream("GET", "/") as response:
                parts = response.iter_raw()
                next(parts)
                response.close()
            others: list[bytes] = []
            thread = threading.Thread(target=lambda: others.append(client.get("/").content))
            thread.start()
            thread.join()
            assert list(parts) == []
            assert others == [str(server.port).encode()]
