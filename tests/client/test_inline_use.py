"""``DiscoClient("experiment").get(...)``: made for each call, dropped without `close`, and nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from discoclient import AsyncDiscoClient, AsyncDiscoTransport, DiscoClient, DiscoTransport
from discoclient.control.hub import fresh_hub, hub
from discoclient.control.resolver import Resolver
from discoclient.testing import TestRegistry
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import Servers, answer


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def census() -> Counter[str]:
    """How many objects there are of each kind that is ours, or that holds something open."""
    gc.collect()
    kinds = Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    roots = ("discoclient.", "httpx.", "httpcore.", "asyncio.", "threading.", "socket.", "ssl.", "weakref.")
    return Counter({name: count for name, count in kinds.items() if name.startswith(roots)})


def resolvers() -> int:
    gc.collect()
    return sum(isinstance(found, Resolver) for found in gc.get_objects())


def grown(before: Counter[str], after: Counter[str], most: int) -> dict[str, int]:
    return {name: count - before[name] for name, count in after.items() if count - before[name] > most}


def test_a_thousand_clients_that_are_never_closed_leave_nothing_behind(fleet: Fleet) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)
    at_first = resolvers()  # the fleet's own, and what a test that failed holds in its traceback
    for _ in range(20):
        assert DiscoClient("experiment").get("/").text == "ok"
    before, files, threads = census(), open_files(), threading.active_count()
    for _ in range(1000):
        assert DiscoClient("experiment").get("/").text == "ok"
    # What is given back is counted on the background thread, soon after.
    eventually(lambda: not grown(before, census(), 50), timeout=20.0, what="nothing has grown")
    eventually(lambda: resolvers() <= at_first, timeout=20.0, what="only the fleet's own is left")
    assert open_files() <= files + 2
    assert threading.active_count() <= threads
    assert server.accepted == 1
    assert fleet.in_flight() == 0


def test_what_is_given_back_a_thousand_times_is_remembered_once(
    registry: TestRegistry, servers: Servers
) -> None:
    """Here nobody else holds the service, so that each client is the last one of it."""
    registry.add("experiment", servers.start().port)
    for _ in range(20):
        DiscoClient("experiment").get("/")
    before = census()
    for _ in range(1000):
        DiscoClient("experiment").get("/")
    eventually(lambda: not grown(before, census(), 50), timeout=20.0, what="nothing has grown")


def test_the_same_asynchronously(fleet: Fleet) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)

    async def main() -> None:
        for _ in range(20):
            assert (await AsyncDiscoClient("experiment").get("/")).text == "ok"
        before, files, threads = census(), open_files(), threading.active_count()
        for _ in range(500):
            assert (await AsyncDiscoClient("experiment").get("/")).text == "ok"
        for _ in range(100):
            if not grown(before, census(), 50):
                break
            await asyncio.sleep(0.05)
        assert grown(before, census(), 50) == {}
        assert open_files() <= files + 2
        assert threading.active_count() <= threads
        async with AsyncDiscoClient("experiment"):  # whose end closes what this loop has
            pass

    asyncio.run(main())
    assert server.accepted == 1


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_one_event_loop_after_the_other_with_clients_that_are_never_closed(
    fleet: Fleet, run: Callable[..., object]
) -> None:
    server = fleet.add(answer(b"ok"), http_keepalive=600)

    async def main() -> None:
        for _ in range(2):
            assert (await AsyncDiscoClient("experiment").get("/")).text == "ok"

    async def run_here() -> None:
        await main()

    for _ in range(5):
        run(run_here() if run is asyncio.run else run_here)
    before, files = census(), open_files()
    for _ in range(30):
        run(run_here() if run is asyncio.run else run_here)
    assert grown(before, census(), 20) == {}
    assert open_files() <= files + 2
    eventually(lambda: server.connections <= 1, what="the connections of loops that are over are closed")


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_one_client_lives_through_many_event_loops(fleet: Fleet, run: Callable[..., object]) -> None:
    fleet.add(answer(b"ok"), http_keepalive=600)
    client = AsyncDiscoClient("experiment")

    async def main() -> None:
        for _ in range(3):
            assert (await client.get("/")).text == "ok"

    for _ in range(10):
        run(main() if run is asyncio.run else main)
    run(client.aclose() if run is asyncio.run else client.aclose)


@pytest.mark.parametrize("make", [DiscoClient, AsyncDiscoClient, DiscoTransport, AsyncDiscoTransport])
def test_making_a_client_does_no_io_and_starts_no_thread(
    make: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("no I/O when a client is made")

    with fresh_hub():
        monkeypatch.setattr(socket.socket, "__init__", forbidden)
        monkeypatch.setattr(socket, "getaddrinfo", forbidden)
        monkeypatch.setattr(Path, "open", forbidden)
        monkeypatch.setattr("builtins.open", forbidden)
        monkeypatch.setattr("ssl.SSLContext.__new__", forbidden)
        gc.collect()
        threads, files = threading.active_count(), open_files()
        clients = [
            make("experiment", registry=url)
            for url in ("etcd://10.255.255.1:1", "etcds://10.255.255.1:1", None)
        ]
        assert threading.active_count() <= threads
        assert open_files() == files
        assert not hub().background.is_running
        del clients
        gc.collect()
        assert not hub().background.is_running
        monkeypatch.undo()


def test_making_a_client_is_quick() -> None:
    """Under a millisecond is what is promised; the bound here is for a machine that does something else as well."""
    DiscoClient("experiment")
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        DiscoClient("experiment")
        best = min(best, time.perf_counter() - began)
    assert best < 0.001


def test_a_service_is_watched_a_while_after_its_last_client_is_gone_and_then_no_longer() -> None:
    with fresh_hub(linger=0.05):
        client = DiscoClient("experiment", registry="static://experiment=127.0.0.1:9")
        client.wait_ready(20)
        assert len(hub()._resolvers) == 1
        other = DiscoClient("experiment", registry="static://experiment=127.0.0.1:9")
        other.wait_ready(20)
        client.close()
        time.sleep(0.1)
        assert len(hub()._resolvers) == 1  # the other one holds it
        del other
        eventually(lambda: not hub()._resolvers, timeout=10.0)
        client = DiscoClient("experiment", registry="static://experiment=127.0.0.1:9")
        client.wait_ready(20)  # and it is watched again
        assert len(hub()._resolvers) == 1


@in_every_shell
async def test_a_client_that_comes_back_soon_finds_everything_there(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(http_keepalive=600)
    known: set[int] = set()
    for _ in range(5):
        async with shell.client() as client:
            await client.get()
            known.add(id(client.raw._disco._router.route("experiment").resolver))
    assert len(known) == 1
    if shell.is_sync:  # an async client's end closes what its loop has, since nobody else could
        assert server.accepted == 1


@in_every_shell
async def test_closing_twice_gives_back_once(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    client = shell.client()
    await client.get()
    resolver = client.raw._disco._router.route("experiment").resolver
    users = resolver.users
    await client.close()
    await client.close()
    del client
    gc.collect()
    await shell.eventually(lambda: resolver.users == users - 1)
    await shell.sleep(0.05)
    assert resolver.users == users - 1


def test_a_transport_for_many_services_forgets_the_ones_not_used_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("discoclient.transport.router.MOST_ROUTES", 3)
    registry = "static://" + ";".join(f"s{number}=127.0.0.1:9" for number in range(6))
    with fresh_hub(linger=0.0):
        transport = DiscoTransport(registry=registry)
        for number in range(6):
            transport._router.route(f"s{number}")
            transport._router.route("s0")
        eventually(lambda: len(hub()._resolvers) == 3, timeout=10.0)
        assert {service for _, service, _ in hub()._resolvers} == {"s0", "s4", "s5"}
        transport.close()
        eventually(lambda: not hub()._resolvers, timeout=10.0)
