"""What is tried again, where, and how often."""

from __future__ import annotations

import time
from contextlib import ExitStack

import httpx
import pytest

from discoclient import DiscoClient, RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import (
    Behaviour,
    HttpServer,
    answer,
    blackhole,
    break_off,
    close_unanswered,
    echo,
    never,
    refused_port,
    reset_unanswered,
)

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
OTHER = ("POST", "PATCH", "PROPFIND")


def in_order(fleet: Fleet, *behaviours: Behaviour) -> list[HttpServer]:
    """Servers that `BySlot` asks in this order."""
    return [fleet.add(behaviour, slot=str(number)) for number, behaviour in enumerate(behaviours)]


def counts(servers: list[HttpServer]) -> list[int]:
    return [server.requests for server in servers]


@in_every_shell
async def test_a_refused_connection_is_tried_elsewhere_for_any_method(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port, slot="0")
        server = fleet.add(slot="1")
        async with shell.client(balancer=BySlot()) as client:
            for number, method in enumerate([*IDEMPOTENT, *OTHER], start=1):
                response = await client.request(method)
                assert response.extensions["disco"].attempts == 2
                assert response.extensions["disco"].instance == fleet.instance(server)
                assert server.requests == number


@in_every_shell
async def test_a_body_that_can_be_sent_once_survives_a_refused_connection(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        for slot in ("0", "1"):
            fleet.register(port=port, slot=slot)
        fleet.add(echo(), slot="2")
        async with shell.client(balancer=BySlot()) as client:
            response = await client.post(content=shell.body([b"one", b"two"]))
    assert response.content == b"onetwo"
    assert response.extensions["disco"].attempts == 3


@pytest.mark.parametrize("failure", [close_unanswered(), reset_unanswered()], ids=["closed", "reset"])
@in_every_shell
async def test_an_idempotent_request_without_an_answer_is_sent_once_more(
    shell: Shell, fleet: Fleet, failure: Behaviour
) -> None:
    servers = in_order(fleet, failure, answer(b"ok"), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        for number, method in enumerate(IDEMPOTENT, start=1):
            response = await client.request(method)
            assert response.status_code == 200
            assert response.extensions["disco"].attempts == 2
            assert counts(servers) == [number, number, 0]


@in_every_shell
async def test_a_request_that_is_not_idempotent_is_sent_once(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), answer())
    async with shell.client(balancer=BySlot()) as client:
        for number, method in enumerate(OTHER, start=1):
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await client.request(method, content=b"x")
            assert counts(servers) == [number, 0]
            assert not hasattr(caught.value, "__notes__")  # one attempt tells its own story


@in_every_shell
async def test_a_body_that_can_be_sent_once_is_sent_once(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), answer())
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.request("PUT", content=shell.body([b"one", b"two"]))
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_a_body_that_is_sent_again_is_the_same(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), echo())
    body = bytes(range(256)) * 1000
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.request("PUT", content=body)).content == body
        servers[0].behaviour = close_unanswered()
        assert (await client.request("PUT", json={"a": 1})).json() == {"a": 1}
    assert counts(servers) == [2, 2]


@in_every_shell
async def test_at_most_two_attempts_are_sent(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), reset_unanswered(), answer())
    async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_attempts=9)) as client:
        with pytest.raises(httpx.ReadError):
            await client.get()
    assert counts(servers) == [1, 1, 0]


@in_every_shell
async def test_attempts_of_which_nothing_was_sent_do_not_count_as_sent(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port, slot="0")
        sent = fleet.add(close_unanswered(), slot="1")
        fleet.register(port=port, slot="2")
        answers = fleet.add(slot="3")
        async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_attempts=4)) as client:
            response = await client.get()
    assert response.extensions["disco"].attempts == 4
    assert counts([sent, answers]) == [1, 1]


@pytest.mark.parametrize(("most", "attempts"), [(1, 1), (3, 3), (10, 5)])
@in_every_shell
async def test_the_policy_bounds_the_attempts_and_none_goes_where_one_went(
    shell: Shell, fleet: Fleet, most: int, attempts: int
) -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(refused_port()) for _ in range(5)]
        for port in ports:
            fleet.register(port=port)
        async with shell.client(retry=RetryPolicy(max_attempts=most)) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get()
    notes = getattr(caught.value, "__notes__", [])
    if attempts > 1:
        assert len(notes) == len({note.split()[3] for note in notes}) == attempts


@in_every_shell
async def test_the_last_outcome_is_the_caller_s_with_a_note_on_each_attempt(
    shell: Shell, fleet: Fleet
) -> None:
    with refused_port() as port:
        first = fleet.register(port=port, slot="0")
        second = fleet.add(close_unanswered(), slot="1")
        async with shell.client(balancer=BySlot()) as client:
            with pytest.raises(httpx.RemoteProtocolError, match="without sending a response") as caught:
                await client.get()
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert notes[0].startswith(f"attempt 1 at 127.0.0.1:{port} ({first.id}): ConnectError")
    assert notes[1].startswith(
        f"attempt 2 at {second.address} ({fleet.instance(second).id}): RemoteProtocolError"
    )


@in_every_shell
async def test_one_instance_that_fails_is_asked_once(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(close_unanswered())
    async with shell.client(retry=RetryPolicy(max_attempts=5, max_attempts_sent=5)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
    assert server.requests == 1


@in_every_shell
async def test_a_response_is_the_caller_s_whatever_its_status(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(), answer())
    async with shell.client(balancer=BySlot()) as client:
        for status in (404, 429, 500):
            servers[0].behaviour = answer(status=status)
            assert (await client.get()).status_code == status
    assert counts(servers) == [3, 0]


@in_every_shell
async def test_a_read_timeout_is_tried_elsewhere_for_an_idempotent_request_only(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, never(), answer())
    async with shell.client(balancer=BySlot(), timeout=httpx.Timeout(10, read=0.2)) as client:
        servers[1].behaviour = answer(delay=0.0)
        assert (await client.get()).extensions["disco"].attempts == 2
        with pytest.raises(httpx.ReadTimeout):
            await client.post()
        await shell.eventually(lambda: servers[0].connections == 0, what="what timed out is closed")
    assert counts(servers) == [2, 1]


@in_every_shell
async def test_nothing_is_tried_again_once_a_response_has_begun(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, break_off(), answer())
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="complete message body") as caught:
            await client.get()
        await shell.eventually(lambda: servers[0].connections == 0)
    assert caught.value.request.url.host == "experiment"
    assert counts(servers) == [1, 0]
    assert fleet.in_flight() == 0


@pytest.mark.parametrize(
    ("policy", "timeout"),
    [
        (RetryPolicy(connect_timeout=0.2), 30.0),
        (RetryPolicy(connect_timeout=30.0), httpx.Timeout(30.0, connect=0.2)),
    ],
    ids=["the policy's", "httpx's"],
)
@in_every_shell
async def test_connecting_is_bounded_by_the_smaller_timeout(
    shell: Shell, fleet: Fleet, policy: RetryPolicy, timeout: float | httpx.Timeout
) -> None:
    with blackhole() as port:
        fleet.register(port=port, slot="0")
        fleet.add(slot="1")
        async with shell.client(balancer=BySlot(), retry=policy, timeout=timeout) as client:
            began = time.monotonic()
            response = await client.post(content=shell.body([b"x"]))
            assert time.monotonic() - began < 10
    assert response.extensions["disco"].attempts == 2


def test_connecting_takes_the_policy_s_second_at_most_also_without_a_timeout(fleet: Fleet) -> None:
    with blackhole() as port:
        fleet.register(port=port)
        with DiscoClient("experiment", timeout=None) as client:
            began = time.monotonic()
            with pytest.raises(httpx.ConnectTimeout) as caught:
                client.get("/")
            assert 0.9 < time.monotonic() - began < 20
    assert caught.value.request.url.host == "experiment"


@in_every_shell
async def test_a_body_that_fails_is_the_caller_s_own_affair(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(), answer())
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(10):
            with pytest.raises(ValueError, match="mine"):
                await client.request("PUT", content=shell.body([b"x"], error=ValueError("mine")))
        assert await client.port() == servers[0].port
    assert not fleet.endpoint(servers[0]).is_ejected(time.monotonic())
    assert servers[1].requests == 0
    assert fleet.in_flight() == 0


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError])
@in_every_shell
async def test_a_body_that_fails_with_an_error_of_another_client_s_is_not_our_failure(
    shell: Shell, fleet: Fleet, error: type[httpx.TransportError]
) -> None:
    """A body that is read from somewhere else: that failed, and not the instance. What was sent is not sent again."""
    servers = in_order(fleet, answer(), answer())
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(6):
            with pytest.raises(error, match="elsewhere"):
                await client.post(content=shell.body([b"x"], error=error("elsewhere")))
        assert await client.port() == servers[0].port
    assert not fleet.endpoint(servers[0]).is_ejected(time.monotonic())
    assert servers[1].requests == 0


@in_every_shell
async def test_an_instance_that_dies_costs_no_idempotent_request(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(answer(b"ok", delay=0.002)) for _ in range(3)]

    async def load(client: object) -> int:
        for _ in range(60):
            assert (await client.get()).status_code == 200  # type: ignore[attr-defined]
        return 60

    async def kill() -> int:
        await shell.eventually(lambda: servers[0].requests > 5)
        fleet.servers.run(servers[0].kill())
        return 0

    async with shell.client() as client:
        done = await shell.together(*[lambda: load(client)] * 6, kill)
    assert done == [60] * 6 + [0]
    assert fleet.in_flight() == 0
