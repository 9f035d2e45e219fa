"""Hedging: when a second attempt is sent, who wins, what the loser leaves behind, and what follows when both fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from discoclient.calling.steps import Call, End, Send
from discoclient.model.events import AttemptEnded, AttemptStarted, Event
from discoclient.model.outcome import Outcome
from discoclient.model.policy import HedgePolicy, OutlierPolicy, RetryPolicy
from tests.balancing.fleet import eject
from tests.calling.scene import (
    BUSY,
    GET,
    LOCAL,
    MISDIRECTED,
    NO_ANSWER,
    NOT_SENT,
    OK,
    POST,
    STALE,
    STREAMED_POST,
    STREAMED_PUT,
    Scene,
    answer,
    told,
)

ALWAYS = HedgePolicy(budget=1.0, min_samples=1)
USUAL = 0.01
"""Seconds that a request takes; later than this is late."""
SLOW = answer(latency=1.0)


def primed(policy: HedgePolicy = ALWAYS, *, size: int = 5, answers: int = 100, **policies: Any) -> Scene:
    """A scene that knows how long requests take: *answers* of 10 ms each."""
    scene = Scene(size, latency=USUAL, hedge=policy, **policies)
    for _ in range(answers):
        scene.call([OK], POST)
    scene.now += 1.5
    scene.events.clear()
    return scene


def slow_for(ids: set[str], latency: float = 1.0) -> Callable[[Send], Outcome]:
    return lambda send: answer(latency=latency if send.endpoint.id in ids else USUAL)


# ---- when


def test_a_request_that_is_late_is_sent_to_another_instance_too_and_the_first_answer_counts() -> None:
    scene = primed()
    began = scene.now
    trace = scene.call([SLOW, answer(latency=0.02)])
    assert trace.end is End.DELIVER
    assert trace.numbers == [1, 2]
    assert trace.ids[0] != trace.ids[1]
    assert trace.at[1] - began == pytest.approx(USUAL, rel=0.05)
    assert trace.outcomes == [None, answer(latency=0.02)]
    assert scene.now - began == pytest.approx(0.03, abs=0.001)
    assert scene.in_flight == 0
    assert scene.ledger.stats()["hedges"] == 1
    assert scene.ledger.stats()["retries"] == 0, "it has a budget of its own"


def test_one_that_is_not_late_is_sent_once() -> None:
    scene = primed()
    assert len(scene.call([answer(latency=USUAL * 0.9)]).sends) == 1


def test_without_the_policy_nothing_is_hedged() -> None:
    """Negative control."""
    scene = Scene(5, latency=USUAL)
    for _ in range(100):
        scene.call([OK])
    scene.now += 1.5
    assert scene.caller.flow(GET).send(None).race is None  # type: ignore[union-attr]
    assert len(scene.call([SLOW]).sends) == 1


@pytest.mark.parametrize("call", [POST, STREAMED_PUT, STREAMED_POST])
def test_what_must_not_run_twice_or_cannot_be_sent_twice_is_never_hedged(call: Call) -> None:
    scene = primed()
    assert len(scene.call([SLOW], call).sends) == 1


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
def test_percentile_is_how_late_late_is(percentile: float) -> None:
    scene = Scene(5, latency=USUAL, hedge=replace(ALWAYS, percentile=percentile))
    for number in range(1, 101):
        scene.call([answer(latency=number / 100)], POST)
        scene.now -= number / 100
    scene.now += 1.5
    began = scene.now
    trace = scene.call([answer(latency=5.0), OK])
    assert trace.at[1] - began == pytest.approx(percentile, rel=0.05)


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_min_delay_is_what_is_waited_at_least(least: float) -> None:
    scene = primed(replace(ALWAYS, min_delay=least))
    began = scene.now
    trace = scene.call([SLOW, OK])
    assert trace.at[1] - began == pytest.approx(max(least, USUAL), rel=0.05)


@pytest.mark.parametrize("least", [1, 20, 50])
def test_min_samples_is_how_many_answers_must_be_known(least: int) -> None:
    policy = replace(ALWAYS, min_samples=least)
    assert len(primed(policy, answers=least).call([SLOW, OK]).sends) == 2
    assert len(primed(policy, answers=least - 1).call([SLOW, OK]).sends) == 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25])
def test_budget_is_the_share_of_requests_that_may_be_hedged(share: float) -> None:
    scene = primed(replace(ALWAYS, budget=share))
    scene.now += 10.0
    hedges = 0
    for _ in range(200):
        flow = scene.caller.flow(GET)
        send = next(flow)
        assert isinstance(send, Send)
        assert send.race is not None
        hedges += send.race.late() is not None
        flow.close()
    assert hedges == pytest.approx(200 * share, abs=1)
    assert scene.in_flight == 0


def test_hedges_take_nothing_from_the_retries_and_retries_nothing_from_the_hedges() -> None:
    nothing = RetryPolicy(budget=0.0, budget_reserve=0.0)
    assert len(primed(retry=nothing).call([SLOW, OK]).hedges) == 1
    scene = primed(replace(ALWAYS, budget=0.0))
    assert len(scene.call([SLOW]).hedges) == 0
    assert len(scene.call([NOT_SENT, OK]).sends) == 2


# ---- where


def test_with_nobody_else_there_is_nothing_to_hedge_with() -> None:
    scene = primed(size=1)
    trace = scene.call([SLOW])
    assert (len(trace.sends), trace.end) == (1, End.DELIVER)


def test_whom_the_call_excludes_is_not_hedged_with() -> None:
    scene = primed(size=3)
    call = replace(GET, exclude=frozenset({"instance-0"}))
    for _ in range(20):
        assert {*scene.call([SLOW, OK], call).ids} == {"instance-1", "instance-2"}
    alone = replace(GET, exclude=frozenset({"instance-0", "instance-1"}))
    assert len(scene.call([SLOW], alone).sends) == 1


def test_who_was_tried_before_is_not_hedged_with() -> None:
    scene = primed(size=3, retry=RetryPolicy(max_attempts=9, max_attempts_sent=9))
    for _ in range(20):
        trace = scene.call([NOT_SENT, SLOW, OK])
        assert len(set(trace.ids)) == 3


def test_a_hedge_goes_by_version_and_key_as_the_call_does() -> None:
    scene = primed()
    for endpoint in list(scene.endpoints.values())[:2]:
        endpoint.update(replace(endpoint.instance, version="2"))
    scene.publish()
    trace = scene.call([SLOW, OK], replace(GET, version="2"))
    assert {*trace.ids} == {"instance-0", "instance-1"}


# ---- who wins, and what the loser leaves behind


def test_the_first_may_still_win() -> None:
    scene = primed()
    trace = scene.call([answer(latency=0.05), SLOW])
    assert len(trace.hedges) == 1
    assert trace.outcomes == [answer(latency=0.05), None]
    assert scene.in_flight == 0


def test_the_winners_body_is_in_flight_and_the_losers_is_not() -> None:
    scene = primed()
    trace = scene.call([SLOW, OK], keep=True)
    first, second = trace.sends
    assert (first.ticket.is_open, second.ticket.is_open) == (False, True)
    assert scene.in_flight == 1
    second.ticket.close()


def test_the_loser_is_known_to_be_slow_by_then_and_not_blamed() -> None:
    scene = primed()
    trace = scene.call([SLOW, answer(latency=0.5)])
    slow = trace.sends[0].endpoint
    assert slow.latency(scene.now) == pytest.approx(0.51, rel=0.02)
    assert slow.failures == 0
    assert slow.accrual.in_a_row == 0


def test_the_loser_that_began_later_had_less_time_and_is_not_taken_for_slower() -> None:
    """The first one takes a second and wins by a hair: of the second is known that it takes more than 20 ms."""
    scene = primed(replace(ALWAYS, min_delay=0.98))
    trace = scene.call([answer(latency=1.0), answer(latency=0.03)])
    assert trace.outcomes[1] is None
    hedge = trace.sends[1].endpoint
    assert hedge.latency(scene.now) <= 0.021


def test_over_many_calls_the_slow_one_is_left_alone_and_the_others_are_not() -> None:
    scene = primed(size=4)
    slow = "instance-2"
    for _ in range(50):
        scene.call(slow_for({slow}))
    costs = {id: endpoint.cost(scene.now) for id, endpoint in scene.endpoints.items()}
    assert costs[slow] > 1.5 * max(cost for id, cost in costs.items() if id != slow)


def test_a_probe_that_lost_gives_its_place_to_the_next() -> None:
    scene = primed(size=2)
    probed = scene.endpoints["instance-0"]
    eject(probed, scene.now)
    scene.now = probed.accrual.until + 1.0
    for _ in range(100):
        scene.call([OK], replace(POST, exclude=frozenset({"instance-0"})))
    scene.now += 1.5
    trace = scene.call(slow_for({"instance-0"}), replace(GET, exclude=frozenset()))
    while trace.ids[0] != "instance-0":
        trace = scene.call(slow_for({"instance-0"}), replace(GET, exclude=frozenset()))
    assert not probed.accrual.is_probing
    assert probed.start(scene.now).is_probe


# ---- when one fails


@pytest.mark.parametrize(
    "failure", [NO_ANSWER, BUSY, NOT_SENT, MISDIRECTED, STALE, LOCAL], ids=lambda each: each.kind
)
def test_a_failure_of_one_does_not_decide_it_while_the_other_is_out(failure: Outcome) -> None:
    for position in (0, 1):
        scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
        outcomes = [failure._replace(latency=0.05), answer(latency=0.3)]
        if position:
            outcomes = [answer(latency=0.3), failure._replace(latency=0.02)]
        trace = scene.call(outcomes)
        assert trace.end is End.DELIVER
        assert len(trace.sends) == 2
        assert trace.outcomes[1 - position] == answer(latency=0.3)
        assert scene.in_flight == 0
        blamed = trace.sends[position].endpoint
        assert blamed.failures == failure.is_failure


def test_the_one_that_failed_in_a_race_is_ejected_as_any() -> None:
    scene = primed()
    trace = scene.call([SLOW, NOT_SENT])
    assert trace.sends[1].endpoint.is_ejected(scene.now)


def test_a_failure_before_it_was_late_is_an_ordinary_one() -> None:
    scene = primed()
    trace = scene.call([NO_ANSWER._replace(latency=0.001), OK])
    assert trace.numbers == [1, 2]
    assert trace.hedges == []
    assert scene.ledger.stats()["retries.no_answer"] == 1


def test_a_retry_may_be_hedged_as_well() -> None:
    scene = primed()
    trace = scene.call([NOT_SENT, SLOW, OK])
    assert trace.numbers == [1, 2, 3]
    assert trace.hedges == trace.sends[2:]


# ---- when both fail


def failing(first: Outcome, second: Outcome, *, hedge_ends_last: bool) -> list[Outcome]:
    late, later = 0.05, 0.5
    return [
        first._replace(latency=late if hedge_ends_last else later),
        second._replace(latency=(later if hedge_ends_last else late) - 0.02),
    ]


both_orders = pytest.mark.parametrize("hedge_ends_last", [True, False])


@both_orders
def test_when_both_fail_and_nothing_was_sent_a_third_instance_is_tried(hedge_ends_last: bool) -> None:
    scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
    trace = scene.call([*failing(NOT_SENT, NOT_SENT, hedge_ends_last=hedge_ends_last), OK])
    assert trace.end is End.DELIVER
    assert trace.last == OK
    assert len(set(trace.ids)) == 3
    assert scene.in_flight == 0
    assert trace.numbers == [1, 2, 3], "each attempt has a number of its own"


@both_orders
def test_when_both_were_sent_and_failed_there_is_no_third(hedge_ends_last: bool) -> None:
    """Two that may have run are the most, by default."""
    scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
    trace = scene.call(failing(NO_ANSWER, BUSY, hedge_ends_last=hedge_ends_last))
    assert trace.end is End.DELIVER
    assert len(trace.sends) == 2
    assert scene.in_flight == 0


@both_orders
@pytest.mark.parametrize("unsent", [0, 1])
def test_what_was_not_sent_does_not_count_among_those_that_were(unsent: int, hedge_ends_last: bool) -> None:
    scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
    pair = [NOT_SENT, NO_ANSWER] if unsent == 0 else [NO_ANSWER, NOT_SENT]
    trace = scene.call([*failing(pair[0], pair[1], hedge_ends_last=hedge_ends_last), OK])
    assert len(trace.sends) == 3, "one of them may have arrived: another one may"
    assert trace.last == OK


@both_orders
@pytest.mark.parametrize("most", [2, 3, 4])
def test_max_attempts_counts_hedges_too(most: int, hedge_ends_last: bool) -> None:
    retry = RetryPolicy(max_attempts=most, max_attempts_sent=9)
    scene = primed(retry=retry, size=9, outlier=OutlierPolicy(max_ejected=0.0))
    pair = failing(NOT_SENT, NOT_SENT, hedge_ends_last=hedge_ends_last)
    trace = scene.call(pair * 4)
    assert len(trace.sends) <= most
    assert len(set(trace.numbers)) == len(trace.numbers)


def test_max_attempts_sent_counts_hedges_too() -> None:
    """The first was sent and failed, so one more may be: it, or a hedge, and not both."""
    scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
    trace = scene.call([NO_ANSWER._replace(latency=0.001), SLOW, SLOW])
    assert len(trace.sends) == 2


@both_orders
def test_a_retry_after_a_lost_race_pays_like_any(hedge_ends_last: bool) -> None:
    retry = RetryPolicy(budget=0.0, budget_reserve=0.0)
    scene = primed(retry=retry, outlier=OutlierPolicy(max_ejected=0.0))
    trace = scene.call(failing(NOT_SENT, NOT_SENT, hedge_ends_last=hedge_ends_last))
    assert len(trace.sends) == 2
    assert scene.ledger.stats()["budget_exhausted"] == 1
    assert scene.in_flight == 0


def test_when_both_fail_the_callers_outcome_is_the_last_one() -> None:
    scene = primed(outlier=OutlierPolicy(max_ejected=0.0))
    flow = scene.caller.flow(GET)
    first = next(flow)
    assert isinstance(first, Send)
    assert first.race is not None
    second = first.race.late()
    assert second is not None
    assert not first.race.ended(first, BUSY)
    first.ticket.close()  # as the shell does with a response that is not the caller's
    assert first.race.ended(second, BUSY)
    with pytest.raises(StopIteration) as stop:
        flow.send(BUSY)
    assert stop.value.value is End.DELIVER
    assert (first.ticket.is_open, second.ticket.is_open) == (False, True)


# ---- deadlines


def test_no_hedge_begins_at_or_after_the_deadline() -> None:
    for seconds, is_hedged in ((0.5, True), (0.02, True), (0.01, False), (0.004, False)):
        scene = primed(replace(ALWAYS, min_delay=0.01))
        call = replace(GET, deadline=scene.now + seconds)
        flow = scene.caller.flow(call)
        send = next(flow)
        assert isinstance(send, Send)
        assert send.race is not None
        scene.now += max(send.race.delay, 0.01)
        second = send.race.late()
        assert (second is not None) == is_hedged, seconds
        flow.close()
        assert scene.in_flight == 0


# ---- given up


@pytest.mark.parametrize("moment", ["before", "between", "after one failed"])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_a_call_given_up_in_a_race_leaves_nothing_in_flight(
    moment: str, error: type[BaseException] | None
) -> None:
    scene = primed()
    flow = scene.caller.flow(GET)
    first = next(flow)
    assert isinstance(first, Send)
    assert first.race is not None
    if moment != "before":
        second = first.race.late()
        assert second is not None
        assert scene.in_flight == 2
        if moment == "after one failed":
            assert not first.race.ended(second, NO_ANSWER)
    if error is None:
        flow.close()
    else:
        with pytest.raises(error):
            flow.throw(error())
    assert scene.in_flight == 0
    assert [endpoint.in_flight for endpoint in scene.endpoints.values()] == [0] * 5


def test_a_call_that_is_dropped_in_a_race_leaves_nothing_in_flight() -> None:
    scene = primed()
    flow = scene.caller.flow(GET)
    first = next(flow)
    assert isinstance(first, Send)
    assert first.race is not None
    assert first.race.late() is not None
    del flow, first
    assert scene.in_flight == 0


# ---- what hooks are told


def test_hooks_are_told_of_a_hedge_and_of_its_end_and_may_add_headers() -> None:
    scene = primed()

    def hear(event: Event) -> None:
        scene.events.append(event)
        if isinstance(event, AttemptStarted):
            event.headers["x"] = f"{event.number}"

    scene.caller.emit = hear
    trace = scene.call([NO_ANSWER._replace(latency=0.02), answer(latency=0.05)], told(GET))
    started, ended = scene.heard(AttemptStarted), scene.heard(AttemptEnded)
    assert [(event.number, event.is_hedge) for event in started] == [(1, False), (2, True)]
    assert [event.instance.id for event in started] == trace.ids
    assert [(event.number, event.retry, event.outcome.kind) for event in ended] == [
        (1, None, NO_ANSWER.kind),
        (2, None, OK.kind),
    ]
    assert [send.headers for send in trace.sends] == [{"x": "1"}, {"x": "2"}]


def test_of_one_that_was_broken_off_no_outcome_is_told() -> None:
    scene = primed()
    scene.call([SLOW, OK], told(GET))
    assert [event.number for event in scene.heard(AttemptEnded)] == [2]
