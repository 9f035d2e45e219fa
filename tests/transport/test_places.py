"""Places in a pool: whoever finds one free needs no time for it, and a lent transport is closed once, when nobody needs it."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.model.instance import Instance
from discoclient.transport.async_pool import AsyncPool, AsyncWire
from discoclient.transport.carrying import Carrier, Terms
from discoclient.transport.home import Home
from discoclient.transport.sync_pool import SyncPool, SyncWire
from discoclient.transport.wire import WireOptions
from tests.support.eventually import eventually, eventually_async
from tests.support.servers import Servers

from .scene import LOOPS, async_to, run_on, sync_to

ONE = httpx.Limits(max_connections=1)
NO_WAIT = httpx.Timeout(5.0, pool=0.0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_free_place_needs_no_time_on_a_loop(loop: str) -> None:
    async def case() -> None:
        async with async_to(server, limits=ONE, timeout=NO_WAIT) as client:
            assert (await client.get("/")).status_code == 200
            async with client.stream("GET", "/"):  # and one that is taken is not waited for
                with pytest.raises(httpx.PoolTimeout):
                    await client.get("/")
            assert (await client.get("/")).status_code == 200

    with Servers() as servers:
        server = servers.start()
        run_on(loop, case)


def test_a_free_place_needs_no_time_in_a_thread() -> None:
    with Servers() as servers:
        server = servers.start()
        with sync_to(server, limits=ONE, timeout=NO_WAIT) as client:
            assert client.get("/").status_code == 200
            with client.stream("GET", "/"), pytest.raises(httpx.PoolTimeout):
                client.get("/")
            assert client.get("/").status_code == 200


class Lent(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Of either kind."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(Instance(service="scene", id="scene-1", host="127.0.0.1", port=1), now=0.0)


@pytest.mark.parametrize("how", ["retired", "closed"])
def test_a_lent_transport_is_not_closed_while_somebody_waits_for_a_place_in_a_thread(
    endpoint: Endpoint, how: str
) -> None:
    lent = Lent()
    wire = SyncWire(WireOptions(engine=lambda instance: lent, limits=ONE))
    pool = wire.pool(endpoint)
    first = pool.take(None)
    seconds: list[Carrier] = []
    closed: list[int] = []

    def wait() -> None:
        seconds.append(pool.take(5.0))
        closed.append(lent.closed)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: pool._room is not None and pool._room._waiting)
    endpoint.retire() if how == "retired" else wire.close()
    pool.give(first)
    thread.join(5.0)
    assert closed == [0]
    pool.give(seconds[0])
    assert lent.closed == 1
    wire.close()
    assert lent.closed == 1


@pytest.mark.parametrize("how", ["retired", "closed"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_lent_transport_is_not_closed_while_somebody_waits_for_a_place_on_a_loop(
    endpoint: Endpoint, loop: str, how: str
) -> None:
    lent = Lent()

    async def case() -> None:
        wire = AsyncWire(WireOptions(engine=lambda instance: lent, limits=ONE))
        pool = wire.pool(asyncio.get_running_loop(), endpoint)
        first = await pool.take(None)
        waiting = [asyncio.create_task(pool.take(5.0)) for _ in range(2)]
        await asyncio.sleep(0)
        endpoint.retire() if how == "retired" else wire.close()
        await eventually_async(lambda: pool._is_closed)
        waiting[1].cancel()
        await pool.give(first)
        second = await waiting[0]
        assert lent.closed == 0
        await pool.give(second)
        assert lent.closed == 1
        assert waiting[1].cancelled()

    run_on(loop, case)
    assert lent.closed == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_lent_transport_is_closed_with_its_loop_though_it_is_in_use(endpoint: Endpoint, loop: str) -> None:
    lent = Lent()

    async def case() -> None:
        wire = AsyncWire(WireOptions(engine=lambda instance: lent))
        await wire.pool(asyncio.get_running_loop(), endpoint).take(None)

    run_on(loop, case)
    assert lent.closed == 1


def test_a_lent_transport_of_which_nobody_took_anything_is_closed_at_once(endpoint: Endpoint) -> None:
    """The negative control; and what was given up while waiting holds nothing."""
    lent = Lent()
    wire = SyncWire(WireOptions(engine=lambda instance: lent, limits=ONE))
    pool = wire.pool(endpoint)
    carrier = pool.take(None)
    with pytest.raises(httpx.PoolTimeout):
        pool.take(0.0)
    pool.give(carrier)
    assert lent.closed == 0
    wire.close()
    assert lent.closed == 1


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_fresh_connection_is_not_one_more_than_there_are_places(is_fresh: bool) -> None:
    """Idle ones count too; and one that is just used again closes nothing."""
    with Servers() as servers:
        server = servers.start()
        here = Endpoint(Instance(service="scene", id="s-1", host="127.0.0.1", port=server.port), now=0.0)
        options = WireOptions(limits=ONE)
        request = httpx.Request("GET", "http://scene/")
        terms = Terms(connect_timeout=5.0, server_name="scene", streamed=())

        def once(pool: SyncPool, *, is_fresh: bool) -> None:
            carrier = pool.take(None, is_fresh=is_fresh)
            carrier.carry(request, request.headers.raw, terms, lambda now: None)
            pool.give(carrier)

        pool = SyncPool(here, options)
        once(pool, is_fresh=False)
        once(pool, is_fresh=is_fresh)
        eventually(lambda: server.connections == 1)
        assert server.accepted == 1 + is_fresh
        pool.close()

        async def case() -> None:
            pool = AsyncPool(here, options, Home(asyncio.get_running_loop()))
            for fresh in (False, is_fresh):
                carrier = await pool.take(None, is_fresh=fresh)
                await carrier.carry(request, request.headers.raw, terms, lambda now: None)
                await pool.give(carrier)
            await eventually_async(lambda: server.connections == 1)
            await pool.close()

        run_on("asyncio", case)
