"""What an async client may do to the loop that it runs in, and what the loop may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import trio
from blockbuster import BlockingError, blockbuster_ctx

from discoclient import AsyncDiscoClient, NoInstances
from discoclient.control.hub import hub
from tests.client.fleet import Fleet
from tests.support.eventually import eventually, eventually_async
from tests.support.servers import HttpServer, answer, stream

RUNNERS = pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])


def start(run: Callable[..., Any], main: Callable[[], Any]) -> Any:
    return run(main() if run is asyncio.run else main)


def test_a_call_does_nothing_that_blocks_the_loop(fleet: Fleet) -> None:
    server = fleet.add(answer(b"ok"))

    async def main() -> None:
        async with AsyncDiscoClient("experiment") as client:
            await client.get("/")  # which may import things
        with blockbuster_ctx():
            async with AsyncDiscoClient("experiment", balancer="random") as client:
                await client.wait_ready()
                assert (await client.get("/")).text == "ok"
                await client.post("/", content=b"x" * 100_000)
                async with client.stream("GET", "/") as response:
                    assert [part async for part in response.aiter_raw()] == [b"ok"]
            with pytest.raises(BlockingError):  # the negative control
                time.sleep(0.001)

    asyncio.run(main())
    assert server.requests == 4


@RUNNERS
def test_the_end_of_the_loop_closes_what_a_client_left_open(fleet: Fleet, run: Callable[..., Any]) -> None:
    """Idle connections, and one in the middle of a response that nobody read; and without a warning."""
    idle = fleet.add(answer(b"ok"), http_keepalive=600)
    busy = fleet.add(stream([b"x" * 100], wait=lambda: False), service="busy")
    kept: list[object] = []

    async def main() -> None:
        client, other = AsyncDiscoClient("experiment"), AsyncDiscoClient("busy")
        await client.get("/")
        kept.extend([client, other, await other.send(other.build_request("GET", "/"), stream=True)])
        assert idle.connections == busy.connections == 1

    start(run, main)
    eventually(lambda: idle.connections == busy.connections == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.clear()
        gc.collect()
    assert fleet.in_flight("busy") == 0


@RUNNERS
def test_instances_that_leave_as_the_loop_ends_do_no_harm(fleet: Fleet, run: Callable[..., Any]) -> None:
    """Their connections are to be closed in a loop that takes no new tasks any more."""
    servers = [
        fleet.add(answer(b"ok"), service=f"service{number}", http_keepalive=600) for number in range(6)
    ]
    held: list[Any] = []

    async def leave(server: HttpServer) -> AsyncIterator[None]:
        try:
            yield
        finally:
            # The loop's generators are closed after its last task, some of them before the client's own, some after it.
            fleet.drain(server)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)

    async def main() -> None:
        for number, server in enumerate(servers):
            await AsyncDiscoClient(f"service{number}").get("/")
            held.append(leave(server))
            await anext(held[-1])

    start(run, main)
    eventually(lambda: sum(server.connections for server in servers) == 0)


@RUNNERS
def test_an_instance_that_leaves_at_any_moment_of_the_loop_s_end_leaves_no_connection(
    fleet: Fleet, run: Callable[..., Any]
) -> None:
    """From another thread, as it comes: with the connection closed by us each time, and no task destroyed while pending."""
    delays = itertools.cycle([0.0, 0.0002, 0.0005, 0.001, 0.002])

    async def main() -> None:
        client = AsyncDiscoClient("experiment")
        await client.get("/")

    for _ in range(25):
        server = fleet.add(answer(b"ok"), http_keepalive=600)
        leaver = threading.Timer(next(delays), fleet.registry.remove, [fleet.instance(server)])
        leaver.start()
        with contextlib.suppress(NoInstances):
            start(run, main)
        leaver.join()
        eventually(lambda: server.connections == 0)  # noqa: B023
        fleet.remove(server)


@RUNNERS
def test_two_loops_in_two_threads_share_one_client(fleet: Fleet, run: Callable[..., Any]) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)
    client = AsyncDiscoClient("experiment")
    errors: list[BaseException] = []

    async def main() -> None:
        for _ in range(50):
            assert (await client.get("/")).text == "ok"

    def work() -> None:
        try:
            start(run, main)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert server.accepted == 4  # one for each loop
    eventually(lambda: server.connections == 0)


def test_what_leaves_is_let_go_in_every_loop(fleet: Fleet) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)
    is_over = threading.Event()
    errors: list[BaseException] = []

    async def main() -> None:
        async with AsyncDiscoClient("experiment") as client:
            await client.get("/")
            await eventually_async(is_over.is_set, timeout=20.0)

    def work(run: Callable[..., Any]) -> None:
        try:
            start(run, main)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(run,)) for run in (asyncio.run, trio.run, asyncio.run)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: server.connections == 3, timeout=20.0)
        fleet.drain(server)
        eventually(lambda: server.connections == 0, what="each loop has closed its own")
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_the_loop_may_be_one_that_nobody_ends_well(fleet: Fleet) -> None:
    """Without ``shutdown_asyncgens`` the connections go with the garbage, and a later loop finds everything in order."""
    server = fleet.add(answer(b"ok"), http_keepalive=600)

    async def main() -> None:
        await AsyncDiscoClient("experiment").get("/")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
        asyncio.run(main())
        eventually(lambda: gc.collect() is not None and server.connections == 0)


@RUNNERS
def test_closing_the_only_client_closes_its_connections_without_waiting_for_the_end(
    fleet: Fleet, run: Callable[..., Any]
) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)
    fleet.handle.close()  # which is a user of the service as well

    async def main() -> None:
        await eventually_async(lambda: all(resolver.users == 0 for resolver in hub()._resolvers.values()))
        async with AsyncDiscoClient("experiment") as client:
            await client.get("/")
            assert server.connections == 1
        await eventually_async(lambda: server.connections == 0)

    start(run, main)


@RUNNERS
def test_a_forgotten_response_is_closed_in_its_own_loop_whatever_thread_collects_it(
    fleet: Fleet, run: Callable[..., Any]
) -> None:
    server = fleet.add(stream([b"x"], wait=lambda: False))

    async def main() -> None:
        async with AsyncDiscoClient("experiment") as client:
            held = [await client.send(client.build_request("GET", "/"), stream=True)]
            assert server.connections == 1

            def collect() -> None:
                held.clear()
                gc.collect()

            thread = threading.Thread(target=collect)
            thread.start()
            await eventually_async(lambda: not thread.is_alive(), timeout=20.0)
            assert fleet.in_flight() == 0
            await eventually_async(lambda: server.connections == 0)

    start(run, main)
