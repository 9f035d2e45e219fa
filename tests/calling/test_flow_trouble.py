"""A call in trouble: budget, waits, deadlines, what hooks are told of it, and what a call asks for. Virtual time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.endpoint import Endpoint
from discoclient.calling.retries import cause_of
from discoclient.calling.steps import Call, End, Send
from discoclient.model.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    CallInfo,
    Event,
)
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy, RetryPolicy
from tests.balancing.building import preferring
from tests.balancing.fleet import instance
from tests.calling.scene import (
    BUSY,
    GET,
    MISDIRECTED,
    NO_ANSWER,
    NOT_SENT,
    OK,
    POST,
    STALE,
    Scene,
    answer,
    told,
)
from tests.support.properties import thorough

ALONE = OutlierPolicy(max_ejected=0.0)
"""Nobody is ejected: for tests of something else."""


def within(seconds: float, now: float = 1000.0) -> Call:
    return replace(GET, deadline=now + seconds)


# ---- the budget


AT_ONCE = NO_ANSWER._replace(latency=0.0)


def retried(scene: Scene, calls: int) -> int:
    """How many of *calls* that fail are tried again."""
    return sum(len(scene.call([AT_ONCE] * 9).sends) - 1 for _ in range(calls))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_budget_is_the_share_of_requests_that_is_tried_again(share: float) -> None:
    scene = Scene(4, retry=RetryPolicy(budget=share, budget_reserve=0.0), outlier=ALONE)
    assert retried(scene, 100) == pytest.approx(100 * share, abs=1)


@pytest.mark.parametrize("reserve", [0.0, 0.5, 3.0])
def test_budget_reserve_is_how_many_more_a_second(reserve: float) -> None:
    retry = RetryPolicy(budget=0.0, budget_reserve=reserve)
    scene = Scene(4, retry=retry, outlier=ALONE)
    assert retried(scene, 100) == int(reserve * 10)


@pytest.mark.parametrize(
    "outcome", [NOT_SENT, MISDIRECTED, STALE, NO_ANSWER, BUSY], ids=lambda each: each.kind
)
def test_every_kind_of_retry_pays(outcome: Outcome) -> None:
    scene = Scene(4, retry=RetryPolicy(budget=0.0, budget_reserve=0.0), outlier=ALONE)
    trace = scene.call([outcome])
    assert len(trace.sends) == 1
    assert trace.end is End.DELIVER
    (event,) = scene.heard(BudgetExhausted)
    assert (event.service, event.reason) == ("web", str(cause_of(outcome)))
    assert scene.ledger.stats()["budget_exhausted"] == 1
    assert scene.in_flight == 0


def test_a_budget_is_not_asked_when_there_is_nobody_to_send_to() -> None:
    scene = Scene(1, retry=RetryPolicy(budget=0.0, budget_reserve=0.0))
    scene.call([NOT_SENT])
    assert scene.heard(BudgetExhausted) == []
    assert "budget_exhausted" not in scene.ledger.stats()


def test_what_the_budget_does_not_allow_is_not_counted_as_sent_to_anybody() -> None:
    scene = Scene(4, retry=RetryPolicy(budget=0.0, budget_reserve=0.0), outlier=ALONE)
    for _ in range(20):
        scene.call([NO_ANSWER])
    assert sum(endpoint.requests for endpoint in scene.endpoints.values()) == 20


def test_a_call_that_finds_nobody_is_no_request_and_earns_no_retries() -> None:
    """`Ledger.stats`: calls that came as far as being sent."""
    scene = Scene(0, retry=RetryPolicy(budget=1.0, budget_reserve=0.0))
    for _ in range(50):
        assert scene.call([]).end is End.NO_INSTANCES
    assert scene.ledger.stats()["requests"] == 0


def test_the_budget_is_one_for_all_calls_and_comes_back() -> None:
    scene = Scene(4, retry=RetryPolicy(budget=0.2, budget_reserve=0.0), outlier=ALONE)
    assert retried(scene, 50) == 10
    scene.now += 10.0
    assert retried(scene, 50) == 10


# ---- waits


def waits(policy: RetryPolicy, failures: int, *, seeds: int = 60) -> list[list[float]]:
    """For each retry after the first, the waits before it over many calls."""
    found: list[list[float]] = [[] for _ in range(failures - 1)]
    for seed in range(seeds):
        scene = Scene(failures + 2, retry=policy, seed=seed, outlier=ALONE)
        trace = scene.call([NOT_SENT] * failures + [OK])
        assert len(trace.sends) == failures + 1
        assert len(trace.sleeps) == failures - 1, "the first retry does not wait"
        for each, seconds in zip(found, trace.sleeps, strict=True):
            each.append(seconds)
    return found


@pytest.mark.parametrize("first", [0.01, 0.025, 0.1])
def test_backoff_first_is_what_the_second_retry_waits_at_most(first: float) -> None:
    policy = RetryPolicy(max_attempts=9, backoff_first=first, backoff_cap=100.0)
    second, third, fourth = waits(policy, 4)
    for factor, found in ((1, second), (2, third), (4, fourth)):
        assert 0.9 * factor * first < max(found) <= factor * first
        assert min(found) < 0.1 * factor * first, "full jitter: from 0"


@pytest.mark.parametrize("cap", [0.0, 0.02, 0.25])
def test_backoff_cap_is_what_any_retry_waits_at_most(cap: float) -> None:
    scene = Scene(40, retry=RetryPolicy(max_attempts=40, backoff_cap=cap), outlier=ALONE)
    trace = scene.call([NOT_SENT] * 39 + [OK])
    assert max(trace.sleeps, default=0.0) <= cap
    assert max(trace.sleeps, default=0.0) >= 0.8 * cap


def test_without_backoff_nothing_waits() -> None:
    scene = Scene(5, retry=RetryPolicy(max_attempts=5, backoff_first=0.0), outlier=ALONE)
    assert scene.call([NOT_SENT] * 4 + [OK]).sleeps == []


def test_a_stale_connection_is_replaced_without_a_wait() -> None:
    trace = Scene(5).call([NOT_SENT, STALE, OK])
    assert trace.sleeps == []


# ---- Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_inside_the_deadline(status: int) -> None:
    trace = Scene().call([answer(status, retry_after=2.0), OK], within(5.0))
    assert trace.sleeps == [2.0]
    assert len(trace.sends) == 2


@pytest.mark.parametrize(("retry_after", "again"), [(4.0, True), (4.98, True), (5.0, False), (60.0, False)])
def test_it_is_not_waited_for_beyond_the_deadline(retry_after: float, again: bool) -> None:
    trace = Scene().call([answer(503, retry_after=retry_after), OK], within(5.0))
    assert len(trace.sends) == 1 + again
    assert trace.sleeps == ([retry_after] if again else []), "who gives up does not wait first"
    assert trace.end is End.DELIVER


def test_what_would_end_just_at_the_deadline_is_not_waited_for() -> None:
    trace = Scene().call([answer(503, latency=0.0, retry_after=5.0), OK], within(5.0))
    assert (len(trace.sends), trace.sleeps) == (1, [])


@pytest.mark.parametrize("longest", [0.0, 1.0, 7.0])
def test_max_retry_after_is_how_long_without_a_deadline(longest: float) -> None:
    retry = RetryPolicy(max_retry_after=longest)
    assert len(Scene(retry=retry).call([answer(503, retry_after=longest), OK]).sends) == 2
    assert len(Scene(retry=retry).call([answer(503, retry_after=longest + 0.1), OK]).sends) == 1
    deadline = Scene(retry=retry).call([answer(503, retry_after=longest + 0.1), OK], within(60.0))
    assert len(deadline.sends) == 2, "a deadline says it better"


def test_the_longer_of_backoff_and_retry_after_counts() -> None:
    retry = RetryPolicy(max_attempts=5, max_attempts_sent=5, backoff_first=0.2, backoff_cap=0.2)
    found = []
    for seed in range(40):
        scene = Scene(retry=retry, seed=seed, outlier=ALONE)
        found.append(scene.call([NO_ANSWER, answer(503, retry_after=0.1), OK]).sleeps[-1])
    assert min(found) == 0.1
    assert max(found) > 0.15


# ---- deadlines


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    for seconds in (0.0, -1.0):
        trace = Scene().call([], within(seconds))
        assert (trace.sends, trace.end) == ([], End.EXPIRED)


@thorough(120)
@given(
    outcomes=st.lists(
        st.builds(
            Outcome,
            st.sampled_from(OutcomeKind),
            st.sampled_from([0.0, 0.001, 0.1, 0.249, 0.25, 0.4]),
            st.sampled_from([200, 429, 503]),
            st.booleans(),
            st.none() | st.sampled_from([0.0, 0.05, 0.3]),
        ),
        min_size=9,
        max_size=9,
    ),
    seconds=st.sampled_from([0.001, 0.25, 0.5, 1.0]),
    idempotent=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_attempt_begins_at_or_after_the_deadline(
    outcomes: list[Outcome], seconds: float, idempotent: bool, seed: int
) -> None:
    retry = RetryPolicy(max_attempts=8, max_attempts_sent=8, backoff_first=0.2)
    scene = Scene(9, retry=retry, seed=seed)
    call = Call(idempotent, True, deadline=1000.0 + seconds)
    trace = scene.call(outcomes, call)
    assert all(at < 1000.0 + seconds for at in trace.at)
    began = trace.at[0]
    asleep = sum(trace.sleeps)
    assert asleep < seconds, "nobody sleeps past it either"
    assert began == 1000.0
    assert scene.in_flight == 0


def test_a_deadline_that_passes_during_the_wait_ends_the_call_with_what_there_is() -> None:
    """The clock is not ours: a sleep may take longer than it was meant to."""
    scene = Scene()
    flow = scene.caller.flow(within(1.0))
    send = next(flow)
    assert isinstance(send, Send)
    flow.send(answer(503, retry_after=0.5))
    scene.now = 1001.0
    with pytest.raises(StopIteration) as stop:
        flow.send(None)
    assert stop.value.value is End.DELIVER
    assert send.ticket.is_open, "the response is the caller's"


def test_an_attempt_that_met_the_deadline_is_not_followed_by_another() -> None:
    trace = Scene().call([Outcome(OutcomeKind.EXPIRED, 0.5), OK], within(0.5))
    assert len(trace.sends) == 1


# ---- events


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_events_come_in_order_and_each_attempt_has_a_beginning_and_an_end() -> None:
    scene = Scene(5)
    call = told(GET)
    trace = scene.call([NOT_SENT, BUSY, OK], call)
    attempt = ["AttemptStarted", "AttemptEnded"]
    assert names(scene.events) == ["AttemptStarted", "InstanceEjected", "AttemptEnded", *attempt, *attempt]
    started, ended = scene.heard(AttemptStarted), scene.heard(AttemptEnded)
    assert [event.number for event in started] == [event.number for event in ended] == [1, 2, 3]
    assert [event.instance.id for event in started] == [event.instance.id for event in ended] == trace.ids
    assert [event.retry for event in ended] == ["connect", "unavailable", None]
    assert [event.outcome for event in ended] == [NOT_SENT, BUSY, OK]
    assert all(event.call is call.info for event in started + ended)
    assert not any(event.is_hedge for event in started)


def test_what_is_not_tried_again_says_so() -> None:
    scene = Scene(5)
    scene.call([NO_ANSWER], told(POST))
    scene.call([answer(503, retry_after=99.0)], told(GET))
    scene.call([NO_ANSWER, NO_ANSWER], told(GET))
    assert [event.retry for event in scene.heard(AttemptEnded)] == [None, None, "no_answer", None]


def test_without_hooks_attempts_are_not_told() -> None:
    scene = Scene(5)
    scene.call([NOT_SENT, OK], GET)
    assert names(scene.events) == ["InstanceEjected"]


def test_what_a_hook_puts_into_headers_is_sent_with_that_attempt() -> None:
    scene = Scene(5)

    def hear(event: Event) -> None:
        if isinstance(event, AttemptStarted):
            event.headers["traceparent"] = f"attempt-{event.number}"

    scene.caller.emit = hear
    trace = scene.call([NOT_SENT, OK], told(GET))
    assert [send.headers for send in trace.sends] == [
        {"traceparent": "attempt-1"},
        {"traceparent": "attempt-2"},
    ]
    assert Scene(5).call([OK], GET).sends[0].headers is None


def test_a_call_that_is_equal_to_another_is_not_the_same() -> None:
    one, other = CallInfo("web", "GET", "/"), CallInfo("web", "GET", "/")
    assert one != other
    assert len({one, other}) == 2


# ---- what a call asks for


def test_one_version_alone_and_its_retries_too() -> None:
    endpoints = [
        Endpoint(instance(number, version="2" if number % 2 else "1"), now=0.0) for number in range(6)
    ]
    scene = Scene(endpoints=endpoints)
    trace = scene.call([NOT_SENT] * 5, Call(True, True, version="2", retries=8))
    assert set(trace.ids) == {"instance-1", "instance-3", "instance-5"}
    assert scene.call([], Call(True, True, version="3")).end is End.NO_INSTANCES


@pytest.mark.parametrize(("call", "retries"), [(Call(True, True, version="2"), 0), (GET, 1)])
def test_where_nobody_else_has_that_version_no_retry_is_paid_for(call: Call, retries: int) -> None:
    """What others may have is of no use to a request that insists."""
    endpoints = [Endpoint(instance(number, version="2" if number else "1"), now=0.0) for number in range(2)]
    scene = Scene(endpoints=endpoints, balancer="round_robin")
    scene.call([NOT_SENT, OK][: retries + 1], call)
    assert scene.ledger.stats()["retries"] == retries


def test_a_hash_key_chooses_the_instance_and_a_retry_goes_to_the_next_of_its_order() -> None:
    scene = Scene(6, balancer="rendezvous", outlier=ALONE)
    call = Call(True, True, key="user-7")
    traces = [scene.call([NO_ANSWER, OK], call) for _ in range(10)]
    assert len({tuple(trace.ids) for trace in traces}) == 1
    others = {tuple(scene.call([NO_ANSWER, OK], Call(True, True, key=f"user-{n}")).ids) for n in range(30)}
    assert len(others) > 10


def test_a_canarys_share_holds_over_whole_calls() -> None:
    endpoints = [
        Endpoint(instance(number, version="2" if number == 5 else "1"), now=0.0) for number in range(6)
    ]
    preferences = preferring("peak_ewma", versions={"2": 0.1})
    scene = Scene(endpoints=endpoints, preferences=preferences)
    slow = answer(200, latency=1.0)
    counts = Counter(
        scene.call(lambda send: slow if send.endpoint.id == "instance-5" else OK).ids[0] for _ in range(4000)
    )
    assert counts["instance-5"] / 4000 == pytest.approx(0.1, rel=0.12)
