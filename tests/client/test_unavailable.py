"""502, 503 and 504: what is tried elsewhere, what becomes of the answers that the caller does not get, and when it stops."""

from __future__ import annotations

import threading

import httpx
import pytest

from discoclient import OutlierPolicy, RetryPolicy
from discoclient.model.events import BudgetExhausted, InstanceEjected
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import IDEMPOTENT, OTHER, Events, counts, disco, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import (
    Behaviour,
    Exchange,
    answer,
    begin_and_wait,
    close_unanswered,
    echo,
    refused_port,
    trickle,
)

UNAVAILABLE = (502, 503, 504)
LONG = OutlierPolicy(base_ejection=1000.0, max_ejection=1000.0)


# ---- whom it concerns


@pytest.mark.parametrize("status", UNAVAILABLE)
@in_every_shell
async def test_an_idempotent_request_that_finds_an_instance_unavailable_is_tried_elsewhere(
    shell: Shell, fleet: Fleet, status: int
) -> None:
    servers = in_order(fleet, answer(b"no", status=status), answer(b"ok"), answer(b"ok"))
    outlier = OutlierPolicy(max_ejected=0.0)
    async with shell.client(balancer=BySlot(), outlier=outlier) as client:
        for number, method in enumerate(IDEMPOTENT, start=1):
            response = await client.request(method)
            assert response.status_code == 200
            assert response.extensions["disco"].attempts == 2
            assert response.extensions["disco"].instance == fleet.instance(servers[1])
            assert counts(servers) == [number, number, 0]
            assert [server.seen[-1].method for server in servers[:2]] == [method, method]
    assert fleet.in_flight() == 0


@pytest.mark.parametrize("status", UNAVAILABLE)
@in_every_shell
async def test_what_is_not_idempotent_gets_the_answer_that_it_got(
    shell: Shell, fleet: Fleet, status: int
) -> None:
    servers = in_order(fleet, answer(b"no", status=status), answer())
    outlier = OutlierPolicy(max_ejected=0.0)
    async with shell.client(balancer=BySlot(), outlier=outlier) as client:
        for number, method in enumerate(OTHER, start=1):
            response = await client.request(method, content=b"x")
            assert (response.status_code, response.content) == (status, b"no")
            assert response.extensions["disco"].attempts == 1
            assert counts(servers) == [number, 0]


@pytest.mark.parametrize("status", [400, 404, 408, 409, 425, 429, 500, 501, 505, 507, 511, 599])
@in_every_shell
async def test_other_answers_are_the_caller_s(shell: Shell, fleet: Fleet, status: int) -> None:
    servers = in_order(fleet, answer(b"so it is", status=status), answer())
    async with shell.client(balancer=BySlot()) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (status, b"so it is")
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_a_body_that_can_be_sent_once_gets_the_answer_that_it_got(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(b"no", status=503), answer())
    async with shell.client(balancer=BySlot()) as client:
        response = await client.request("PUT", content=shell.body([b"one", b"two"]))
    assert (response.status_code, response.content) == (503, b"no")
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_a_body_that_is_sent_again_is_the_same(shell: Shell, fleet: Fleet) -> None:
    async def refuse(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.reply(503)

    bodies: list[bytes] = []
    body = bytes(range(256)) * 1000
    in_order(fleet, refuse, echo())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.request("PUT", content=body)).content == body
    assert bodies == [body]


# ---- how often


@in_every_shell
async def test_at_most_two_are_sent_and_the_last_answer_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(b"one", status=503), answer(b"two", status=502), answer(b"three"))
    async with shell.client(balancer=BySlot()) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (502, b"two")
    assert response.extensions["disco"].attempts == 2
    assert response.extensions["disco"].instance == fleet.instance(servers[1])
    assert counts(servers) == [1, 1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_how_many_are_sent_is_the_policy_s_to_say(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, *[answer(status=503)] * 4, answer(b"at last"))
    policy = RetryPolicy(max_attempts=9, max_attempts_sent=5)
    async with shell.client(balancer=BySlot(), retry=policy) as client:
        assert (await client.get()).content == b"at last"
    assert counts(servers) == [1, 1, 1, 1, 1]


@in_every_shell
async def test_a_request_may_ask_for_no_retry(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(b"no", status=503), answer())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get(**disco(retries=0))).content == b"no"
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_with_nobody_else_to_ask_the_answer_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(b"no", status=503))
    async with shell.client(retry=RetryPolicy(max_attempts=9, max_attempts_sent=9)) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (503, b"no")
    assert server.requests == 1
    assert fleet.in_flight() == 0


@in_every_shell
async def test_different_failures_of_one_call_add_up(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port, slot="")
        servers = in_order(fleet, answer(status=503), answer(b"ok"))
        async with shell.client(balancer=BySlot()) as client:
            response = await client.get()
    assert response.content == b"ok"
    assert response.extensions["disco"].attempts == 3
    assert counts(servers) == [1, 1]


@in_every_shell
async def test_an_error_after_an_answer_tells_of_both(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(status=503), close_unanswered(), answer())
    ids = [fleet.instance(server).id for server in servers]
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get()
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert notes[0] == f"attempt 1 at {servers[0].address} ({ids[0]}): status 503"
    assert notes[1].startswith(f"attempt 2 at {servers[1].address} ({ids[1]}): RemoteProtocolError")
    assert counts(servers) == [1, 1, 0]


@in_every_shell
async def test_an_answer_after_an_error_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), answer(b"no", status=504), answer())
    async with shell.client(balancer=BySlot()) as client:
        response = await client.get()
    assert (response.status_code, response.content) == (504, b"no")
    assert counts(servers) == [1, 1, 0]


@in_every_shell
async def test_without_a_budget_nothing_is_tried_again_and_somebody_is_told(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, answer(b"no", status=503), answer())
    events = Events()
    policy = RetryPolicy(budget=0.0, budget_reserve=0.0)
    async with shell.client(balancer=BySlot(), retry=policy, hooks=[events]) as client:
        assert (await client.get()).content == b"no"
        assert client.raw.stats()["budget_exhausted"] == 1
        assert client.raw.stats()["retries"] == 0
    assert events.of(BudgetExhausted) == [BudgetExhausted("experiment", "unavailable")]
    assert counts(servers) == [1, 0]
    assert fleet.in_flight() == 0


@pytest.mark.parametrize(
    ("policy", "retries"),
    [
        (RetryPolicy(budget=0.0, budget_reserve=0.3), 3),  # a second, over ten
        (RetryPolicy(budget=0.5, budget_reserve=0.0), 5),
        (RetryPolicy(), 10),
    ],
    ids=["the reserve", "the share", "the defaults"],
)
@in_every_shell
async def test_the_budget_is_for_all_calls_together(
    shell: Shell, fleet: Fleet, policy: RetryPolicy, retries: int
) -> None:
    servers = in_order(fleet, answer(status=503), answer())
    outlier = OutlierPolicy(max_ejected=0.0)
    async with (
        shell.client(balancer=BySlot(), outlier=outlier, retry=policy) as client,
        shell.client(balancer=BySlot(), outlier=outlier, retry=policy) as twin,
    ):
        for number in range(10):
            await (twin if number % 2 else client).get()
    assert counts(servers) == [10, retries]


# ---- who failed


@in_every_shell
async def test_an_instance_that_fails_fast_is_left_alone_after_five_requests(
    shell: Shell, fleet: Fleet
) -> None:
    """A failure takes no time, so by load alone it would look like the best of all."""
    events = Events()
    bad = fleet.add(answer(status=503), slot="bad")
    good = [fleet.add(answer(b"ok", delay=0.001)) for _ in range(3)]
    async with shell.client(outlier=LONG, hooks=[events]) as client:
        for _ in range(100):
            assert (await client.get()).content == b"ok"
    assert bad.requests <= 5
    assert sum(counts(good)) == 100
    if bad.requests == 5:
        assert [event.instance for event in events.of(InstanceEjected)] == [fleet.instance(bad)]


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [(OutlierPolicy(max_ejected=0.0, max_ejection=1000.0), 20, 40), (LONG, 5, 5)],
    ids=["off", "on"],
)
@in_every_shell
async def test_without_ejection_it_would_be_asked_again_and_again(
    shell: Shell, fleet: Fleet, policy: OutlierPolicy, least: int, most: int
) -> None:
    """The negative control, by a balancer that knows nothing of load."""
    bad, good = fleet.add(answer(status=503)), fleet.add(answer(b"ok"))
    async with shell.client(balancer="round_robin", outlier=policy) as client:
        for _ in range(40):
            assert (await client.get()).content == b"ok"
    assert least <= bad.requests <= most
    assert good.requests == 40


# ---- the answers that nobody gets


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", [0, 1, 4096])
@in_every_shell
async def test_after_a_short_answer_that_the_caller_does_not_get_its_connection_is_used_again(
    shell: Shell, fleet: Fleet, length: int, method: str
) -> None:
    servers = in_order(fleet, answer(bytes(length), status=503), answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(3):
            assert (await client.request(method)).status_code == 200
        assert (servers[0].requests, servers[0].accepted, servers[0].connections) == (3, 1, 1)
    assert fleet.in_flight() == 0


@pytest.mark.parametrize(
    "behaviour",
    [answer(bytes(2_000_000), status=503), trickle(503), begin_and_wait(503, length=1_000_000)],
    ids=["long", "endless", "not coming"],
)
@in_every_shell
async def test_the_connection_of_a_long_answer_that_the_caller_does_not_get_is_closed(
    shell: Shell, fleet: Fleet, behaviour: Behaviour
) -> None:
    servers = in_order(fleet, behaviour, answer(b"ok"))
    async with shell.client(balancer=BySlot(), timeout=None) as client:
        for number in range(1, 4):
            assert (await client.get()).content == b"ok"
            assert servers[0].accepted == number
        await shell.eventually(lambda: servers[0].connections == 0, what="the server sees them close")
    assert fleet.in_flight() == 0


@in_every_shell
async def test_an_answer_that_the_caller_does_not_get_holds_up_nobody(shell: Shell, fleet: Fleet) -> None:
    """Its length says that it is short, and the rest of it does not come."""
    is_asked, is_over = threading.Event(), threading.Event()

    async def second(exchange: Exchange) -> None:
        is_asked.set()
        await exchange.reply(200, b"ok")

    in_order(fleet, begin_and_wait(503, length=10, part=b"so f", is_over=is_over.is_set), second)
    was_asked: list[bool] = []

    def wait() -> None:
        was_asked.append(is_asked.wait(3))
        is_over.set()

    waiter = threading.Thread(target=wait)
    try:
        async with shell.client(balancer=BySlot(), timeout=None) as client:
            waiter.start()
            assert (await client.get()).content == b"ok"
    finally:
        is_asked.set()
        waiter.join()
    assert was_asked == [True], "the second instance was asked only when the first one had gone on"


@in_every_shell
async def test_an_answer_that_breaks_off_as_it_is_thrown_away_is_of_no_interest(
    shell: Shell, fleet: Fleet
) -> None:
    async def break_off(exchange: Exchange) -> None:
        await exchange.begin(503, {"content-length": "10"})
        await exchange.write(b"so f")
        exchange.close()

    servers = in_order(fleet, break_off, answer(b"ok"))
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.get()).content == b"ok"
        await shell.eventually(lambda: servers[0].connections == 0)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_an_answer_that_is_thrown_away_gives_its_slot_back(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(bytes(100_000), status=503), answer(b"ok"))
    limits = httpx.Limits(max_connections=1)
    timeout = httpx.Timeout(20, pool=0.5)
    async with shell.client(balancer=BySlot(), limits=limits, timeout=timeout) as client:
        for _ in range(5):
            assert (await client.get()).content == b"ok"
    assert servers[0].most_open <= 2  # the server may see the end of one after the beginning of the next
    eventually(lambda: fleet.in_flight() == 0)


@in_every_shell
async def test_the_body_of_the_last_answer_is_there_to_be_streamed(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(bytes(100_000), status=503), answer(bytes(300_000), status=503))
    async with shell.client(balancer=BySlot()) as client, client.stream() as response:
        assert response.status_code == 503
        assert fleet.in_flight() == 1
        assert fleet.endpoint(servers[1]).in_flight == 1
        assert b"".join([part async for part in client.parts(response)]) == bytes(300_000)
    assert fleet.in_flight() == 0
