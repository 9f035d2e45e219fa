"""What is tried again, where, and how often."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient, RetryPolicy
from discoclient.model.events import AttemptEnded, BudgetExhausted
from discoclient.transport import link
from discoclient.transport.http1.async_connection import AsyncConnection
from discoclient.transport.http1.sync_connection import SyncConnection
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import Events
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import (
    Behaviour,
    Exchange,
    HttpServer,
    answer,
    blackhole,
    break_off_head,
    close_unanswered,
    echo,
    in_turn,
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


@pytest.mark.parametrize(
    ("policy", "timeout", "seconds"),
    [
        (RetryPolicy(connect_timeout=0.7), 30.0, 0.7),
        (RetryPolicy(connect_timeout=7.0), 30.0, 7.0),
        (RetryPolicy(connect_timeout=7.0), None, 7.0),
        (RetryPolicy(connect_timeout=7.0), httpx.Timeout(30.0, connect=3.0), 3.0),
        (RetryPolicy(), 30.0, 1.0),
    ],
)
@in_every_shell
async def test_a_connection_may_take_as_many_seconds_as_the_smaller_one_says(
    shell: Shell,
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    policy: RetryPolicy,
    timeout: float | httpx.Timeout | None,
    seconds: float,
) -> None:
    told: list[object] = []

    def noting(connect: Any) -> Any:
        def note(self: object, *where: Any, **options: Any) -> Any:
            told.append(options["timeout"])
            return connect(self, *where, **options)

        return note

    for backend in (link.LinkedBackend, link.AsyncLinkedBackend):
        monkeypatch.setattr(backend, "connect_tcp", noting(backend.connect_tcp))
    for connection in (SyncConnection, AsyncConnection):
        monkeypatch.setattr(connection, "open", noting(connection.open))
    fleet.add()
    async with shell.client(retry=policy, timeout=timeout) as client:
        await client.get()
    assert told == [seconds]


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

    async with shell.client(balancer="round_robin") as client:  # by which each gets a third, on any machine
        done = await shell.together(*[lambda: load(client)] * 6, kill)
    assert done == [60] * 6 + [0]
    assert fleet.in_flight() == 0


# ---- a connection that was used before, and is closed before the first byte of the answer

CLOSED = pytest.mark.parametrize("failure", [close_unanswered(), reset_unanswered()], ids=["closed", "reset"])


def used(fleet: Fleet, *then: Behaviour) -> HttpServer:
    """A server that answers one request, and does something else with each one after it. `BySlot` asks it first."""
    return fleet.add(in_turn(answer(), *then), slot="0", http_keepalive=600)


@CLOSED
@in_every_shell
async def test_a_used_connection_that_is_closed_is_replaced_by_a_new_one_to_the_same_instance(
    shell: Shell, fleet: Fleet, failure: Behaviour
) -> None:
    server, other = used(fleet, failure, answer(b"ok")), fleet.add(slot="1")
    events = Events()
    async with shell.client(balancer=BySlot(), hooks=[events]) as client:
        await client.get()
        response = await client.get()
    assert response.content == b"ok"
    assert response.extensions["disco"].attempts == 2
    assert [seen.connection for seen in server.seen] == [1, 1, 2]
    assert server.seen[-1].headers["x-disco-attempt"] == "2"
    assert other.requests == 0
    assert [event.retry for event in events.of(AttemptEnded)] == [None, "stale", None]
    assert fleet.in_flight() == 0


@pytest.mark.parametrize("method", IDEMPOTENT)
@in_every_shell
async def test_a_used_connection_is_replaced_for_every_idempotent_method(
    shell: Shell, fleet: Fleet, method: str
) -> None:
    server = used(fleet, close_unanswered(), answer())
    async with shell.client(balancer=BySlot()) as client:
        await client.get()
        assert (await client.request(method)).status_code == 200
    assert server.requests == 3


@CLOSED
@in_every_shell
async def test_a_used_connection_is_replaced_for_no_other_method_and_no_body_that_is_gone(
    shell: Shell, fleet: Fleet, failure: Behaviour
) -> None:
    other = fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        for number, method in enumerate([*OTHER, "PUT"], start=1):
            server = fleet.add(
                in_turn(answer(), failure, answer()), slot=f"0-{10 - number}", http_keepalive=600
            )
            await client.get()
            body = shell.body([b"x"]) if method == "PUT" else b"x"
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
                await client.request(method, content=body)
            assert server.requests == 2
    assert other.requests == 0
    assert fleet.in_flight() == 0


@CLOSED
@in_every_shell
async def test_a_used_connection_that_is_closed_is_not_held_against_the_instance(
    shell: Shell, fleet: Fleet, failure: Behaviour
) -> None:
    server, other = fleet.add(slot="0", http_keepalive=600), fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(10):
            server.behaviour = in_turn(answer(), failure, answer())
            await client.get()
            assert await client.port() == server.port
    assert fleet.endpoint(server).failures == 0
    assert not fleet.endpoint(server).is_ejected(time.monotonic())
    assert other.requests == 0


@in_every_shell
async def test_the_new_connection_is_new_even_if_others_are_idle(shell: Shell, fleet: Fleet) -> None:
    async def behave(exchange: Exchange) -> None:
        await (close_unanswered() if is_closing and exchange.seen.connection <= 4 else answer(delay=0.02))(
            exchange
        )

    is_closing: list[bool] = []
    server = fleet.add(behave, http_keepalive=600)
    async with shell.client() as client:
        await shell.together(*[client.get] * 4)
        opened = server.accepted
        is_closing.append(True)
        response = await client.get()
    assert response.extensions["disco"].attempts == 2
    assert server.seen[-2].connection <= opened
    assert server.seen[-1].connection == opened + 1


@in_every_shell
async def test_a_new_connection_that_is_closed_too_is_no_answer(shell: Shell, fleet: Fleet) -> None:
    """An instance that is killed: it is still there when the second attempt comes, and is gone before it answers."""
    server, other = used(fleet, close_unanswered()), fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        await client.get()
        response = await client.get()
        assert int(response.headers["x-server"]) == other.port
        assert response.extensions["disco"].attempts == 3
        assert (server.requests, other.requests) == (3, 1)
        assert fleet.endpoint(server).failures == 1
    async with shell.client(balancer=BySlot(), retry=RetryPolicy(max_attempts=2)) as client:
        server.behaviour = in_turn(answer(), close_unanswered())
        await client.get()
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get()
        assert [note.split(":")[0] for note in caught.value.__notes__] == [
            "attempt 1 at 127.0.0.1",
            "attempt 2 at 127.0.0.1",
        ]
    assert (server.requests, other.requests) == (6, 1)


@in_every_shell
async def test_if_nobody_listens_any_more_the_request_goes_elsewhere(shell: Shell, fleet: Fleet) -> None:
    async def die(exchange: Exchange) -> None:
        await exchange.server.kill()

    server, other = used(fleet, die), fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        await client.get()
        response = await client.get()
    assert response.extensions["disco"].instance == fleet.instance(other)
    assert response.extensions["disco"].attempts == 3
    assert (server.requests, other.requests) == (2, 1)


@in_every_shell
async def test_once_an_answer_has_begun_a_used_connection_is_no_excuse(shell: Shell, fleet: Fleet) -> None:
    server, other = used(fleet, break_off_head(), answer()), fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        await client.get()
        assert await client.port() == other.port
    assert (server.requests, other.requests) == (2, 1)
    assert fleet.endpoint(server).failures == 1


@in_every_shell
async def test_silence_on_a_used_connection_is_no_answer(shell: Shell, fleet: Fleet) -> None:
    server, other = used(fleet, never()), fleet.add(slot="1")
    async with shell.client(balancer=BySlot(), timeout=httpx.Timeout(20, read=0.5)) as client:
        await client.get(timeout=20)
        other.behaviour = answer(b"ok")
        assert (await client.get()).content == b"ok"
    assert (server.requests, other.requests) == (2, 1)
    assert fleet.endpoint(server).failures == 1


@in_every_shell
async def test_a_new_connection_in_place_of_a_used_one_counts_against_the_budget(
    shell: Shell, fleet: Fleet
) -> None:
    server, events = used(fleet, close_unanswered(), answer()), Events()
    policy = RetryPolicy(budget=0.0, budget_reserve=0.0)
    async with shell.client(balancer=BySlot(), retry=policy, hooks=[events]) as client:
        await client.get()
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
    assert server.requests == 2
    assert events.of(BudgetExhausted) == [BudgetExhausted("experiment", "stale")]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_the_slot_of_a_used_connection_is_free_for_the_new_one(shell: Shell, fleet: Fleet) -> None:
    server = used(fleet, close_unanswered(), answer(b"ok"))
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(20, pool=0.5)
    async with shell.client(balancer=BySlot(), limits=limits, timeout=timeout) as client:
        await client.get()
        assert (await client.get()).content == b"ok"
        assert (await client.get()).content == b"ok"
    assert server.accepted == 2
