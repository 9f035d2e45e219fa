"""The deadline of a call: over connecting, waiting, all attempts and the body, in the sync client as in the async ones."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest

from discoclient import AsyncDiscoClient, DeadlineExceeded, DiscoveryTimeout, RetryPolicy, RoutingError
from discoclient.testing import TestRegistry
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import HTTPX_ON_TRIO, counts, disco, in_order
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.eventually import eventually_async
from tests.support.servers import (
    Behaviour,
    answer,
    begin_and_wait,
    blackhole,
    close_unanswered,
    hold,
    never,
    sip,
    stream,
    trickle,
    trickle_head,
)

SHORT = 0.12
"""Seconds after which a call is given up. Nothing here would end by itself in less than some times that."""
BIG = 32_000_000
"""Bytes: a second's worth of sips and more than all buffers take, where those of the kernel are kept small."""


async def expire(client: Face, *, method: str = "GET", deadline: float = SHORT, **options: Any) -> Any:
    """Make a call that its deadline ends; the error."""
    with pytest.raises(DeadlineExceeded) as caught:
        await client.request(method, **disco(deadline=deadline), **options)
    error = caught.value
    assert isinstance(error, httpx.ReadTimeout)
    assert isinstance(error, RoutingError)
    assert "the call's deadline passed" in str(error)
    assert error.request.url.host == "experiment"
    return error


# ---- what it bounds


@in_every_shell
async def test_a_server_that_never_answers_is_left_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(never())
    async with shell.client(timeout=None) as client:
        for number, method in enumerate(("GET", "POST"), start=1):
            error = await expire(client, method=method)
            assert f"while {server.address} had not answered" in str(error)
            assert server.requests == number
            assert fleet.in_flight() == 0
            await shell.eventually(lambda: server.connections == 0, what="the server sees it close")


@in_every_shell
async def test_without_a_deadline_a_call_waits_on(shell: Shell, fleet: Fleet) -> None:
    """The negative control: beside a call that is given up, one that is not, and that is answered in the end."""
    is_over = threading.Event()
    server = fleet.add(hold(is_over.is_set))
    async with shell.client(timeout=None) as client:

        async def give_up() -> str:
            await shell.eventually(lambda: server.requests == 1)
            await expire(client)
            assert server.requests == 2
            is_over.set()
            return "given up"

        async def wait_on() -> str:
            return (await client.get()).text

        assert await shell.together(wait_on, give_up) == [str(server.port), "given up"]


@in_every_shell
async def test_connecting_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    with blackhole() as port:
        instance = fleet.register(port=port)
        async with shell.client(timeout=None, retry=RetryPolicy(connect_timeout=30.0)) as client:
            error = await expire(client)
    assert f"while {instance.address} had not answered" in str(error)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_tls_handshake_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(server={"is_mute": True}, scheme="https")
    async with shell.client(timeout=None, verify=False, retry=RetryPolicy(connect_timeout=30.0)) as client:
        await expire(client)
        await shell.eventually(lambda: server.connections == 0)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_head_that_comes_in_drops_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(trickle_head())
    async with shell.client(timeout=5.0) as client:
        await expire(client)
        await shell.eventually(lambda: server.connections == 0)
    assert fleet.in_flight() == 0


@pytest.mark.parametrize(
    "behaviour", [trickle(), begin_and_wait(200, length=100, part=b"1")], ids=["in drops", "and stops"]
)
@in_every_shell
async def test_a_body_that_does_not_end_is_given_up_at_the_deadline(
    shell: Shell, fleet: Fleet, behaviour: Behaviour
) -> None:
    """Each drop is in time for httpx's own timeout, which is for each read."""
    server = fleet.add(behaviour)
    async with shell.client(timeout=20.0) as client:
        error = await expire(client)
        assert "while the body was read" in str(error)
        await shell.eventually(lambda: server.connections == 0, what="the server sees it close")
    assert server.requests == 1
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_body_that_is_read_in_parts_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    server, got = fleet.add(trickle()), 0
    async with shell.client(timeout=20.0) as client:
        with pytest.raises(DeadlineExceeded, match="while the body was read"):
            async with client.stream(**disco(deadline=0.4)) as response:
                assert response.status_code == 200
                async for part in client.parts(response):
                    got += len(part)
        await shell.eventually(lambda: server.connections == 0)
    assert got > 0
    assert fleet.in_flight() == 0


@in_every_shell
async def test_without_a_deadline_a_body_in_drops_is_read_to_its_end(shell: Shell, fleet: Fleet) -> None:
    """The negative control."""
    server = fleet.add(stream([b"."] * 40, pause=0.01))
    async with shell.client(timeout=20.0) as client:
        assert (await client.get()).content == b"." * 40
        await expire(client)
    assert server.requests == 2


@HTTPX_ON_TRIO
@in_every_shell
async def test_a_body_that_is_sent_in_sips_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    """Whoever accepts a little at a time keeps every single write in time."""
    swallowed: list[int] = []
    server = fleet.add(sip(swallowed.append, pause=0.002), server={"receive_buffer": 16384})
    async with shell.client(timeout=20.0) as client:
        await expire(client, method="PUT", content=bytes(BIG))
        await shell.eventually(lambda: server.connections == 0)
    assert sum(swallowed) < BIG, "all of it was sent, whatever the deadline"
    assert fleet.in_flight() == 0


@in_every_shell
async def test_without_a_deadline_a_body_in_sips_is_sent_to_its_end(shell: Shell, fleet: Fleet) -> None:
    """The negative control."""
    swallowed: list[int] = []
    fleet.add(sip(swallowed.append, pause=0.0), server={"receive_buffer": 16384})
    async with shell.client(timeout=20.0) as client:
        assert (await client.request("PUT", content=bytes(BIG))).status_code == 200
    assert sum(swallowed) == BIG


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_body_that_its_own_source_keeps_waiting_is_given_up_at_the_deadline(
    fleet: Fleet, backend: str
) -> None:
    """What an iterator waits for is nothing that a socket's timeout could end. (In a thread nothing could.)"""
    server = fleet.add(answer())

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await anyio.sleep_forever()

    async def main() -> None:
        async with AsyncDiscoClient("experiment", timeout=None) as client:
            with anyio.fail_after(20), pytest.raises(DeadlineExceeded):
                await client.post("/", content=endless(), **disco(deadline=0.2))
            await eventually_async(lambda: server.connections == 0, what="the connection is closed")

    anyio.run(main, backend=backend)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_waiting_for_a_connection_is_given_up_at_the_deadline(shell: Shell, fleet: Fleet) -> None:
    is_over = threading.Event()
    server = fleet.add(stream([b"first", b"last"], wait=is_over.is_set))
    limits = httpx.Limits(max_connections=1)
    async with shell.client(timeout=None, limits=limits) as client:
        response = await client.open()
        await expire(client)
        assert server.requests == 1
        is_over.set()
        assert await client.read(response) == b"firstlast"
        assert (await client.get()).status_code == 200  # the slot is not lost
    assert fleet.in_flight() == 0


@in_every_shell
async def test_httpx_s_timeout_for_a_connection_is_httpx_s_error_also_with_a_deadline(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add(stream([b"first", b"last"], wait=lambda: False))
    limits = httpx.Limits(max_connections=1)
    async with shell.client(timeout=httpx.Timeout(None, pool=0.1), limits=limits) as client:
        response = await client.open()
        with pytest.raises(httpx.PoolTimeout):
            await client.get(**disco(deadline=60.0))
        await client.close_response(response)


@in_every_shell
async def test_waiting_for_a_connection_of_ours_is_no_failure_of_the_instance(
    shell: Shell, fleet: Fleet
) -> None:
    """All its connections are in our own hands, and it does what it is asked."""
    server, other = in_order(fleet, stream([b"a"] * 2, wait=lambda: False), answer())
    limits = httpx.Limits(max_connections=1)
    async with shell.client(balancer=BySlot(), timeout=None, limits=limits) as client:
        response = await client.open()
        for _ in range(6):
            with pytest.raises(DeadlineExceeded):
                await client.get(**disco(deadline=0.03, exclude=[fleet.instance(other).id]))
        assert server.requests == 1
        assert fleet.endpoint(server).failures == 0
        assert not fleet.endpoint(server).is_ejected(time.monotonic())
        await client.close_response(response)


@in_every_shell
async def test_waiting_for_the_registry_is_given_up_at_the_deadline(
    shell: Shell, registry: TestRegistry
) -> None:
    registry.set_down(True)
    async with shell.client(discovery_timeout=60.0) as client:
        error = await expire(client)
        assert "while nothing was known of the service" in str(error)
        assert isinstance(error.__cause__, DiscoveryTimeout)
    async with shell.client(discovery_timeout=SHORT) as client:
        with pytest.raises(DiscoveryTimeout):
            await client.get(**disco(deadline=60.0))


# ---- beside the attempts


@in_every_shell
async def test_what_is_given_up_is_not_tried_elsewhere(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, never(), answer())
    async with shell.client(balancer=BySlot(), timeout=None) as client:
        await expire(client)
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_what_fails_before_the_deadline_is_tried_elsewhere_and_the_error_tells_of_it(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, close_unanswered(), never(), answer())
    ids = [fleet.instance(server).id for server in servers]
    async with shell.client(balancer=BySlot(), timeout=None) as client:
        error = await expire(client, deadline=0.5)
    first, second = error.__notes__
    assert first.startswith(f"attempt 1 at {servers[0].address} ({ids[0]}): RemoteProtocolError")
    assert second.startswith(f"attempt 2 at {servers[1].address} ({ids[1]}): DeadlineExceeded")
    assert counts(servers) == [1, 1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_httpx_s_timeout_ends_an_attempt_and_the_deadline_the_call(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, never(), answer(b"ok"), answer())
    async with shell.client(balancer=BySlot(), timeout=httpx.Timeout(20, read=0.5)) as client:
        assert (await client.get(**disco(deadline=60.0))).content == b"ok"
    assert counts(servers) == [1, 1, 0]


@in_every_shell
async def test_an_answer_in_time_is_an_answer_whatever_happened_before(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(status=503), answer(b"ok"))
    async with shell.client(balancer=BySlot(), deadline=60.0) as client:
        assert (await client.get()).content == b"ok"
    assert counts(servers) == [1, 1]


@in_every_shell
async def test_nothing_is_sent_when_there_is_no_time_at_all(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:
        await client.get()
        error = await expire(client, deadline=0)
        assert "before anything was sent" in str(error)
    assert server.requests == 1
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_connection_does_not_remember_the_deadline_of_an_earlier_request(
    shell: Shell, fleet: Fleet
) -> None:
    deadline, began = 1.0, time.monotonic()
    server = fleet.add(answer(b"ok"), http_keepalive=600)
    async with shell.client(timeout=None) as client:
        assert (await client.get(**disco(deadline=deadline))).content == b"ok"
        server.behaviour = hold(lambda: time.monotonic() > began + deadline + 0.1, answer(b"late"))
        assert (await client.get()).content == b"late"
    assert server.accepted == 1


@in_every_shell
async def test_after_a_deadline_the_next_call_is_as_any_other(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(never())
    async with shell.client(timeout=None) as client:
        await expire(client)
        server.behaviour = answer()
        assert await client.port() == server.port
        assert await client.port(**disco(deadline=60.0)) == server.port
    assert server.accepted == 2


# ---- who sets it


@in_every_shell
async def test_a_client_s_deadline_is_for_each_of_its_calls(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(never())
    async with shell.client(timeout=None, deadline=SHORT) as client:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                await client.get()
    assert server.requests == 2
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_transport_s_deadline_is_for_each_of_its_calls(shell: Shell, fleet: Fleet) -> None:
    fleet.add(never())
    mounts = {"disco://": shell.transport(deadline=SHORT)}
    async with shell.plain_client(mounts=mounts, timeout=None) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("disco://experiment/")


@pytest.mark.parametrize(
    ("client_s", "request_s", "least", "most"),
    [
        (None, None, None, None),
        (60.0, None, 30_000, 60_000),
        (None, 60.0, 30_000, 60_000),
        (600.0, 60.0, 30_000, 60_000),
        (60.0, 600.0, 500_000, 600_000),
        (None, 60, 30_000, 60_000),
    ],
)
@in_every_shell
async def test_what_is_left_is_said_to_the_server_and_the_request_s_own_deadline_counts(
    shell: Shell,
    fleet: Fleet,
    client_s: float | None,
    request_s: float | None,
    least: int | None,
    most: int | None,
) -> None:
    server = fleet.add()
    async with shell.client(deadline=client_s) as client:
        await client.get(**({} if request_s is None else disco(deadline=request_s)))
    said = server.seen[0].headers.get("x-disco-deadline")
    if least is None or most is None:
        assert said is None
    else:
        assert said is not None
        assert least < int(said) <= most


@in_every_shell
async def test_every_attempt_says_what_is_left_then(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(status=503, delay=0.05), answer())
    async with shell.client(balancer=BySlot(), deadline=60.0) as client:
        await client.get()
    first, second = (int(server.seen[0].headers["x-disco-deadline"]) for server in servers)
    assert first - second >= 49


@in_every_shell
async def test_two_calls_at_once_have_their_own_deadlines(shell: Shell, fleet: Fleet) -> None:
    is_over = threading.Event()
    server = fleet.add(hold(is_over.is_set))
    async with shell.client(timeout=None) as client:

        def call(deadline: float) -> Callable[[], Any]:
            async def act() -> str:
                try:
                    return (await client.get(**disco(deadline=deadline))).text
                except DeadlineExceeded:
                    is_over.set()
                    return "too late"

            return act

        assert await shell.together(call(60.0), call(SHORT)) == [str(server.port), "too late"]


@in_every_shell
async def test_what_a_redirect_leads_to_has_a_deadline_too(shell: Shell, fleet: Fleet) -> None:
    """For httpx it is a request of its own."""
    server = fleet.add(_redirect_then(never()))
    async with shell.client(timeout=None, follow_redirects=True) as client:
        await expire(client)
    assert [seen.target for seen in server.seen] == ["/", "/there"]


def _redirect_then(behaviour: Behaviour) -> Behaviour:
    async def behave(exchange: Any) -> None:
        if exchange.seen.target == "/":
            await exchange.reply(302, b"", {"Location": "/there"})
        else:
            await behaviour(exchange)

    return behave
