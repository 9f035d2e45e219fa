"""Hedging: a request that is late is sent to a second instance too, the first good answer counts, and the other one is let go.

Whether a request is late is decided by a clock that the test sets; what is then waited for is real, and short.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from random import Random
from typing import Any

import anyio
import httpx
import pytest

from discoclient import (
    DeadlineExceeded,
    Endpoint,
    HedgePolicy,
    RetryPolicy,
)
from discoclient.model.events import AttemptEnded, AttemptStarted, CallEnded
from discoclient.transport.attempts import Attempts
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import OTHER, DecisionClock, Events, counts, disco, in_order
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.eventually import eventually_async
from tests.support.servers import (
    Behaviour,
    HttpServer,
    answer,
    blackhole,
    break_off,
    close_unanswered,
    hold,
    in_turn,
    never,
    refused_port,
    stream,
)

LATE = 0.02
"""Seconds after which a request is late here."""
PRIMED = 20
"""Requests whose time is known."""
REFRESH = 1.5
"""Seconds after which what was learnt is looked at again."""


def policy(**options: Any) -> HedgePolicy:
    return HedgePolicy(**{"budget": 1.0, "min_delay": LATE, "min_samples": 1, **options})


class Stage:
    """A slow server that is asked first, a fast one after it, and a client that knows how long requests take."""

    def __init__(self, shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell = shell
        self.fleet = fleet
        self.clock = DecisionClock(monkeypatch, ahead=-REFRESH)
        self.servers: list[HttpServer] = []

    def set(self, *behaviours: Behaviour, **fields: Any) -> list[HttpServer]:
        """The servers; the last one is fast at first, so that it can be told how long requests take."""
        self.servers = in_order(self.fleet, *behaviours, **fields)
        return self.servers

    def client(self, hedge: HedgePolicy | None = None, **options: Any) -> Face:
        hedge = hedge or policy()
        return self.shell.client(**{"balancer": BySlot(), "timeout": None, "hedge": hedge, **options})

    async def prime(self, client: Face, *, requests: int = PRIMED, by: HttpServer | None = None) -> None:
        """Have *client* see *requests* of them answered, fast, *by* the last server."""
        server = by or self.servers[-1]
        others = [id for id, each in self.fleet.handle.resolver("experiment").endpoints.items()]
        others.remove(self.fleet.instance(server).id)
        behaviour, server.behaviour = server.behaviour, answer()
        for _ in range(requests):
            await client.get(**disco(exclude=others))
        server.behaviour = behaviour
        server.seen.clear()
        self.clock.advance(REFRESH)


@pytest.fixture
def stage(shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(shell, fleet, monkeypatch)


# ---- the slow one is overtaken


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@in_every_shell
async def test_a_request_that_is_late_is_answered_by_somebody_else(
    shell: Shell, fleet: Fleet, stage: Stage, method: str
) -> None:
    # Not before the other one was reached, so that both were: on a busy machine to connect may take longer than to be late.
    is_reached = hold(lambda: bool(stage.servers[0].requests), answer(b"fast"))
    slow, fast = stage.set(never(), is_reached)
    async with stage.client() as client:
        await stage.prime(client)
        response = await client.request(method, content=b"x" if method == "PUT" else None)
        assert response.extensions["disco"].instance == fleet.instance(fast)
        assert counts([slow, fast]) == [1, 1]
        assert [seen.method for seen in (slow.seen[0], fast.seen[0])] == [method, method]
        assert "x-disco-attempt" not in slow.seen[0].headers
        assert fast.seen[0].headers["x-disco-attempt"] == "2"
        assert fast.seen[0].headers["x-disco-expect"] == f"experiment/{fleet.instance(fast).id}"
        await shell.eventually(lambda: slow.connections == 0, what="the loser's connection is closed")
        assert fast.connections == 1
        assert fleet.in_flight() == 0
        stats = client.raw.stats()
        assert (stats["hedges"], stats["retries"], stats["requests"]) == (1, 0, PRIMED + 1)
    assert fleet.endpoint(slow).failures == 0


@in_every_shell
async def test_without_hedging_it_waits(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    """The negative control."""
    slow, fast = stage.set(never(), answer(b"fast"))
    async with shell.client(balancer=BySlot(), timeout=httpx.Timeout(20, read=20 * LATE)) as client:
        await stage.prime(client)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(**disco(retries=0))
        assert "hedges" not in client.raw.stats()
    assert counts([slow, fast]) == [1, 0]


@in_every_shell
async def test_the_one_that_was_late_is_known_to_be_slow(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    slow, _fast = stage.set(never(), answer(b"fast"))
    async with stage.client() as client:
        await stage.prime(client)
        await client.get()
        now = stage.clock.now()
    assert fleet.endpoint(slow).latency(now) > LATE / 2


@in_every_shell
async def test_the_body_of_the_one_that_won_is_read_as_any_other(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, _ = stage.set(never(), stream([b"a" * 100_000, b"b" * 100_000], pause=0.02))
    async with stage.client() as client:
        await stage.prime(client)
        async with client.stream() as response:
            assert fleet.in_flight() == 1
            assert (
                b"".join([part async for part in client.parts(response)]) == b"a" * 100_000 + b"b" * 100_000
            )
        await shell.eventually(lambda: slow.connections == 0)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_the_first_one_wins_if_it_answers_first_after_all(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, fast = stage.set(answer(b"slow"), never())
    slow.behaviour = hold(lambda: fast.requests > 0, answer(b"slow"))
    async with stage.client() as client:
        await stage.prime(client)
        response = await client.get()
        assert response.content == b"slow"
        assert response.extensions["disco"].instance == fleet.instance(slow)
        assert counts([slow, fast]) == [1, 1]
        await shell.eventually(lambda: fast.connections == 0)
        assert slow.connections == 1
    assert fleet.in_flight() == 0


@in_every_shell
async def test_one_that_can_not_be_connected_to_is_overtaken_too(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    with blackhole() as port:
        instance = fleet.register(port=port, slot="")
        (fast,) = stage.set(answer(b"fast"))
        async with stage.client(retry=RetryPolicy(connect_timeout=30.0)) as client:
            await stage.prime(client)
            assert (await client.get()).content == b"fast"
            assert fleet.in_flight() == 0
        endpoint = fleet.handle.resolver("experiment").endpoints[instance.id]
    assert endpoint.requests == 1
    assert fast.requests == 1


# ---- when nothing is hedged


@in_every_shell
async def test_what_is_not_idempotent_is_never_hedged(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    slow, fast = stage.set(answer(b"slow", delay=6 * LATE), answer(b"fast"))
    async with stage.client() as client:
        await stage.prime(client)
        for method in OTHER:
            assert (await client.request(method, content=b"x")).content == b"slow"
        assert "hedges" not in client.raw.stats()
    assert counts([slow, fast]) == [len(OTHER), 0]


@in_every_shell
async def test_a_body_that_can_be_sent_once_is_never_hedged(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    slow, fast = stage.set(answer(b"slow", delay=6 * LATE), answer(b"fast"))
    async with stage.client() as client:
        await stage.prime(client)
        assert (await client.request("PUT", content=shell.body([b"x"]))).content == b"slow"
    assert counts([slow, fast]) == [1, 0]


@pytest.mark.parametrize(
    "hedge",
    [
        policy(min_samples=PRIMED + 2),
        policy(min_delay=30.0),
        policy(budget=0.0),
        policy(percentile=1.0, min_delay=0.0),
    ],
    ids=["too little known", "not late yet", "no budget", "others were later"],
)
@in_every_shell
async def test_the_policy_says_when(shell: Shell, fleet: Fleet, stage: Stage, hedge: HedgePolicy) -> None:
    slow, fast = stage.set(answer(b"slow", delay=6 * LATE), answer(b"fast"))
    async with stage.client(hedge) as client:
        if hedge.percentile == 1.0:  # one that took far longer than all others
            slow.behaviour = answer(delay=0.5)
            await client.get()
            slow.behaviour = answer(b"slow", delay=6 * LATE)
            slow.seen.clear()
        await stage.prime(client)
        assert (await client.get()).content == b"slow"
        assert "hedges" not in client.raw.stats()
    assert counts([slow, fast]) == [1, 0]


@in_every_shell
async def test_most_requests_decide_what_is_late_and_not_the_latest(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    """The same as above but for the percentile."""
    slow, fast = stage.set(answer(delay=0.5), answer(b"fast"))
    async with stage.client(policy(percentile=0.5, min_delay=0.0)) as client:
        await client.get()
        slow.behaviour = hold(lambda: fast.requests > 0)
        slow.seen.clear()
        await stage.prime(client)
        await client.get()
        assert client.raw.stats()["hedges"] == 1
    assert counts([slow, fast]) == [1, 1]


@in_every_shell
async def test_at_most_a_share_of_the_requests_is_hedged(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    slow, fast = stage.set(answer(b"slow", delay=4 * LATE), answer(b"fast", delay=8 * LATE))
    async with stage.client(policy(budget=0.1)) as client:
        await stage.prime(client)
        for _ in range(5):
            assert (await client.get()).content == b"slow"
        assert client.raw.stats()["hedges"] == 2  # of 25
        assert client.raw.stats()["retries"] == 0
        await shell.eventually(lambda: counts([slow, fast]) == [5, 2])
    assert fleet.in_flight() == 0


@in_every_shell
async def test_with_nobody_else_there_it_waits(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    (only,) = stage.set(answer())
    async with stage.client() as client:
        await stage.prime(client)
        only.behaviour = answer(b"in the end", delay=4 * LATE)
        assert (await client.get()).content == b"in the end"
    assert only.requests == 1


@in_every_shell
async def test_excluded_instances_and_other_versions_are_not_asked_either(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, fast = stage.set(answer(b"slow", delay=6 * LATE), answer(b"fast"), version="1")
    fleet.add(answer(b"other"), slot="9", version="2")
    async with stage.client() as client:
        await stage.prime(client, by=fast)
        options = disco(exclude=[fleet.instance(fast).id], version="1")
        assert (await client.get(**options)).content == b"slow"
    assert counts([slow, fast]) == [1, 0]


# ---- when one of them fails


@pytest.mark.parametrize("failure", [close_unanswered(), answer(b"no", status=503)], ids=["closed", "503"])
@in_every_shell
async def test_one_that_fails_in_time_is_simply_tried_again(
    shell: Shell, fleet: Fleet, stage: Stage, failure: Behaviour
) -> None:
    slow, fast = stage.set(failure, answer(b"fast"))
    async with stage.client(policy(min_delay=30.0)) as client:
        await stage.prime(client)
        assert (await client.get()).content == b"fast"
        assert client.raw.stats()["retries"] == 1
    assert counts([slow, fast]) == [1, 1]
    assert fleet.in_flight() == 0


@pytest.mark.parametrize("failure", [close_unanswered(), answer(b"no", status=503)], ids=["closed", "503"])
@in_every_shell
async def test_a_second_one_that_fails_leaves_the_first_one_its_time(
    shell: Shell, fleet: Fleet, stage: Stage, failure: Behaviour
) -> None:
    slow, bad, good = stage.set(answer(), failure, answer(b"good"))
    slow.behaviour = hold(lambda: fleet.endpoint(bad).failures > 0, answer(b"slow"))
    async with stage.client() as client:
        await stage.prime(client)
        assert (await client.get()).content == b"slow"
        assert fleet.endpoint(bad).failures == 1
    assert counts([slow, bad, good]) == [1, 1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_first_one_that_fails_late_leaves_the_second_one_its_time(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, second, third = stage.set(answer(), answer(), answer(b"third"))
    slow.behaviour = hold(lambda: second.requests > 0, close_unanswered())
    second.behaviour = hold(lambda: fleet.endpoint(slow).failures > 0, answer(b"second"))
    async with stage.client() as client:
        await stage.prime(client)
        assert (await client.get()).content == b"second"
    assert counts([slow, second, third]) == [1, 1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_when_both_fail_two_were_sent_and_the_error_tells_of_both(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, second, third = stage.set(answer(), close_unanswered(), answer(b"third"))
    slow.behaviour = hold(lambda: fleet.endpoint(second).failures > 0, close_unanswered())
    ids = {fleet.instance(server).id for server in (slow, second)}
    async with stage.client() as client:
        await stage.prime(client)
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get()
        assert counts([slow, second, third]) == [1, 1, 0]
        assert fleet.in_flight() == 0
    notes = getattr(caught.value, "__notes__", [])
    assert {id for id in ids if any(id in note for note in notes)} == ids


@in_every_shell
async def test_after_a_race_that_nobody_won_the_next_attempt_is_the_third(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    """Of the first nothing was sent, so one more may be."""
    events = Events()
    with blackhole() as port:
        fleet.register(port=port, slot="")
        second, third = stage.set(answer(status=503), answer(b"third"))
        async with stage.client(retry=RetryPolicy(connect_timeout=0.3), hooks=[events]) as client:
            await stage.prime(client)
            events.all.clear()
            response = await client.get()
    assert response.content == b"third"
    assert [event.number for event in events.of(AttemptStarted)] == [1, 2, 3]
    assert third.seen[0].headers["x-disco-attempt"] == "3"
    assert response.extensions["disco"].attempts == 3
    assert counts([second, third]) == [1, 1]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_race_counts_for_the_attempts_that_the_policy_allows(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    with blackhole() as port, refused_port() as refused:
        fleet.register(port=port, slot="")
        fleet.register(port=refused, slot="0")
        last = fleet.add(slot="1")
        (_,) = stage.set(answer(b"primes"))
        retry = RetryPolicy(max_attempts=2, connect_timeout=0.3)
        async with stage.client(retry=retry) as client:
            await stage.prime(client)
            with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
                await client.get()
    assert last.requests == 0
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_balancer_s_own_error_is_the_caller_s_and_leaves_nothing(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, _ = stage.set(never(), answer())
    async with stage.client(balancer=FailingSecond()) as client:
        await stage.prime(client)
        with pytest.raises(ZeroDivisionError, match="not twice"):
            await client.get()
        await shell.eventually(lambda: slow.connections == 0)
    assert fleet.in_flight() == 0


class FailingSecond:
    """Fails when one was tried, and there is another."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> FailingSecondPicker:
        return FailingSecondPicker(sorted(endpoints, key=lambda endpoint: endpoint.instance.slot))


class FailingSecondPicker:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        if self._endpoints[0].in_flight:
            raise ZeroDivisionError("not twice")
        return next((endpoint for endpoint in self._endpoints if endpoint.id not in tried), None)


@in_every_shell
async def test_a_body_of_the_winner_that_breaks_off_makes_no_third_request(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    """Two may have reached an instance by then: the one that was broken off counts."""
    is_reached = hold(lambda: bool(stage.servers[0].requests), break_off())
    slow, broken_off, third = stage.set(never(), is_reached, answer(b"whole"))
    async with stage.client() as client:
        await stage.prime(client)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
        await shell.eventually(lambda: slow.connections == 0)
    assert counts([slow, broken_off, third]) == [1, 1, 0]
    assert fleet.in_flight() == 0


class Unlucky(Exception):
    pass


@pytest.mark.parametrize("which", [0, 1])
@in_every_shell
async def test_what_fails_in_an_attempt_and_should_not_is_the_caller_s_as_it_is(
    shell: Shell, fleet: Fleet, stage: Stage, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """In whichever of the two: the caller does not wait for ever, and is not given a group of one."""
    slow, fast = stage.set(never(), never())
    async with stage.client() as client:
        await stage.prime(client)
        bad = fleet.endpoint((slow, fast)[which])
        answered = Attempts.headers

        def headers(attempts: Any, send: Any) -> Any:
            if send.endpoint is bad:
                raise Unlucky("a bug")
            return answered(attempts, send)

        monkeypatch.setattr(Attempts, "headers", headers)
        monkeypatch.setattr("discoclient.transport.attempts.classify", broken)
        with pytest.raises(Unlucky, match="a bug"):
            await client.get()
        await shell.eventually(lambda: slow.connections == 0)
    assert fleet.in_flight() == 0


def broken(error: Exception, *args: Any, **kwargs: Any) -> Any:
    raise error


# ---- when it ends before anybody won


@in_every_shell
async def test_both_are_given_up_at_the_deadline(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    servers = stage.set(never(), never(), answer())
    async with stage.client() as client:
        await stage.prime(client)
        with pytest.raises(DeadlineExceeded):
            await client.get(**disco(deadline=1.0))
        assert counts(servers) == [1, 1, 0]
        assert fleet.in_flight() == 0
        await shell.eventually(lambda: [server.connections for server in servers[:2]] == [0, 0])


@in_every_shell
async def test_httpx_s_timeout_is_for_each_of_them(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    servers = stage.set(never(), never(), answer())
    async with stage.client(timeout=httpx.Timeout(20, read=0.5)) as client:
        await stage.prime(client)
        with pytest.raises(httpx.ReadTimeout):
            await client.get()
        assert counts(servers) == [1, 1, 0]
        assert fleet.in_flight() == 0
        await shell.eventually(lambda: [server.connections for server in servers[:2]] == [0, 0])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_caller_that_is_cancelled_leaves_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    stage = Stage(Shell(backend), fleet, monkeypatch)
    servers = stage.set(never(), never(), answer())

    async def main() -> None:
        async with stage.client() as client:
            await stage.prime(client)
            for number in range(1, 6):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get)
                    await eventually_async(lambda: counts(servers) == [number, number, 0])  # noqa: B023
                    tasks.cancel_scope.cancel()
                assert fleet.in_flight() == 0
            await eventually_async(lambda: [server.connections for server in servers[:2]] == [0, 0])

    anyio.run(main, backend=backend)


def test_the_threads_of_a_sync_race_end_with_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Shell("sync"), fleet, monkeypatch)
    slow, fast = stage.set(never(), answer(b"fast"))

    async def case() -> None:
        async with stage.client() as client:
            await stage.prime(client)
            for _ in range(5):
                assert (await client.get()).content == b"fast"
            await stage.shell.eventually(lambda: _racers() == [], what="no thread of a race is left")

    stage.shell.run(case)
    assert counts([slow, fast]) == [5, 5]


def _racers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "discoclient-hedge"]


@in_every_shell
async def test_what_waits_for_a_connection_when_the_race_is_over_is_not_sent(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    is_over = threading.Event()
    slow, fast = stage.set(answer(), answer(b"fast"))
    timeout = httpx.Timeout(20, pool=5.0)
    async with stage.client(limits=httpx.Limits(max_connections=1), timeout=timeout) as client:
        await stage.prime(client)
        slow.behaviour = in_turn(stream([b"first", b"last"], wait=is_over.is_set), answer())
        held = await client.open(**disco(exclude=[fleet.instance(fast).id]))
        assert (await client.get()).content == b"fast"  # while our only connection to the slow one is taken
        assert counts([slow, fast]) == [1, 1]
        is_over.set()
        assert await client.read(held) == b"firstlast"
        for _ in range(3):
            await client.get(**disco(exclude=[fleet.instance(fast).id]))
        await shell.eventually(lambda: _racers() == [])
        assert counts([slow, fast]) == [4, 1], "what was given up was sent all the same"
    assert fleet.in_flight() == 0


# ---- many at once, and what hooks see


@in_every_shell
async def test_under_load_nothing_is_lost_and_nothing_is_left(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    slow, _ = stage.set(answer(b"slow", delay=3 * LATE), answer(b"fast", delay=0.001))
    async with stage.client(balancer="round_robin", hedge=policy()) as client:
        await stage.prime(client)

        async def load() -> int:
            for _ in range(10):
                assert (await client.get()).status_code == 200
            return 10

        assert await shell.together(*[load] * 6) == [10] * 6
        assert client.raw.stats()["hedges"] > 0
        assert fleet.in_flight() == 0
    await shell.eventually(lambda: fleet.in_flight() == 0 and _racers() == [])
    assert slow.requests > 0


@in_every_shell
async def test_hooks_see_both_and_the_end_of_the_one_that_won(
    shell: Shell, fleet: Fleet, stage: Stage
) -> None:
    events = Events()
    slow, fast = stage.set(never(), answer(b"fast"))
    async with stage.client(hooks=[events]) as client:
        await stage.prime(client)
        events.all.clear()
        await client.get()
    assert events.names == ["CallStarted", "AttemptStarted", "AttemptStarted", "AttemptEnded", "CallEnded"]
    assert [(event.number, event.is_hedge) for event in events.of(AttemptStarted)] == [(1, False), (2, True)]
    assert [event.instance for event in events.of(AttemptStarted)] == [
        fleet.instance(slow),
        fleet.instance(fast),
    ]
    (end,) = events.of(AttemptEnded)
    assert (end.number, end.instance, end.outcome.status) == (2, fleet.instance(fast), 200)
    (call,) = events.of(CallEnded)
    assert (call.attempts, call.status, call.instance) == (2, 200, fleet.instance(fast))


@in_every_shell
async def test_both_that_end_are_told(shell: Shell, fleet: Fleet, stage: Stage) -> None:
    events = Events()
    slow, bad, _ = stage.set(answer(), close_unanswered(), answer())
    slow.behaviour = hold(lambda: fleet.endpoint(bad).failures > 0, answer(b"slow"))
    async with stage.client(hooks=[events]) as client:
        await stage.prime(client)
        events.all.clear()
        await client.get()
    assert [(end.number, end.outcome.status) for end in events.of(AttemptEnded)] == [(2, 0), (1, 200)]
    assert len({id(event.call) for event in events.of(AttemptEnded)}) == 1
