"""An endpoint: what is in flight, how fast it is, and when it is left alone. Virtual time."""

from __future__ import annotations

import math
import threading
from random import Random

import pytest

from discoclient.balancing.endpoint import DECAY, FAILURE_LATENCY, MAX_LATENCY, Endpoint, Ticket
from discoclient.model.instance import State
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy
from tests.balancing.fleet import OK, REFUSED, SILENT, eject, instance, observe

POLICY = OutlierPolicy(min_success_rate=0.0)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(instance(1), now=0.0)


def answer(latency: float, status: int = 200) -> Outcome:
    return Outcome(OutcomeKind.RESPONSE, latency, status)


# ---- in flight


def test_a_request_is_in_flight_from_its_start_until_its_ticket_is_closed(endpoint: Endpoint) -> None:
    first, second = endpoint.start(0.0), endpoint.start(0.0)
    assert endpoint.in_flight == 2
    first.close()
    assert endpoint.in_flight == 1
    second.close()
    assert endpoint.in_flight == 0


def test_closing_twice_is_closing_once(endpoint: Endpoint) -> None:
    ticket, _other = endpoint.start(0.0), endpoint.start(0.0)
    for _ in range(3):
        ticket.close()
    assert endpoint.in_flight == 1


def test_many_threads_lose_no_count(endpoint: Endpoint) -> None:
    rounds, crowd = 2000, 8
    shared: list[Ticket] = []
    begin = threading.Barrier(crowd)

    def work() -> None:
        begin.wait()
        for _ in range(rounds):
            ticket = endpoint.start(0.0)
            shared.append(ticket)
            ticket.close()
            shared[-1].close()  # perhaps another thread's, and perhaps for the second time
            endpoint.learn(ticket, OK, 0.0, POLICY, lambda endpoint: None, Random(1))

    threads = [threading.Thread(target=work) for _ in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shared) == rounds * crowd
    assert endpoint.in_flight == 0


def test_a_ticket_may_be_closed_while_its_own_thread_is_inside(endpoint: Endpoint) -> None:
    """The garbage collector closes a forgotten response wherever it likes."""
    ticket = endpoint.start(0.0)
    with endpoint._lock:
        ticket.close()
    assert endpoint.in_flight == 0


# ---- latency: peak EWMA


def test_a_new_peak_counts_at_once(endpoint: Endpoint) -> None:
    observe(endpoint, answer(0.010), 0.0)
    assert endpoint.latency(0.0) == 0.010
    observe(endpoint, answer(0.500), 0.0)
    assert endpoint.latency(0.0) == 0.500


def test_a_peak_decays_to_a_third_in_ten_seconds_while_idle(endpoint: Endpoint) -> None:
    assert DECAY == 10.0
    observe(endpoint, answer(1.0), 5.0)
    assert endpoint.latency(15.0) == pytest.approx(1 / math.e)
    assert endpoint.latency(25.0) == pytest.approx(1 / math.e**2)


def test_a_faster_answer_counts_by_the_time_since_the_last(endpoint: Endpoint) -> None:
    observe(endpoint, answer(1.0), 0.0)
    observe(endpoint, answer(0.1), 0.0)
    assert endpoint.latency(0.0) == 1.0  # no time has passed: it weighs nothing
    observe(endpoint, answer(0.1), 5.0)
    kept = math.exp(-0.5)
    assert endpoint.latency(5.0) == pytest.approx(1.0 * kept + 0.1 * (1 - kept))


def test_steady_latency_is_what_it_settles_at(endpoint: Endpoint) -> None:
    observe(endpoint, answer(3.0), 0.0)
    for step in range(1, 1000):
        observe(endpoint, answer(0.05), step * 0.1)
    assert endpoint.latency(99.9) == pytest.approx(0.05, rel=0.01)


def test_cost_is_latency_times_who_waits_and_me(endpoint: Endpoint) -> None:
    observe(endpoint, answer(0.2), 0.0)
    assert endpoint.cost(0.0) == pytest.approx(0.2)
    for _ in range(2):
        endpoint.learn(endpoint.start(0.0), answer(0.2), 0.0, POLICY, lambda endpoint: None, Random(1))
    assert endpoint.cost(0.0) == pytest.approx(0.6)
    assert endpoint.cost(10.0) == pytest.approx(0.6 / math.e)


def test_silence_counts_as_latency_while_somebody_waits(endpoint: Endpoint) -> None:
    """Who hangs gives no answer to learn from."""
    observe(endpoint, answer(0.01), 0.0)
    first = endpoint.start(100.0)
    assert endpoint.cost(100.0) < 0.02
    assert endpoint.cost(100.5) == pytest.approx(0.5 * 2)
    second = endpoint.start(100.4)
    assert endpoint.cost(100.5) == pytest.approx(0.5 * 3), "silent since the first one began to wait"
    endpoint.learn(second, answer(0.1), 100.5, POLICY, lambda endpoint: None, Random(1))
    assert endpoint.cost(100.5) == pytest.approx(0.1 * 3), "a good answer breaks the silence"
    assert endpoint.cost(101.5) == pytest.approx(1.0 * 3)
    first.close()
    assert endpoint.cost(101.5) < 0.2 * 2, "nobody waits any more"


def test_a_failure_does_not_break_the_silence(endpoint: Endpoint) -> None:
    observe(endpoint, answer(0.01), 0.0)
    endpoint.start(100.0)
    failing = endpoint.start(103.0)
    before = endpoint.cost(105.0)
    endpoint.learn(failing, SILENT, 105.0, POLICY, lambda endpoint: None, Random(1))
    assert endpoint.cost(105.0) >= before


def test_the_latency_it_begins_with_is_given() -> None:
    newcomer = Endpoint(instance(1), now=7.0, latency=0.3)
    assert newcomer.latency(7.0) == 0.3
    assert newcomer.first_seen == 7.0


def test_who_never_answered_costs_nothing_to_try_and_something_while_it_is_tried(endpoint: Endpoint) -> None:
    """With no latency known the product would be 0 however many wait there, and every request would join them."""
    assert endpoint.cost(0.0) == 0.0
    endpoint.start(0.0)
    assert endpoint.cost(0.0) >= FAILURE_LATENCY
    before = endpoint.cost(0.0)
    endpoint.start(0.0)
    assert endpoint.cost(0.0) > before


def test_an_answer_on_a_new_connection_is_no_peak_but_many_are_a_latency(endpoint: Endpoint) -> None:
    observe(endpoint, answer(0.01), 0.0)
    observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.5, 200, is_warm=False), 0.1)
    assert endpoint.latency(0.1) == pytest.approx(0.01, rel=0.6)
    for step in range(2, 600):
        observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.5, 200, is_warm=False), step * 0.1)
    assert endpoint.latency(59.9) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    "outcome", [SILENT, REFUSED, answer(0.001, 503), answer(0.001, 502), answer(0.001, 504)]
)
def test_failing_fast_does_not_look_attractive(endpoint: Endpoint, outcome: Outcome) -> None:
    observe(endpoint, answer(0.010), 0.0)
    observe(endpoint, outcome, 0.0)
    assert endpoint.latency(0.0) == FAILURE_LATENCY == 1.0


@pytest.mark.parametrize("known", [0.0, 0.001, 0.4, 0.6, 5.0, 14.0, 16.0, 29.9, 30.0])
@pytest.mark.parametrize("after", [0.0, 0.1, 10.0, 1000.0])
def test_a_failure_never_lowers_the_cost(known: float, after: float) -> None:
    endpoint = Endpoint(instance(1), now=0.0, latency=known)
    for outcome in (SILENT, REFUSED, answer(0.0, 503)):
        before = endpoint.cost(after)
        observe(endpoint, outcome, after)
        assert endpoint.cost(after) >= before
        assert endpoint.latency(after) == pytest.approx(min(MAX_LATENCY, max(1.0, 2 * known)))
        known = endpoint.latency(after)


def test_a_row_of_failures_can_be_forgotten_again(endpoint: Endpoint) -> None:
    for _ in range(100):
        observe(endpoint, Outcome(OutcomeKind.NO_ANSWER, 120.0), 0.0)
    assert endpoint.latency(0.0) == MAX_LATENCY == 30.0
    assert endpoint.latency(60.0) < 0.1


@pytest.mark.parametrize("status", [200, 301, 404, 418, 500, 501])
def test_an_answer_is_an_answer_unless_it_says_that_it_cannot_serve(endpoint: Endpoint, status: int) -> None:
    observe(endpoint, answer(0.02, status), 0.0)
    assert endpoint.latency(0.0) == 0.02


# ---- ejection


def judge(
    endpoint: Endpoint,
    outcome: Outcome,
    now: float = 0.0,
    *,
    policy: OutlierPolicy = POLICY,
    may: bool = True,
    seed: int = 1,
) -> bool:
    """One request from its start to its end."""
    ticket = endpoint.start(now)
    verdict = endpoint.learn(
        ticket, outcome, now, policy, lambda endpoint: None if may else "max_ejected", Random(seed)
    )
    ticket.close()
    assert verdict is None or verdict.because == (None if may else "max_ejected")
    return verdict is not None and verdict.is_ejected


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_so_many_failures_in_a_row_eject(endpoint: Endpoint, limit: int) -> None:
    policy = OutlierPolicy(consecutive_failures=limit)
    assert [judge(endpoint, SILENT, policy=policy) for _ in range(limit)] == [False] * (limit - 1) + [True]
    assert endpoint.is_ejected(0.0)


def test_an_answer_between_them_begins_the_count_anew(endpoint: Endpoint) -> None:
    for _ in range(10):
        for _ in range(4):
            assert not judge(endpoint, SILENT)
        assert not judge(endpoint, answer(0.1, 500))
    assert not endpoint.is_ejected(0.0)


def test_a_refused_connection_ejects_at_once(endpoint: Endpoint) -> None:
    assert judge(endpoint, REFUSED)
    assert endpoint.is_ejected(0.0)


@pytest.mark.parametrize("base", [1.0, 5.0, 60.0])
def test_the_first_ejection_lasts_half_to_the_whole_of_its_base(base: float) -> None:
    ends = set()
    for seed in range(200):
        endpoint = Endpoint(instance(1), now=0.0)
        judge(endpoint, REFUSED, policy=OutlierPolicy(base_ejection=base), seed=seed)
        assert endpoint.is_ejected(base * 0.499)
        assert not endpoint.is_ejected(base)
        ends.add(next(step for step in range(50, 101) if not endpoint.is_ejected(base * step / 100)))
    assert min(ends) < 55
    assert max(ends) > 95


def spans(policy: OutlierPolicy, count: int, seed: int) -> list[float]:
    """How long each of *count* ejections lasts if the probe after it fails."""
    endpoint, now, found = Endpoint(instance(1), now=0.0), 0.0, []
    for _ in range(count):
        assert judge(endpoint, REFUSED, now, policy=policy, seed=seed)
        found.append(endpoint.accrual.until - now)
        now = endpoint.accrual.until
        assert not endpoint.is_ejected(now)
    return found


def test_each_further_ejection_is_twice_as_long_up_to_the_cap() -> None:
    policy = OutlierPolicy(base_ejection=5.0, max_ejection=30.0)
    rounds = [spans(policy, 6, seed) for seed in range(100)]
    for bound, found in zip([5.0, 10.0, 20.0, 30.0, 30.0, 30.0], zip(*rounds, strict=True), strict=True):
        assert bound / 2 <= min(found) < 0.55 * bound
        assert 0.95 * bound < max(found) <= bound


@pytest.mark.parametrize("cap", [5.0, 12.0, 300.0])
def test_the_cap_bounds_every_ejection(cap: float) -> None:
    longest = max(spans(OutlierPolicy(max_ejection=cap), 12, seed)[-1] for seed in range(50))
    assert 0.9 * cap < longest <= cap


def test_a_thousand_ejections_are_no_overflow() -> None:
    assert max(spans(POLICY, 1500, 1)) <= 300.0


@pytest.mark.parametrize(("window", "answers"), [(10.0, 1), (30.0, 5)])
def test_success_window_is_how_long_a_good_answer_counts(
    endpoint: Endpoint, window: float, answers: int
) -> None:
    """Four at first and one after 8 s, looked at after 12 s: what is older than half a window may be forgotten."""
    policy = OutlierPolicy(success_window=window)
    for now in (0.0, 0.0, 0.0, 0.0, 8.0):
        endpoint.learn(endpoint.start(now), OK, now, policy, lambda endpoint: None, Random(1))
    assert endpoint.accrual.success_rate(12.0, window) == (1.0, answers)


def test_when_no_more_may_be_ejected_it_is_not(endpoint: Endpoint) -> None:
    for _ in range(20):
        assert not judge(endpoint, SILENT, may=False)
        assert not judge(endpoint, REFUSED, may=False)
    assert not endpoint.is_ejected(0.0)


def test_whether_more_may_be_ejected_is_asked_only_when_it_comes_to_that(endpoint: Endpoint) -> None:
    """The answer costs a look at every endpoint."""

    def veto(endpoint: Endpoint) -> str | None:
        asked.append(True)
        return None

    asked: list[bool] = []
    ticket = endpoint.start(0.0)
    for outcome in (OK, SILENT, SILENT, OK, SILENT):
        endpoint.learn(ticket, outcome, 0.0, POLICY, veto, Random(1))
    assert asked == []


def test_what_fails_while_it_is_ejected_does_not_prolong_it(endpoint: Endpoint) -> None:
    tickets = [endpoint.start(0.0) for _ in range(20)]
    judge(endpoint, REFUSED)
    until = endpoint.accrual.until
    for ticket in tickets:
        assert not endpoint.learn(ticket, REFUSED, 1.0, POLICY, lambda endpoint: None, Random(1))
        ticket.close()
    assert endpoint.accrual.until == until


# ---- probation


@pytest.fixture
def probation(endpoint: Endpoint) -> Endpoint:
    """Its ejection is over at 1000, and it has to prove itself."""
    eject(endpoint)
    return endpoint


def test_after_its_time_it_gets_one_request_at_a_time(probation: Endpoint) -> None:
    assert not probation.is_ejected(1000.0)
    probe = probation.start(1000.0)
    assert probe.is_probe
    assert probation.is_ejected(1000.0)
    other = probation.start(1000.0)  # all are ejected, and one has to be taken
    assert not other.is_probe
    probe.close()
    assert not probation.is_ejected(1000.0)


def test_a_probe_that_succeeds_ends_the_ejection_for_good(probation: Endpoint) -> None:
    assert not judge(probation, OK, 1000.0)
    assert not probation.is_ejected(1000.0)
    first, second = probation.start(1000.0), probation.start(1000.0)
    assert not first.is_probe
    assert not second.is_probe
    assert not probation.is_ejected(1000.0)


def test_after_a_probe_that_succeeded_ejections_begin_with_the_base_again(probation: Endpoint) -> None:
    judge(probation, OK, 1000.0)
    judge(probation, REFUSED, 1000.0)
    assert not probation.is_ejected(1005.0)


def test_a_probe_that_fails_ejects_at_once(probation: Endpoint) -> None:
    assert judge(probation, SILENT, 1000.0)
    assert probation.is_ejected(1001.0)


def test_a_probe_that_was_cancelled_proves_nothing_and_the_next_one_tries(probation: Endpoint) -> None:
    for _ in range(3):
        probe = probation.start(1000.0)
        assert probe.is_probe
        probe.close()
        assert not probation.is_ejected(1000.0)


def test_a_probe_whose_failure_may_not_eject_leaves_it_on_probation(probation: Endpoint) -> None:
    assert not judge(probation, SILENT, 1000.0, may=False)
    assert not probation.is_ejected(1000.0)
    assert probation.start(1000.0).is_probe


@pytest.mark.parametrize("verdict", [OK, answer(0.1, 503)])
def test_a_probe_whose_body_is_still_read_holds_nobody_up(probation: Endpoint, verdict: Outcome) -> None:
    """A stream of events may last for days; the verdict came with its headers."""
    stream = probation.start(1000.0)
    probation.learn(stream, verdict, 1000.0, POLICY, lambda endpoint: None, Random(1))
    judge(probation, REFUSED, 2000.0)
    assert probation.is_ejected(2000.0)
    assert not probation.is_ejected(3000.0)
    probe = probation.start(3000.0)
    assert probe.is_probe
    stream.close()
    assert probation.is_ejected(3000.0)  # the stream's end does not give somebody else's place away
    assert probation.in_flight == 1


def test_who_was_under_way_before_the_ejection_is_no_probe(endpoint: Endpoint) -> None:
    early = endpoint.start(0.0)
    eject(endpoint)
    endpoint.learn(early, OK, 1.0, POLICY, lambda endpoint: None, Random(1))
    early.close()
    assert endpoint.is_ejected(2.0)


# ---- its life


def test_a_draining_instance_is_retired_from_the_start() -> None:
    assert Endpoint(instance(1, state=State.DRAINING), now=0.0).is_retired
    assert not Endpoint(instance(1, state=State.UNREADY), now=0.0).is_retired


def test_retiring_tells_everybody_once(endpoint: Endpoint) -> None:
    told: list[str] = []
    endpoint.on_retire(lambda: told.append("first"))
    endpoint.on_retire(lambda: told.append("second"))
    assert told == []
    endpoint.retire()
    endpoint.retire()
    assert told == ["first", "second"]
    assert endpoint.is_retired


def test_who_asks_later_is_told_at_once(endpoint: Endpoint) -> None:
    endpoint.retire()
    told: list[str] = []
    endpoint.on_retire(lambda: told.append("late"))
    assert told == ["late"]


def test_a_new_record_is_taken_over_and_a_drain_retires(endpoint: Endpoint) -> None:
    told: list[bool] = []
    endpoint.on_retire(lambda: told.append(True))
    endpoint.update(instance(1, state=State.UNREADY, weight=7))
    assert (endpoint.instance.state, endpoint.instance.weight) == (State.UNREADY, 7)
    assert not endpoint.is_retired
    endpoint.update(instance(1, state=State.DRAINING))
    assert endpoint.is_retired
    assert told == [True]


def test_a_drain_that_is_taken_back_brings_it_back(endpoint: Endpoint) -> None:
    told: list[bool] = []
    endpoint.on_retire(lambda: told.append(True))
    endpoint.update(instance(1, state=State.DRAINING))
    endpoint.update(instance(1))
    assert not endpoint.is_retired
    endpoint.on_retire(lambda: told.append(True))
    endpoint.update(instance(1, state=State.DRAINING))
    assert told == [True, True], "once each: who came back has to say anew that it wants to know"


def test_a_new_record_keeps_the_history(endpoint: Endpoint) -> None:
    observe(endpoint, answer(0.7), 0.0)
    ticket = endpoint.start(0.0)
    endpoint.update(instance(1, weight=3))
    assert endpoint.latency(0.0) == 0.7
    assert endpoint.in_flight == 1
    ticket.close()
    assert endpoint.in_flight == 0


def test_it_can_be_looked_at(endpoint: Endpoint) -> None:
    endpoint.start(0.0)
    assert "instance-1" in repr(endpoint)
    assert "in flight 1" in repr(endpoint)
    endpoint.retire()
    assert "retired" in repr(endpoint)
