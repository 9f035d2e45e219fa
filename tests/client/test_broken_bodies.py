"""A body that breaks off: an attempt like any other while the caller holds nothing of it, and the caller's from then on."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from discoclient import DeadlineExceeded, OutlierPolicy, RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import IDEMPOTENT, OTHER, counts, disco, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import (
    Behaviour,
    Exchange,
    answer,
    begin_and_wait,
    break_off,
    in_turn,
    redirect,
    stream,
)

PATIENT = OutlierPolicy(consecutive_failures=1000, min_success_rate=0)


def break_off_chunks() -> Behaviour:
    """A chunked body that ends in the middle of a chunk."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(200, {"transfer-encoding": "chunked"})
        await exchange.write(b"5\r\nhello\r\nff\r\nworl")
        exchange.close()

    return behave


def reset_in_the_body() -> Behaviour:
    """What a process that is killed between the head and the body leaves its callers."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(200, {"content-length": "1000"})
        exchange.reset()

    return behave


BROKEN = [break_off, break_off_chunks, reset_in_the_body]


@pytest.mark.parametrize("broken", BROKEN)
@in_every_shell
async def test_a_body_that_breaks_off_is_tried_elsewhere_where_that_is_safe(
    shell: Shell, fleet: Fleet, broken: type[Behaviour]
) -> None:
    servers = in_order(fleet, broken(), answer(b"whole"))
    async with shell.client(balancer=BySlot(), outlier=PATIENT) as client:
        for number, method in enumerate(IDEMPOTENT, start=1):
            if method == "HEAD":
                continue  # has no body
            response = await client.request(method)
            assert response.content == b"whole"
            assert response.extensions["disco"].attempts == 2
            assert servers[1].requests <= number
        for method in OTHER:
            with pytest.raises(httpx.TransportError) as caught:
                await client.request(method)
            assert caught.value.request.url.host == "experiment"
        await shell.eventually(lambda: servers[0].connections == 0)
    assert counts(servers) == [len(IDEMPOTENT) - 1 + len(OTHER), len(IDEMPOTENT) - 1]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_nothing_is_tried_again_once_the_caller_has_the_response(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), answer())
    async with shell.client(balancer=BySlot()) as client:
        async with client.stream() as response:
            with pytest.raises(httpx.RemoteProtocolError, match="complete message body") as caught:
                await client.read(response)
        await shell.eventually(lambda: servers[0].connections == 0)
    assert caught.value.request.url.host == "experiment"
    assert counts(servers) == [1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_request_that_was_whole_may_be_sent_again_as_a_stream(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), answer(b"whole"))
    async with shell.client(balancer=BySlot(), outlier=PATIENT) as client:
        request = client.raw.build_request("GET", "/")
        assert (await client.send(request)).content == b"whole"
        response = await client.send(request, stream=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.read(response)
        await client.close_response(response)
    assert counts(servers) == [2, 1]


@in_every_shell
async def test_a_mounted_transport_does_not_know_and_hands_over_at_once(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), answer())
    transport = shell.transport("experiment", balancer=BySlot())
    async with shell.plain_client(transport=transport) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("http://experiment/")
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_when_all_bodies_break_off_the_last_one_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), break_off(), break_off())
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="complete message body") as caught:
            await client.get()
        await shell.eventually(lambda: not any(server.connections for server in servers))
    assert counts(servers) == [1, 1, 0], "it may have been done, so that it is tried again once"
    assert len(caught.value.__notes__) == 2
    assert fleet.in_flight() == 0


@in_every_shell
async def test_the_second_part_that_does_not_come_in_time_is_tried_elsewhere(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, begin_and_wait(200, length=100, part=b"x"), answer(b"whole"))
    async with shell.client(balancer=BySlot(), timeout=httpx.Timeout(10.0, read=0.1)) as client:
        response = await client.get()
        assert response.content == b"whole"
        with pytest.raises(httpx.ReadTimeout):
            await client.post()
    assert counts(servers) == [2, 1]


@in_every_shell
async def test_the_deadline_holds_over_a_body_that_is_wanted_whole(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, begin_and_wait(200, length=100, part=b"x"), answer(b"whole"))
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(DeadlineExceeded, match="while the body was read"):
            await client.get(**disco(deadline=0.2))
        await shell.eventually(lambda: servers[0].connections == 0)
    assert counts(servers) == [1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_redirect_keeps_what_the_caller_wants(shell: Shell, fleet: Fleet) -> None:
    first = in_turn(redirect("/there"), break_off())
    servers = in_order(fleet, first, answer(b"whole"))
    async with shell.client(balancer=BySlot(), follow_redirects=True) as client:
        assert (await client.get("/")).content == b"whole"
    assert counts(servers) == [2, 1]


@pytest.mark.parametrize("is_broken", [True, False])
@in_every_shell
async def test_who_never_gets_a_body_through_is_left_alone(
    shell: Shell, fleet: Fleet, is_broken: bool
) -> None:
    """The answer as such does not speak for it: else its failures would never come one after the other."""
    servers = in_order(fleet, break_off() if is_broken else answer(), answer())
    outlier = OutlierPolicy(consecutive_failures=5, min_success_rate=0)
    async with shell.client(balancer=BySlot(), outlier=outlier) as client:
        for _ in range(5):
            await client.get()
    assert servers[0].requests == 5
    assert fleet.endpoint(servers[0]).is_ejected(time.monotonic()) is is_broken


@in_every_shell
async def test_how_long_a_body_takes_is_no_silence_and_no_latency(shell: Shell, fleet: Fleet) -> None:
    """The parts come late, the head does not: whoever picks meanwhile must not think that it hangs."""
    server = fleet.add(stream([b"a", b"b", b"c"], pause=0.15), http_keepalive=600)
    async with shell.client() as client:
        for _ in range(3):
            assert (await client.get()).content == b"abc"
    endpoint = fleet.endpoint(server)
    assert endpoint.latency(time.monotonic()) < 0.15
    assert endpoint._waiting == 0


@in_every_shell
async def test_a_connection_whose_body_was_read_is_used_again(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(stream([b"x" * 100_000] * 3), http_keepalive=600)
    async with shell.client() as client:
        for _ in range(3):
            assert len((await client.get()).content) == 300_000
    assert server.accepted == 1


@in_every_shell
async def test_what_was_read_is_not_kept_twice(shell: Shell, fleet: Fleet) -> None:
    fleet.add(answer(b"x" * 1_000_000))
    async with shell.client() as client:
        response = await client.get()
        assert len(response.content) == 1_000_000
        stream: Any = response.stream
        stream = stream._stream  # httpx's own is around ours
        kept = stream._stream if isinstance(stream, httpx.ByteStream) else None
        assert kept is response.content if kept is not None else not stream._parts


@in_every_shell
async def test_without_retries_the_error_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), answer())
    async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_attempts_sent=1)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
    assert counts(servers) == [1, 0]
