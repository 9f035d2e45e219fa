"""The ledger: what calls have in common, how it is counted, and when a panic begins and ends. Virtual time."""

from __future__ import annotations

import threading
from random import Random

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.calling.ledger import LOOK_AGAIN, Ledger, Policies, may_eject_more
from discoclient.model.events import PanicChanged
from discoclient.model.policy import (
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    ThrottlePolicy,
)
from tests.balancing.fleet import eject, fleet


def ledger(**policies: object) -> Ledger:
    return Ledger("web", Policies(**policies))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "share", "most"),
    [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.25, 2), (10, 0.01, 1), (10, 1.0, 10)],
)
def test_so_many_may_be_ejected_and_one_always(total: int, share: float, most: int) -> None:
    policy = OutlierPolicy(max_ejected=share)
    allowed = [ejected for ejected in range(total) if may_eject_more(ejected, total, policy)]
    assert allowed == list(range(most))


# ---- what it keeps


def test_what_is_not_asked_for_is_not_kept() -> None:
    plain = ledger()
    assert (plain.hedges, plain.latencies, plain.is_guarded) == (None, None, False)
    assert ledger(throttle=ThrottlePolicy()).is_guarded
    assert ledger(recovery=RecoveryPolicy(min_working=2)).is_guarded
    hedging = ledger(hedge=HedgePolicy())
    assert hedging.hedges is not None
    assert hedging.latencies is not None
    assert not hedging.is_guarded


def test_clients_with_equal_policies_can_share_it() -> None:
    """They are the key that it is shared by."""
    assert hash(Policies(retry=RetryPolicy(budget=0.1))) == hash(Policies(retry=RetryPolicy(budget=0.1)))
    assert Policies(hedge=HedgePolicy()) != Policies()


def test_the_budgets_have_the_numbers_of_the_policies() -> None:
    found = ledger(retry=RetryPolicy(budget=0.5, budget_reserve=2.0), hedge=HedgePolicy(budget=0.1))
    assert found.hedges is not None
    assert (found.budget.balance(0.0), found.hedges.balance(0.0)) == (20, 0)
    for _ in range(100):
        found.record(0.0)
    assert (found.budget.balance(0.0), found.hedges.balance(0.0)) == (70, 10)


def test_stats_count_requests_retries_and_whatever_happened() -> None:
    found = ledger()
    assert found.stats() == {"requests": 0, "retries": 0}
    for _ in range(3):
        found.record(0.0)
    found.budget.try_spend(0.0)
    found.count("throttled")
    found.count("throttled")
    assert found.stats() == {"requests": 3, "retries": 1, "throttled": 2}


def test_no_count_of_a_thread_is_lost() -> None:
    found = ledger()

    def work() -> None:
        for _ in range(3000):
            found.count("hedges")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found.stats()["hedges"] == 12_000


# ---- admission


def by_id(endpoints: list[Endpoint]) -> dict[str, Endpoint]:
    return {endpoint.id: endpoint for endpoint in endpoints}


def test_without_guards_everything_is_admitted() -> None:
    assert all(ledger().admit({}, 0.0, Random(1)) is None for _ in range(100))


def test_who_is_on_probation_does_not_carry_load_yet() -> None:
    """Otherwise one that is tried out again and again would be counted in and out, and a recovery would never settle."""
    endpoints = fleet(2)
    for endpoint in endpoints:
        eject(endpoint, seconds=10.0)
    found = ledger(recovery=RecoveryPolicy(min_working=2))
    assert found.admit(by_id(endpoints), 1.0, Random(1)) is None
    later = max(endpoint.accrual.until for endpoint in endpoints)
    assert not any(endpoint.is_ejected(later) for endpoint in endpoints)
    assert all(found.admit(by_id(endpoints), later, Random(1)) is None for _ in range(50)), "as in an outage"
    endpoints[0] = Endpoint(endpoints[0].instance, now=later)
    refused = [found.admit(by_id(endpoints), later, Random(seed)) for seed in range(50)]
    assert any(refused)
    assert {event.probability for event in refused if event} == {0.5}


def test_recovery_is_asked_first_and_what_it_refuses_is_not_counted_by_the_throttle() -> None:
    found = ledger(recovery=RecoveryPolicy(min_working=1000), throttle=ThrottlePolicy())
    endpoints = fleet(1)
    found.admit({}, 0.0, Random(1))
    refusals = [found.admit(by_id(endpoints), 1.0, Random(seed)) for seed in range(100)]
    assert {event.policy for event in refusals if event} == {"recovery"}
    assert found._throttle is not None
    assert found._throttle.probability(50.0) <= 2 / 3, "two requests at most, and no hundred"


# ---- panic


def changes(found: Ledger, endpoints: list[Endpoint], script: str, *, start: float = 0.0) -> list[bool]:
    """``c``: one was due and is not ejected; ``.``: any other end of an attempt; ``_``: time passes."""
    now, said = start, []
    for letter in script:
        if letter == "_":
            now += LOOK_AGAIN
            continue
        event = found.panic(endpoints, now, is_capped=letter == "c")
        if event is not None:
            said.append(event.is_panic)
    return said


def test_a_panic_begins_with_the_first_that_is_not_ejected_for_the_cap() -> None:
    endpoints = fleet(4)
    for endpoint in endpoints[:2]:
        eject(endpoint, 100.0, seconds=50.0)
    found = ledger()
    assert found.panic(endpoints, 100.0, is_capped=False) is None
    assert found.panic(endpoints, 100.0, is_capped=True) == PanicChanged("web", True, 2, 4)
    assert found.is_panic
    assert [found.panic(endpoints, 100.0 + number, is_capped=True) for number in range(5)] == [None] * 5


def test_it_goes_on_while_no_more_could_be_ejected() -> None:
    endpoints = fleet(4)
    for endpoint in endpoints[:2]:
        eject(endpoint, seconds=1000.0)
    assert changes(ledger(), endpoints, "c._._._.") == [True]


def test_it_is_over_when_one_could_be_and_is_looked_at_once_a_second() -> None:
    endpoints = fleet(4)
    for endpoint in endpoints[:2]:
        eject(endpoint, seconds=1000.0)
    found = ledger()
    assert changes(found, endpoints, "c") == [True]
    endpoints[0] = Endpoint(endpoints[0].instance, now=0.0)
    assert changes(found, endpoints, "....") == []
    assert changes(found, endpoints, "....", start=LOOK_AGAIN) == [False]
    assert not found.is_panic
    assert changes(found, endpoints, "..__..", start=LOOK_AGAIN) == []


def test_who_has_left_counts_neither_as_ejected_nor_as_there() -> None:
    endpoints = fleet(5)
    for endpoint in endpoints[:3]:
        eject(endpoint, seconds=1000.0)
    endpoints[0].retire()
    event = ledger().panic(endpoints, 0.0, is_capped=True)
    assert event == PanicChanged("web", True, 2, 4)


def test_a_panic_makes_good_answers_interesting_and_its_end_makes_them_dull_again() -> None:
    endpoints = fleet(4)
    found = ledger()
    curious = [found.is_curious]
    for script, start in (("c", 0.0), (".", LOOK_AGAIN)):
        changes(found, endpoints, script, start=start)
        curious.append(found.is_curious)
    assert curious == [False, True, False]
    guarded = ledger(throttle=ThrottlePolicy())
    changes(guarded, endpoints, "c_.")
    assert guarded.is_curious
