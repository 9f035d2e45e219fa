"""Calls that are cancelled, at any moment: nothing is lost, and everything goes on."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import warnings
from collections.abc import Iterator

import httpx
import pytest
import trio

from discoclient import AsyncDiscoClient, RetryPolicy
from tests.client.clocks import IdleClock
from tests.client.fleet import Fleet
from tests.support.eventually import eventually_async
from tests.support.servers import Behaviour, Exchange, answer, close_unanswered, never, refused_port, stream

CONCURRENT = 50


def anything(rng: random.Random) -> Behaviour:
    """Answer at once, late, in parts, or not at all."""
    kinds = [
        answer(b"ok"),
        answer(b"x" * 100_000),
        answer(b"ok", delay=0.003),
        stream([b"a", b"b"], pause=0.002),
    ]
    kinds += [close_unanswered()]

    async def behave(exchange: Exchange) -> None:
        await rng.choice(kinds)(exchange)

    return behave


@pytest.fixture
def shaky(fleet: Fleet) -> Iterator[Fleet]:
    """Instances that answer as they please, and one that can't be reached."""
    rng = random.Random(1)
    for _ in range(3):
        fleet.add(anything(rng), http_keepalive=600)
    with refused_port() as port:
        fleet.register(port=port)
        yield fleet


async def call(client: httpx.AsyncClient, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            await client.post("/", content=b"x" * rng.choice([0, 10, 100_000]))
        case 1:
            async with client.stream("GET", "/") as response:
                async for _ in response.aiter_raw():
                    if rng.random() < 0.3:
                        break
        case _:
            await client.get("/")


async def check(client: httpx.AsyncClient, fleet: Fleet, most: int) -> None:
    """Nothing is in flight, no connection was lost track of, and the next requests find all slots free."""
    await eventually_async(lambda: fleet.in_flight() == 0, what="nothing is in flight")
    servers = list(fleet.servers._servers)
    for server in servers:
        server.behaviour = answer(b"ok")
    await eventually_async(
        lambda: all(server.connections <= most for server in servers),
        timeout=20.0,
        what="no connection is open that no pool knows",
    )
    done = await asyncio.gather(*[client.get("/", timeout=20) for _ in range(most)]) if _is_asyncio() else []
    assert all(response.text == "ok" for response in done)
    for _ in range(10):
        assert (await client.get("/", timeout=20)).text == "ok"


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("most", [None, 8], ids=["without limits", "with limits"])
def test_ten_thousand_cancelled_requests_on_asyncio(shaky: Fleet, most: int | None) -> None:
    """Half of them each way: `Task.cancel` comes at any await, those in the middle of cleaning up included."""
    rng = random.Random(2)
    limits = (
        httpx.Limits(max_connections=most) if most else httpx.Limits(max_keepalive_connections=CONCURRENT)
    )
    cancelled = 0

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal cancelled
        task = asyncio.create_task(call(client, rng))
        loop = asyncio.get_running_loop()
        # In seconds, or in rounds of the loop: so that the first steps of a request are hit as well as the last ones.
        if rng.random() < 0.5:
            handle = loop.call_later(rng.uniform(0, 0.02), task.cancel)
        else:
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            handle = None
            if rng.random() < 0.2:  # and once more, into the cleaning up
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait([task])
        if handle is not None:
            handle.cancel()
        if task.cancelled():
            cancelled += 1
        elif (error := task.exception()) is not None and not isinstance(error, httpx.TransportError):
            raise error

    async def worker(client: httpx.AsyncClient) -> None:
        while cancelled < 5_000:
            await one(client)

    async def main() -> None:
        async with AsyncDiscoClient("experiment", limits=limits, timeout=httpx.Timeout(20)) as client:
            await asyncio.gather(*[worker(client) for _ in range(CONCURRENT)])
            await check(client, shaky, most or CONCURRENT)
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main(), debug=False)
    assert cancelled >= 5_000


# An `async for` that is left early leaves the generators below it to trio's collector, httpx's own among them.
@pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|discoclient)[.]:ResourceWarning")
@pytest.mark.parametrize("most", [None, 8], ids=["without limits", "with limits"])
def test_two_thousand_cancelled_requests_on_trio(shaky: Fleet, most: int | None) -> None:
    rng = random.Random(3)
    limits = (
        httpx.Limits(max_connections=most) if most else httpx.Limits(max_keepalive_connections=CONCURRENT)
    )
    cancelled = 0

    async def worker(client: httpx.AsyncClient) -> None:
        nonlocal cancelled
        while cancelled < 1_000:
            with trio.move_on_after(rng.uniform(0, 0.02)) as scope:
                try:
                    await call(client, rng)
                except httpx.TransportError:
                    pass
            cancelled += scope.cancelled_caught

    async def main() -> None:
        async with AsyncDiscoClient("experiment", limits=limits, timeout=httpx.Timeout(20)) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(worker, client)
            await check(client, shaky, most or CONCURRENT)

    trio.run(main)
    assert cancelled >= 1_000


@pytest.mark.parametrize("state", ["new", "idle", "expired"])
def test_a_call_that_is_cancelled_at_its_nth_step_leaves_its_slot(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Every step in turn, from before the first one to after the last, and with one slot that all need."""
    clock = IdleClock(monkeypatch)
    server = fleet.add(answer(b"ok"), http_keepalive=10)

    async def main() -> None:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=0 if state == "new" else None)
        timeout = httpx.Timeout(20, pool=1.0)
        async with AsyncDiscoClient("experiment", limits=limits, timeout=timeout) as client:
            finished = 0
            for steps in itertools.count():
                assert (await client.get("/")).text == "ok"
                if state == "expired":
                    clock.advance(9.5)
                task = asyncio.create_task(client.get("/"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert fleet.in_flight() == 0
                finished += not task.cancelled()
                if finished == 3:
                    break
            await eventually_async(lambda: server.connections <= 1)

    asyncio.run(main())


def test_a_call_that_is_cancelled_while_it_waits_for_the_registry_leaves_nothing(fleet: Fleet) -> None:
    fleet.registry.set_down(True)

    async def main() -> None:
        async with AsyncDiscoClient("unknown", discovery_timeout=60.0) as client:
            for _ in range(50):
                task = asyncio.create_task(client.get("/"))
                await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            resolver = client._disco._router.route("unknown").resolver
            assert not resolver._listeners

    asyncio.run(main())


def test_timeouts_around_calls_work_as_they_do_around_anything(fleet: Fleet) -> None:
    server = fleet.add(never())

    async def main() -> None:
        async with AsyncDiscoClient("experiment") as client:
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await client.get("/")
            assert fleet.in_flight() == 0
            await eventually_async(lambda: server.connections == 0)

    asyncio.run(main())


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_a_tls_handshake_that_is_given_up_leaves_no_connection(fleet: Fleet, library: str, how: str) -> None:
    server = fleet.add(server={"is_mute": True}, scheme="https")

    def is_closed(*, collect: bool) -> bool:
        if collect:
            gc.collect()
        return server.connections == 0

    async def give_up(client: httpx.AsyncClient) -> None:
        if how == "timeout":
            with pytest.raises(httpx.ConnectTimeout):
                await client.get("/", timeout=httpx.Timeout(20, connect=0.1))
        elif library == "trio":
            with trio.move_on_after(0.1) as scope:
                await client.get("/")
            assert scope.cancelled_caught
        else:
            task = asyncio.create_task(client.get("/"))
            await eventually_async(lambda: server.connections == 1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    async def main() -> None:
        retry = RetryPolicy(connect_timeout=20.0)
        async with AsyncDiscoClient(
            "experiment", verify=False, timeout=httpx.Timeout(20), retry=retry
        ) as client:
            await give_up(client)
            assert server.accepted == 1
            with warnings.catch_warnings():
                if how == "cancelled":  # httpcore 1.0.9 leaves that one to the garbage collector
                    warnings.simplefilter("ignore", ResourceWarning)
                await eventually_async(lambda: is_closed(collect=how == "cancelled"), what="it is closed")

    asyncio.run(main()) if library == "asyncio" else trio.run(main)
