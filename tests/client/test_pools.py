"""Connections: kept, bounded, shared, and closed in time."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient, RetryPolicy
from discoclient.balancing.endpoint import Endpoint
from discoclient.model.instance import Instance
from discoclient.transport import sync_pool
from discoclient.transport.sync_pool import SyncPool
from discoclient.transport.wire import WireOptions
from tests.client.clocks import IdleClock
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import Behaviour, Exchange, answer, never, stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> IdleClock:
    return IdleClock(monkeypatch)


@in_every_shell
async def test_one_connection_serves_one_request_after_the_other(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as client:
        for _ in range(20):
            await client.get()
        await client.post(content=b"x" * 100_000)
    assert server.accepted == 1


@in_every_shell
async def test_as_many_requests_as_there_are_go_at_once(shell: Shell, fleet: Fleet) -> None:
    gate = threading.Event()
    server = fleet.add(stream([b"x"], wait=gate.is_set))

    async def open_the_gate() -> None:
        try:
            await shell.eventually(lambda: server.connections == 30)
        finally:
            gate.set()

    async with shell.client() as client:
        done = await shell.together(*[client.get] * 30, open_the_gate)
    assert [result for result in done if isinstance(result, Exception)] == []


@pytest.mark.parametrize(
    ("said", "kept", "closed"),
    [
        (600.0, 598.9, 599.1),
        (5.0, 3.9, 4.1),
        (2.0, 0.8, 1.1),
        (None, 0.8, 1.1),
        (1.0, 0.0, 0.01),
        (0.0, 0.0, 0.01),
    ],
)
@in_every_shell
async def test_an_idle_connection_is_given_up_a_second_before_the_server_does(
    shell: Shell, fleet: Fleet, clock: IdleClock, said: float | None, kept: float, closed: float
) -> None:
    """What is not said counts as 2 s."""
    server = fleet.add(http_keepalive=said)
    async with shell.client() as client:
        await client.get()
        if kept:
            clock.advance(kept)
            await client.get()
            assert server.accepted == 1
        clock.advance(closed)
        await client.get()
        assert server.accepted == 2
        # One that is not to be kept at all may be gone before anybody looks.
        await shell.eventually(lambda: server.connections <= 1, what="the expired one is closed")


def closing_what_was_idle(clock: IdleClock, keepalive: float) -> Behaviour:
    """A server that closes idle connections after *keepalive* seconds, and just too late for the request that crosses that."""
    idle_since: dict[int, float] = {}

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        number = exchange.seen.connection
        if clock.now() - idle_since.get(number, clock.now()) > keepalive - 0.5:
            exchange.close()
            return
        idle_since[number] = clock.now()  # before: the caller may turn the clock as soon as it has the answer
        await exchange.reply(200, b"ok")

    return behave


@in_every_shell
async def test_no_request_meets_a_connection_that_the_server_is_closing(
    shell: Shell, fleet: Fleet, clock: IdleClock
) -> None:
    """POSTs, since a GET would be tried again elsewhere."""
    fleet.add(closing_what_was_idle(clock, 3.0), http_keepalive=3.0)
    lying = fleet.add(closing_what_was_idle(clock, 3.0), service="lying", http_keepalive=30.0)
    async with shell.client() as client:
        for pause in (0.1, 1.0, 1.9, 2.1, 2.4, 2.6, 2.9, 3.1, 5.0):
            clock.advance(pause)
            assert (await client.post()).status_code == 200
    async with shell.client("lying") as client:  # the negative control
        await client.post()
        clock.advance(2.9)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post()
    assert lying.requests == 2


@in_every_shell
async def test_a_connection_that_the_server_has_closed_is_not_used_again(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(server={"keepalive": 0.05}, http_keepalive=600)
    async with shell.client() as client:
        for number in range(1, 4):
            assert (await client.post()).status_code == 200
            assert server.accepted == number
            await shell.eventually(lambda: server.connections == 0)
            await shell.sleep(0.01)


@in_every_shell
async def test_limits_bound_the_connections_to_each_instance(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(b"ok", delay=0.005))
    limits = httpx.Limits(max_connections=3)
    async with shell.client(limits=limits, timeout=30) as client:
        results = await shell.together(*[client.get] * 40)
        assert [result for result in results if isinstance(result, Exception)] == []
        results = await shell.together(*[client.get] * 40)
        assert [result for result in results if isinstance(result, Exception)] == []
    assert server.most_open <= 3
    assert server.requests == 80
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_request_that_gets_no_connection_in_time_fails_with_a_pool_timeout(
    shell: Shell, fleet: Fleet
) -> None:
    gate = threading.Event()
    server = fleet.add(stream([b"x"], wait=gate.is_set))
    timeout = httpx.Timeout(30, pool=0.1)
    async with shell.client(limits=httpx.Limits(max_connections=1), timeout=timeout) as client:
        response = await client.open()
        for _ in range(3):
            with pytest.raises(httpx.PoolTimeout) as caught:
                await client.get()
            assert caught.value.request.url.host == "experiment"
        assert fleet.in_flight() == 1
        gate.set()
        await client.read(response)
        await client.get()
        assert not fleet.endpoint(server).is_ejected(time.monotonic())  # it was not to blame
    assert server.requests == 2


@in_every_shell
async def test_a_slot_comes_back_whatever_becomes_of_the_request(shell: Shell, fleet: Fleet) -> None:
    from tests.support.servers import break_off, close_unanswered

    server = fleet.add()
    timeout = httpx.Timeout(5, read=0.1)
    async with shell.client(limits=httpx.Limits(max_connections=1), timeout=timeout) as client:
        for behaviour in (
            close_unanswered(),
            never(),
            break_off(),
            answer(status=500),
            answer(b"x" * 100_000),
        ):
            server.behaviour = behaviour
            for _ in range(3):
                with contextlib.suppress(httpx.NetworkError, httpx.ProtocolError, httpx.ReadTimeout):
                    await client.post()  # and no PoolTimeout
        for _ in range(3):  # and with a body that is not read, or not even closed
            async with client.stream():
                pass
        with pytest.raises(ZeroDivisionError):
            await client.post(content=shell.body([b"x"], error=ZeroDivisionError()))
        server.behaviour = answer()
        await client.get()
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_forgotten_response_gives_its_slot_back(shell: Shell, fleet: Fleet) -> None:
    gate = threading.Event()
    fleet.add(stream([b"x"], wait=gate.is_set))
    try:
        async with shell.client(limits=httpx.Limits(max_connections=1)) as client:
            for _ in range(3):
                response = await client.open(timeout=httpx.Timeout(5, pool=1))
                del response
                gc.collect()
                await shell.sleep(0)
    finally:
        gate.set()


@in_every_shell
async def test_a_waiting_request_gets_the_slot_of_a_forgotten_response(shell: Shell, fleet: Fleet) -> None:
    """The collector may run in any thread, so the slot may come back from any."""
    server = fleet.add(stream([b"x"]))
    held: list[httpx.Response] = []

    async with shell.client(limits=httpx.Limits(max_connections=1), timeout=20) as client:

        async def forget() -> None:
            held.append(await client.open())
            await shell.sleep(0.1)

            def collect() -> None:
                held.clear()
                gc.collect()

            thread = threading.Thread(target=collect)
            thread.start()
            while thread.is_alive():
                await shell.sleep(0.01)

        async def wait() -> int:
            await shell.eventually(lambda: held)
            return (await client.get()).status_code

        gc.disable()
        try:
            assert await shell.together(forget, wait) == [None, 200]
        finally:
            gc.enable()
    assert server.requests == 2


def test_the_collector_may_come_at_any_moment(fleet: Fleet) -> None:
    """A forgotten response is closed wherever the collector runs: at each line of the pool, and of what the pool waits with."""
    gate = threading.Event()
    fleet.add(stream([b"x"], wait=gate.is_set))
    is_done = threading.Event()
    client = DiscoClient("experiment", limits=httpx.Limits(max_connections=2))

    def forget_at(line: int) -> bool:
        """Whether the call had so many lines."""
        held = [client.send(client.build_request("GET", "/"), stream=True)]
        lines = itertools.count()

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code.co_filename not in (sync_pool.__file__, threading.__file__):
                return trace if event == "call" else None
            if event == "line" and next(lines) == line:
                held.clear()
                gc.collect(0)
            return trace

        sys.settrace(trace)
        try:
            client.send(client.build_request("GET", "/"), stream=True).close()
        finally:
            sys.settrace(None)
        for response in held:
            response.close()
        return not held

    def forget() -> None:
        line = 0
        while forget_at(line):
            line += 1
        assert line > 10
        is_done.set()

    gc.disable()
    threading.Thread(target=forget, daemon=True).start()
    try:
        assert is_done.wait(20.0), "a deadlock"
    finally:
        gc.enable()
        gate.set()
    client.close()


@in_every_shell
async def test_at_most_so_many_idle_connections_are_kept(shell: Shell, fleet: Fleet) -> None:
    gate = threading.Event()
    server = fleet.add(stream([b"x"], wait=gate.is_set), http_keepalive=600)
    async with shell.client(limits=httpx.Limits(max_keepalive_connections=2)) as client:
        responses = [await client.open() for _ in range(6)]
        gate.set()
        for response in responses:
            await client.read(response)
        await shell.eventually(lambda: server.connections == 2)
        await client.get()
        assert server.accepted == 6
    async with shell.client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
        await client.get()
        await client.get()
        assert server.accepted == 8


@in_every_shell
async def test_keepalive_expiry_of_the_limits_can_only_shorten_the_time(
    shell: Shell, fleet: Fleet, clock: IdleClock
) -> None:
    server = fleet.add(http_keepalive=10)
    async with shell.client(limits=httpx.Limits(keepalive_expiry=3.0)) as client:
        for pause, accepted in ((0, 1), (2.5, 1), (3.5, 2)):
            clock.advance(pause)
            await client.get()
            assert server.accepted == accepted
    async with shell.client(limits=httpx.Limits(keepalive_expiry=100.0)) as client:
        for pause, accepted in ((0, 3), (8.5, 3), (9.5, 4)):
            clock.advance(pause)
            await client.get()
            assert server.accepted == accepted


@in_every_shell
async def test_clients_of_one_service_share_their_connections_and_what_they_know(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as one, shell.client(balancer="random", base_url="/x", timeout=3) as other:
        for _ in range(3):
            await one.get()
            await other.get()
        assert (
            one.raw._disco._router.route("experiment").resolver
            is other.raw._disco._router.route("experiment").resolver
        )
    assert server.accepted == 1


@pytest.mark.parametrize(
    "options",
    [
        {"limits": httpx.Limits(max_connections=7)},
        {"verify": False},
        {"server_name": "other.example"},
        {"http1": True, "http2": True},
        {"trust_env": False},
    ],
    ids=lambda options: next(iter(options)),
)
@in_every_shell
async def test_clients_with_other_options_for_connections_do_not_share_them(
    shell: Shell, fleet: Fleet, options: dict[str, Any]
) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as one, shell.client(**options) as other:
        await one.get()
        await other.get()
        assert server.accepted == 2
        await one.get()
        await other.get()
    assert server.accepted == 2


@in_every_shell
async def test_closing_one_client_leaves_the_connections_of_another_alone(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as stays:
        for _ in range(3):
            async with shell.client() as goes:
                await goes.get()
            await stays.get()
    assert server.accepted == 1


@in_every_shell
async def test_policies_are_each_client_s_own(shell: Shell, fleet: Fleet) -> None:
    from tests.support.servers import refused_port

    with refused_port() as port:
        for _ in range(3):
            fleet.register(port=port)
        for most in (1, 2, 3):
            async with shell.client(retry=RetryPolicy(max_attempts=most)) as client:
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.get()
                assert len(getattr(caught.value, "__notes__", [""])) == most


@in_every_shell
async def test_idle_connections_do_not_pile_up_after_a_burst(
    shell: Shell, fleet: Fleet, clock: IdleClock
) -> None:
    server = fleet.add(answer(b"ok", delay=0.02), http_keepalive=5)
    async with shell.client() as client:
        await shell.together(*[client.get] * 20)
        peak = server.connections
        clock.advance(4.5)
        for _ in range(peak):
            await client.get()
        await shell.eventually(lambda: server.connections <= 2)
    assert peak > 4


def test_many_threads_share_one_client(fleet: Fleet) -> None:
    servers = [fleet.add(answer(b"ok")) for _ in range(3)]
    errors: list[Exception] = []

    def work(client: DiscoClient) -> None:
        try:
            for number in range(60):
                if number % 10 == 9:
                    with client.stream("GET", "/") as response:
                        assert response.status_code == 200
                else:
                    assert client.get("/").text == "ok"
        except Exception as error:
            errors.append(error)

    with DiscoClient("experiment", timeout=30) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert sum(server.requests for server in servers) == 32 * 60
    assert [fleet.endpoint(server).in_flight for server in servers] == [0, 0, 0]
    assert all(server.most_open <= 33 for server in servers)
    for server in servers:
        fleet.drain(server)
    eventually(lambda: sum(server.connections for server in servers) == 0, timeout=10.0)


def test_a_connection_that_is_looked_at_while_its_instance_leaves_is_closed() -> None:
    """It is in nobody's hands for a moment: whoever closes all of them does not see it."""

    class Idle:
        is_shut = False

        def __init__(self, on_look: Callable[[], object] = lambda: None) -> None:
            self.is_overdue = lambda now: bool(on_look())
            self.is_idle = lambda: True

        def close(self) -> None:
            self.is_shut = True

    endpoint = Endpoint(Instance(service="experiment", id="experiment-1", host="127.0.0.1", port=1), now=0.0)
    pool = SyncPool(endpoint, WireOptions())
    endpoint.on_retire(pool.close)
    oldest, newest = Idle(endpoint.retire), Idle()
    pool.give(oldest)  # type: ignore[arg-type]
    pool.give(newest)  # type: ignore[arg-type]
    assert endpoint.is_retired
    assert (oldest.is_shut, newest.is_shut) == (True, True)
