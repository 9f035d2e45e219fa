"""What speaks for and against one endpoint: the success rate and its window, the reasons, and what is not enforced."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discoclient.balancing.accrual import PROBE_PASSED, Accrual, Verdict
from discoclient.balancing.endpoint import Endpoint
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy
from tests.balancing.fleet import OK, REFUSED, SILENT, eject, instance, observe
from tests.support.properties import thorough

BUSY = Outcome(OutcomeKind.RESPONSE, 0.01, 503)
WRONG = Outcome(OutcomeKind.MISDIRECTED, 0.01, 421)
EXPIRED = Outcome(OutcomeKind.EXPIRED, 0.5)

RATE_ALONE = OutlierPolicy(consecutive_failures=1000)
"""Failures in a row don't count, the success rate does."""


def judge(
    accrual: Accrual,
    outcome: Outcome,
    now: float = 0.0,
    policy: OutlierPolicy = RATE_ALONE,
    *,
    because: str | None = None,
    is_probe: bool = False,
) -> Verdict | None:
    return accrual.judge(outcome, now, policy, lambda: because, Random(1), is_probe=is_probe)


def first_ejection(outcomes: Sequence[Outcome], policy: OutlierPolicy, *, every: float = 0.1) -> int | None:
    """How many of *outcomes*, one after the other, it takes."""
    accrual = Accrual()
    for number, outcome in enumerate(outcomes, start=1):
        verdict = judge(accrual, outcome, number * every, policy)
        if verdict is not None:
            assert verdict.reason == "success_rate"
            return number
    return None


# ---- success rate: its knobs


ONE_OF_THREE = [OK, OK, BUSY] * 20
"""67 % are good; never two failures in a row."""


@pytest.mark.parametrize(
    ("least", "ejects"), [(0.9, True), (0.8, True), (0.7, True), (0.6, False), (0.5, False)]
)
def test_min_success_rate_is_below_which_it_is_ejected(least: float, ejects: bool) -> None:
    policy = OutlierPolicy(min_success_rate=least)
    assert (first_ejection(ONE_OF_THREE, policy) is not None) == ejects


def test_a_min_success_rate_of_zero_turns_it_off() -> None:
    policy = OutlierPolicy(consecutive_failures=1000, min_success_rate=0.0)
    assert first_ejection([BUSY] * 500, policy) is None


def test_exactly_the_min_success_rate_is_good_enough() -> None:
    assert first_ejection([OK, OK, OK, OK, BUSY] * 20, OutlierPolicy(min_success_rate=0.8)) is None
    assert first_ejection([OK, OK, OK, BUSY] * 20, OutlierPolicy(min_success_rate=0.8)) is not None


@pytest.mark.parametrize("least", [1, 5, 12, 30])
def test_min_requests_is_how_many_answers_it_takes(least: int) -> None:
    policy = OutlierPolicy(consecutive_failures=1000, min_requests=least)
    assert first_ejection([BUSY] * 100, policy) == least


@pytest.mark.parametrize("window", [4.0, 30.0, 120.0])
def test_success_window_is_how_long_an_answer_counts(window: float) -> None:
    policy = OutlierPolicy(consecutive_failures=1000, success_window=window)
    for pause, is_forgotten in ((0.49 * window, False), (window, True)):
        accrual = Accrual()
        for _ in range(4):
            assert judge(accrual, BUSY, 1000.0, policy) is None
        verdict = judge(accrual, BUSY, 1000.0 + pause, policy)
        assert (verdict is None) == is_forgotten


# ---- success rate: its window

gaps = st.sampled_from([0.0, 0.01, 1.0, 4.0, 4.999, 5.0, 5.001, 7.5, 9.9, 9.999, 10.0, 14.0, 60.0])
WINDOW = 10.0


@thorough(400)
@given(st.lists(st.tuples(gaps, st.booleans()), min_size=1, max_size=40), gaps)
@example([(0.0, False), (9.9, True)], 4.9)
def test_the_rate_is_that_of_the_last_half_to_whole_window(
    script: list[tuple[float, bool]], wait: float
) -> None:
    accrual = Accrual()
    now = 100.0
    seen: list[tuple[float, bool]] = []
    for gap, is_good in script:
        now += gap
        if is_good:
            accrual.note_success(now, WINDOW)
        else:
            judge(accrual, BUSY, now, OutlierPolicy(success_window=WINDOW, min_success_rate=0.0))
        seen.append((now, is_good))
        if accrual.until > now:  # five in a row: what it was judged by is forgotten
            accrual = Accrual()
            seen.clear()
    now += wait
    rate, answers = accrual.success_rate(now, WINDOW)
    least = sum(now - at < WINDOW / 2 for at, _ in seen)
    most = sum(now - at <= WINDOW for at, _ in seen)
    assert least <= answers <= most
    if answers:
        newest = [is_good for _, is_good in seen[-answers:]]
        assert rate == pytest.approx(sum(newest) / answers)


def test_with_nothing_known_the_rate_is_good() -> None:
    assert Accrual().success_rate(1e6, 30.0) == (1.0, 0)


def test_failures_of_long_ago_do_not_eject_with_those_of_today() -> None:
    """One failure every 25 s in 30 s is at most two answers, whatever is remembered; never five."""
    accrual = Accrual()
    policy = OutlierPolicy(consecutive_failures=1000, min_requests=3)
    verdicts = [judge(accrual, BUSY, 25.0 * number, policy) for number in range(50)]
    assert verdicts == [None] * 50


def test_what_it_was_judged_by_does_not_judge_it_again() -> None:
    accrual = Accrual()
    policy = OutlierPolicy(consecutive_failures=1000, base_ejection=1.0, max_ejection=1.0)
    verdicts = [judge(accrual, BUSY, 0.0, policy) for _ in range(5)]
    assert verdicts[-1] is not None
    assert judge(accrual, OK, 2.0, policy, is_probe=True) == Verdict(PROBE_PASSED)
    assert [judge(accrual, BUSY, 2.0, policy) for _ in range(3)] == [None] * 3
    assert accrual.success_rate(2.0, policy.success_window) == (0.0, 3), "the probe's answer began it anew"


# ---- reasons


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ([REFUSED], "connect"),
        ([WRONG], "wrong_instance"),
        ([SILENT] * 5, "consecutive"),
        ([BUSY] * 5, "consecutive"),
        ([EXPIRED] * 5, "consecutive"),
        ([OK, BUSY, BUSY, OK, BUSY], "success_rate"),
        ([SILENT] * 4 + [REFUSED], "connect"),
    ],
)
def test_a_verdict_says_for_what(outcomes: list[Outcome], reason: str) -> None:
    accrual = Accrual()
    verdicts = [judge(accrual, outcome, 1.0, OutlierPolicy()) for outcome in outcomes]
    assert verdicts[:-1] == [None] * (len(outcomes) - 1)
    verdict = verdicts[-1]
    assert verdict is not None
    assert verdict.is_ejected
    assert (verdict.reason, verdict.because) == (reason, None)
    assert accrual.reason == reason
    assert accrual.until == 1.0 + verdict.seconds


def test_a_failed_probe_has_a_reason_of_its_own() -> None:
    accrual = Accrual()
    judge(accrual, REFUSED)
    verdict = judge(accrual, BUSY, 10.0, is_probe=True)
    assert verdict is not None
    assert verdict.reason == "probe"
    assert verdict.seconds > 4.9, "twice as long as the first, at least half of it"


@pytest.mark.parametrize("outcome", [OK, Outcome(OutcomeKind.RESPONSE, 0.01, 500)])
def test_a_probe_that_is_answered_wipes_the_slate(outcome: Outcome) -> None:
    accrual = Accrual()
    for now in (0.0, 10.0, 30.0):
        judge(accrual, REFUSED, now)
    assert accrual.ejections == 3
    verdict = judge(accrual, outcome, 100.0, is_probe=True)
    assert verdict == Verdict(PROBE_PASSED)
    assert not verdict.is_ejected
    assert (accrual.ejections, accrual.in_a_row) == (0, 0)


# ---- what is not enforced


def test_what_may_not_be_enforced_is_said_each_time_and_done_as_soon_as_it_may() -> None:
    accrual = Accrual()
    policy = OutlierPolicy()
    for _ in range(4):
        assert judge(accrual, SILENT, 0.0, policy, because="max_ejected") is None
    for _ in range(3):
        verdict = judge(accrual, SILENT, 0.0, policy, because="max_ejected")
        assert verdict == Verdict("consecutive", because="max_ejected")
        assert not verdict.is_ejected
    assert accrual.until == 0.0
    assert accrual.ejections == 0
    verdict = judge(accrual, SILENT, 0.0, policy)
    assert verdict is not None
    assert verdict.is_ejected


def test_a_good_answer_takes_back_what_was_not_enforced() -> None:
    accrual = Accrual()
    policy = OutlierPolicy(min_success_rate=0.0)
    for _ in range(9):
        judge(accrual, SILENT, 0.0, policy, because="max_ejected")
    judge(accrual, OK, 0.0, policy)
    assert judge(accrual, SILENT, 0.0, policy) is None


# ---- the same instance, when it comes back


def test_who_comes_back_is_still_ejected_and_its_next_ejection_is_longer() -> None:
    policy = OutlierPolicy(base_ejection=5.0, max_ejection=300.0)
    gone = Endpoint(instance(1), now=0.0)
    eject(gone, seconds=100.0)
    back = Endpoint(instance(1), now=50.0, memory=gone)
    assert back.is_ejected(50.0)
    assert back.accrual.until == gone.accrual.until
    assert not back.is_ejected(back.accrual.until)
    ticket = back.start(back.accrual.until)
    assert ticket.is_probe
    verdict = back.learn(ticket, SILENT, back.accrual.until, policy, lambda endpoint: None, Random(1))
    assert verdict is not None
    assert 5.0 <= verdict.seconds <= 10.0, "the second one"
    assert gone.accrual.ejections == 1, "what is remembered is a copy"


def test_who_comes_back_costs_what_it_did() -> None:
    gone = Endpoint(instance(1), now=0.0, latency=0.02)
    observe(gone, OK, 1.0)
    back = Endpoint(instance(1), now=5.0, memory=gone)
    assert back.latency(5.0) == gone.latency(5.0)
    assert back.cost(5.0) == gone.cost(5.0)


@pytest.mark.parametrize("outcome", [SILENT, BUSY, REFUSED], ids=lambda each: each.kind)
def test_that_it_failed_before_it_left_is_not_held_against_who_comes_back(outcome: Outcome) -> None:
    """It registered anew, so it is alive; whether it may be called at all is what its ejection says."""
    gone = Endpoint(instance(1), now=0.0, latency=0.02)
    gone.learn(gone.start(0.0), outcome, 1.0, OutlierPolicy(), lambda endpoint: None, Random(1))
    back = Endpoint(instance(1), now=5.0, memory=gone)
    assert gone.latency(5.0) > 0.5
    assert back.latency(5.0) < 0.02
    assert back.is_ejected(1.5) == gone.is_ejected(1.5)


def test_a_probe_that_was_out_when_it_left_does_not_keep_it_ejected_for_ever() -> None:
    gone = Endpoint(instance(1), now=0.0)
    eject(gone)
    assert gone.start(1000.0).is_probe
    back = Endpoint(instance(1), now=1000.0, memory=gone)
    assert gone.is_ejected(1000.0)
    assert not back.is_ejected(1000.0)
    assert back.start(1000.0).is_probe
