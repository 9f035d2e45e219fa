"""A response that is read in part and forgotten gives back its place at once, and not when the collector comes by."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import httpx
import pytest

from tests.support.servers import Exchange, Servers

from .scene import LOOPS, async_to, run_on, sync_to

OPTIONS = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(5.0, pool=1.0)}


async def half(exchange: Exchange) -> None:
    await exchange.body()
    if exchange.seen.target != "/half":
        await exchange.reply(200, b"whole")
        return
    await exchange.begin(200, {"content-length": "10"})
    await exchange.write(b"half")
    await exchange.wait_for_end()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("engine", ["native", "httpcore"])
@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_so_on_a_loop(loop: str, engine: str) -> None:
    async def case() -> None:
        async with async_to(server, engine=engine, **OPTIONS) as client:
            response = await client.send(client.build_request("GET", "/half"), stream=True)
            parts = response.aiter_raw()
            assert await anext(parts) == b"half"
            with pytest.raises(httpx.PoolTimeout):  # the negative control
                await client.get("/", timeout=httpx.Timeout(5.0, pool=0.01))
            del response, parts
            assert (await client.get("/")).content == b"whole"
            await asyncio.sleep(0)

    with Servers() as servers:
        server = servers.start(half)
        run_on(loop, case)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("engine", ["native", "httpcore"])
def test_it_is_so_in_a_thread(engine: str) -> None:
    with Servers() as servers:
        server = servers.start(half)
        with sync_to(server, engine=engine, **OPTIONS) as client:
            response = client.send(client.build_request("GET", "/half"), stream=True)
            parts = response.iter_raw()
            assert next(parts) == b"half"
            with pytest.raises(httpx.PoolTimeout):  # the negative control
                client.get("/", timeout=httpx.Timeout(5.0, pool=0.01))
            del response, parts
            assert client.get("/").content == b"whole"
