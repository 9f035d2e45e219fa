"""Refusing here: what the service would refuse anyway (`ThrottlePolicy`), and what would crush its first instances that are
back (`RecoveryPolicy`). Time is the test's."""

from __future__ import annotations

import httpx
import pytest

from discoclient import (
    DiscoError,
    NoInstances,
    OutlierPolicy,
    RecoveryPolicy,
    RoutingError,
    State,
    Throttled,
    ThrottlePolicy,
)
from discoclient.model.events import CallEnded, RequestThrottled
from tests.client.fleet import Fleet
from tests.client.scenes import DecisionClock, Events, disco
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import answer, close_unanswered, refused_port

NEVER_EJECTED = OutlierPolicy(max_ejected=0.0)
NO_RETRY = disco(retries=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DecisionClock:
    return DecisionClock(monkeypatch, is_frozen=True)


async def outcomes(client: Face, calls: int) -> list[int | str]:
    """The status of each call, or the name of its error."""
    found: list[int | str] = []
    for _ in range(calls):
        try:
            found.append((await client.get(**NO_RETRY)).status_code)
        except (httpx.TransportError, DiscoError) as error:
            found.append(type(error).__name__)
    return found


# ---- a service that refuses most requests


@pytest.mark.parametrize("status", [503, 429])
@in_every_shell
async def test_what_the_service_refuses_is_refused_here_before_long(
    shell: Shell, fleet: Fleet, clock: DecisionClock, status: int
) -> None:
    server = fleet.add(answer(status=status))
    async with shell.client(throttle=ThrottlePolicy()) as client:
        assert await outcomes(client, 40) == [status] * 40  # all sent at once, as it were
        clock.advance(5.0)
        found = await outcomes(client, 60)
        assert client.raw.stats()["throttled"] == found.count("Throttled")
        assert client.raw.stats()["requests"] == 40 + found.count(status)
    assert set(found) == {
        "Throttled",
        status,
    }  # with 0.9: 60 of a kind are less likely than once in a thousand
    assert found.count("Throttled") > 30
    assert server.requests == 40 + found.count(status)


@in_every_shell
async def test_a_service_that_does_not_answer_is_one_that_refuses(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    server = fleet.add(close_unanswered())
    async with shell.client(throttle=ThrottlePolicy()) as client:
        await outcomes(client, 40)
        clock.advance(5.0)
        found = await outcomes(client, 60)
    assert found.count("Throttled") > 30
    assert server.requests == 100 - found.count("Throttled")


@in_every_shell
async def test_without_the_policy_everything_is_sent(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    """The negative control."""
    server = fleet.add(answer(status=503))
    async with shell.client() as client:
        await outcomes(client, 40)
        clock.advance(5.0)
        assert await outcomes(client, 60) == [503] * 60
        assert "throttled" not in client.raw.stats()
    assert server.requests == 100


@pytest.mark.parametrize("status", [200, 404, 500, 502, 504])
@in_every_shell
async def test_what_was_taken_on_is_not_refused_whatever_became_of_it(
    shell: Shell, fleet: Fleet, clock: DecisionClock, status: int
) -> None:
    fleet.add(answer(status=status))
    async with shell.client(throttle=ThrottlePolicy()) as client:
        await outcomes(client, 40)
        clock.advance(5.0)
        assert await outcomes(client, 60) == [status] * 60


@in_every_shell
async def test_a_service_that_takes_half_of_them_is_left_that(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    """The ratio is 2: what it refuses may be as much as what it takes."""
    server = fleet.add()
    async with shell.client(throttle=ThrottlePolicy(), balancer="round_robin") as client:
        for number in range(40):
            server.behaviour = answer(status=(200, 503)[number % 2])
            await client.get(**NO_RETRY)
        clock.advance(5.0)
        server.behaviour = answer()
        assert await outcomes(client, 30) == [200] * 30


@pytest.mark.parametrize(
    ("policy", "is_refused"),
    [
        (ThrottlePolicy(max_probability=0.0), False),
        (ThrottlePolicy(max_probability=1.0), True),
        (ThrottlePolicy(ratio=1e9), False),
        (ThrottlePolicy(window=4.0), False),
        (ThrottlePolicy(window=20.0), True),
    ],
    ids=["never", "for certain", "a patient ratio", "a short window", "a long window"],
)
@in_every_shell
async def test_the_throttle_is_as_it_is_set(
    shell: Shell, fleet: Fleet, clock: DecisionClock, policy: ThrottlePolicy, is_refused: bool
) -> None:
    server = fleet.add()
    async with shell.client(throttle=policy) as client:
        await client.get()
        server.behaviour = answer(status=503)
        await outcomes(client, 30)
        clock.advance(8.0)
        assert ("Throttled" in await outcomes(client, 60)) is is_refused


@in_every_shell
async def test_who_is_refused_is_told_why_and_nothing_is_sent(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    events = Events()
    server = fleet.add(answer(status=503))
    async with shell.client(throttle=ThrottlePolicy(max_probability=1.0), hooks=[events]) as client:
        await outcomes(client, 200)
        clock.advance(5.0)
        sent = server.requests
        with pytest.raises(Throttled, match=r"'experiment' refuses most requests of late") as caught:
            for _ in range(20):
                events.all.clear()
                await client.post(content=b"x")
    assert isinstance(caught.value, RoutingError | httpx.TransportError)
    assert caught.value.request.method == "POST"
    assert server.requests - sent <= 19
    assert events.names == ["CallStarted", "RequestThrottled", "CallEnded"]
    (throttled,) = events.of(RequestThrottled)
    assert (throttled.service, throttled.policy) == ("experiment", "throttle")
    assert 0.9 < throttled.probability <= 1.0
    (ended,) = events.of(CallEnded)
    assert (ended.attempts, ended.status, ended.error, ended.instance) == (0, None, "Throttled", None)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_what_is_refused_here_costs_no_retry_and_is_not_tried_again(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    one, other = fleet.add(answer(status=503)), fleet.add(answer(status=503))
    policy = ThrottlePolicy(max_probability=1.0)
    async with shell.client(throttle=policy, outlier=NEVER_EJECTED) as client:
        await outcomes(client, 200)
        clock.advance(60.0)
        assert one.requests + other.requests == 200
        found = 0
        for _ in range(30):
            try:
                await client.get()
            except Throttled:
                found += 1
        stats = client.raw.stats()
        assert found == stats["throttled"] > 20
        assert one.requests + other.requests == stats["requests"] + stats["retries"]


# ---- a service that comes back


def recovery(**options: float) -> RecoveryPolicy:
    return RecoveryPolicy(min_working=4, **{"hold": 1000.0, **options})


@in_every_shell
async def test_after_an_outage_the_first_instance_gets_only_its_part(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    events = Events()
    async with shell.client(recovery=recovery(), hooks=[events]) as client:
        with pytest.raises(NoInstances):
            await client.get()
        first = fleet.add()
        found = await outcomes(client, 80)
        assert 4 <= found.count(200) <= 40  # a quarter of 80
        assert found.count(200) + found.count("Throttled") == 80
        assert first.requests == found.count(200)
        assert {(event.policy, event.probability) for event in events.of(RequestThrottled)} == {
            ("recovery", 0.75)
        }
        for _ in range(3):
            fleet.add()
        assert await outcomes(client, 40) == [200] * 40


@in_every_shell
async def test_without_the_policy_it_gets_everything(shell: Shell, fleet: Fleet) -> None:
    """The negative control."""
    async with shell.client() as client:
        with pytest.raises(NoInstances):
            await client.get()
        first = fleet.add()
        assert await outcomes(client, 40) == [200] * 40
    assert first.requests == 40


@in_every_shell
async def test_without_an_outage_before_few_instances_are_no_reason(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    async with shell.client(recovery=recovery()) as client:
        assert await outcomes(client, 40) == [200] * 40


@in_every_shell
async def test_when_their_number_has_held_this_is_the_fleet_there_is(
    shell: Shell, fleet: Fleet, clock: DecisionClock
) -> None:
    async with shell.client(recovery=recovery(hold=300.0)) as client:
        with pytest.raises(NoInstances):
            await client.get()
        fleet.add()
        assert "Throttled" in await outcomes(client, 60)
        clock.advance(301.0)
        assert await outcomes(client, 40) == [200] * 40


@in_every_shell
async def test_while_none_is_there_the_caller_is_told_just_that(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client(recovery=recovery()) as client:
        fleet.drain(server)
        assert await outcomes(client, 20) == ["NoInstances"] * 20


@in_every_shell
async def test_an_instance_that_is_not_ready_is_not_back(shell: Shell, fleet: Fleet) -> None:
    async with shell.client(recovery=recovery()) as client:
        with pytest.raises(NoInstances):
            await client.get()
        fleet.add(state=State.UNREADY)
        assert (
            await outcomes(client, 40) == [200] * 40
        )  # nobody is there to be protected, and so it fails open


@in_every_shell
async def test_both_policies_go_together(shell: Shell, fleet: Fleet, clock: DecisionClock) -> None:
    with refused_port() as port:
        fleet.register(port=port)
        fleet.add()
        async with shell.client(recovery=recovery(), throttle=ThrottlePolicy()) as client:
            for _ in range(60):
                assert (await client.get()).status_code == 200
            clock.advance(5.0)
            for _ in range(60):
                assert (await client.get()).status_code == 200
            assert "throttled" not in client.raw.stats()
