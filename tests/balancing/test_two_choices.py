"""Two choices, beyond the textbook: bad pairs are drawn again, retries go to the proven, noise does not decide. Seeded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import EFFORT, PAIRS, TwoChoicesPicker
from discoclient.balancing.weights import WeightClasses
from discoclient.model.outcome import Outcome, OutcomeKind
from tests.balancing.fleet import OK, eject, fleet, observe, view
from tests.support.properties import thorough


def costing(costs: dict[str, float]) -> Callable[[Endpoint, float], float]:
    return lambda endpoint, now: costs[endpoint.id]


def picked(
    endpoints: list[Endpoint],
    costs: list[float],
    *,
    count: int = 4000,
    tried: Container[str] = (),
    **knobs: Any,
) -> Counter[str]:
    table = {endpoint.id: cost for endpoint, cost in zip(endpoints, costs, strict=True)}
    chosen = TwoChoicesPicker(WeightClasses(endpoints), costing(table), Random(1), **knobs)
    found = Counter[str]()
    for _ in range(count):
        endpoint = chosen.pick(0.0, tried)
        assert endpoint is not None
        found[endpoint.id] += 1
    return found


BAD = [1.0] * 5 + [100.0] * 3
"""Three of eight are bad: a pair of them is drawn in 3/8 * 2/7 of all picks, 10.7 %."""


def share_of_the_bad(counts: Counter[str]) -> float:
    return sum(counts[f"instance-{number}"] for number in (5, 6, 7)) / counts.total()


# ---- bad pairs


def test_when_both_of_a_pair_are_bad_another_pair_is_drawn() -> None:
    assert share_of_the_bad(picked(fleet(8), BAD)) == pytest.approx(0.107**2, abs=0.006)


def test_with_one_pair_alone_the_bad_get_what_chance_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: Mitzenmacher's two choices."""
    assert share_of_the_bad(picked(fleet(8), BAD, pairs=1)) == pytest.approx(0.107, abs=0.015)


@pytest.mark.parametrize(
    ("factor", "in_flight", "is_put_aside"),
    [
        (2.4, 0, False),
        (3.2, 0, True),
        (1.4, 1, False),
        (1.75, 1, True),
    ],
)
def test_what_is_too_dear_depends_on_whether_it_is_idle(
    factor: float, in_flight: int, is_put_aside: bool
) -> None:
    endpoints = fleet(8)
    for endpoint in endpoints[5:]:
        for _ in range(in_flight):
            endpoint.start(0.0)
    share = share_of_the_bad(picked(endpoints, [1.0] * 5 + [factor] * 3))
    # Winners that cost more are in the average too, so that the bar lies a little above.
    assert (share < 0.04) == is_put_aside


def test_when_all_become_dear_nobody_is_passed_over() -> None:
    """The bar is what winners usually cost, and that grows with them."""
    endpoints = fleet(6)
    table = dict.fromkeys((endpoint.id for endpoint in endpoints), 1.0)
    looked = 0

    def cost(endpoint: Endpoint, now: float) -> float:
        nonlocal looked
        looked += 1
        return table[endpoint.id]

    chosen = TwoChoicesPicker(WeightClasses(endpoints), cost, Random(1))
    for _ in range(100):
        chosen.pick(0.0)
    table = dict.fromkeys(table, 1000.0)
    for _ in range(200):
        chosen.pick(0.0)
    looked = 0
    counts = Counter(endpoint.id for endpoint in (chosen.pick(0.0) for _ in range(1200)) if endpoint)
    assert looked == 2 * 1200, "one pair each again"
    assert min(counts.values()) > 150


def test_of_two_there_is_no_other_pair() -> None:
    endpoints = fleet(2)
    drawn = Counter[str]()

    def cost(endpoint: Endpoint, now: float) -> float:
        drawn[endpoint.id] += 1
        return 1000.0 if now else 1.0

    chosen = TwoChoicesPicker(WeightClasses(endpoints), cost, Random(1))
    for now in (0.0, 0.0, 1.0, 1.0):
        chosen.pick(now)
    assert drawn.total() == 8


@thorough(150)
@given(
    size=st.integers(1, 9),
    weights=st.sampled_from([[100], [100, 5], [1, 2, 3]]),
    out=st.sets(st.integers(0, 8)),
    tried=st.sets(st.integers(0, 8)),
    seed=st.integers(0, 9),
)
def test_the_two_that_are_compared_are_never_one_and_always_of_those_that_may_be_called(
    size: int, weights: list[int], out: set[int], tried: set[int], seed: int
) -> None:
    endpoints = fleet(size, weights=[weights[number % len(weights)] for number in range(size)])
    for number in out:
        if number < size:
            eject(endpoints[number])
    ids = {f"instance-{number}" for number in tried}
    compared: list[tuple[Endpoint, Endpoint]] = []

    class Watched(TwoChoicesPicker):
        __slots__ = ()

        def _prefers(self, one: Endpoint, cost: float, other: Endpoint, other_cost: float) -> bool:
            compared.append((one, other))
            return super()._prefers(one, cost, other, other_cost)

    chosen = Watched(WeightClasses(endpoints), lambda endpoint, now: 1.0, Random(seed))
    for _ in range(20):
        compared.clear()
        endpoint = chosen.pick(1.0, ids)
        assert len(compared) <= EFFORT
        assert ids or len(compared) <= PAIRS
        for one, other in compared:
            assert one is not other
            assert one.weight == other.weight
            for each in (one, other):
                assert each.id not in ids
                assert not each.is_ejected(1.0)
        assert endpoint is None or endpoint.id not in ids


# ---- retries


@pytest.mark.parametrize("balancer", ["peak_ewma", "least_request"])
def test_a_retry_goes_to_whoever_has_answered_before(balancer: str) -> None:
    """Who never answered costs nothing to try, and may be the next bad one."""
    endpoints = fleet(6)
    for endpoint in endpoints[:3]:
        observe(endpoint, OK, 0.0)
    chosen = view(endpoints, balancer)

    def proven(tried: Container[str]) -> float:
        found = [chosen.pick(0.0, tried) for _ in range(1000)]
        return sum(endpoint is not None and endpoint.is_proven for endpoint in found) / len(found)

    assert proven({"instance-0"}) > 0.9
    assert proven(()) <= 0.55, "a first attempt tries them out"


def test_a_retry_goes_to_the_unproven_if_there_is_nobody_else() -> None:
    found = picked(fleet(4), [0.0] * 4, tried={"instance-0"}, count=300)
    assert found.keys() == {"instance-1", "instance-2", "instance-3"}


def test_a_retry_looks_at_more_pairs() -> None:
    """It must not end up at the next bad one: with half of eight bad, one pick in 4.7 is at a bad one by one pair."""
    costs = [1.0] * 4 + [100.0] * 4
    retried = picked(fleet(8), costs, tried={"nobody"})
    bad = sum(retried[f"instance-{number}"] for number in range(4, 8)) / retried.total()
    assert bad < 0.01


# ---- noise


def test_a_cost_ten_times_as_high_wins_once_in_a_hundred_where_costs_are_noisy() -> None:
    """Never, it would be without a request for many seconds after one peak of milliseconds."""
    found = picked(fleet(2), [10.0, 1.0], count=20_000, is_noisy=True)
    assert found["instance-0"] / 20_000 == pytest.approx(1 / 101, rel=0.2)
    assert picked(fleet(2), [10.0, 1.0], is_noisy=False)["instance-0"] == 0


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_so_many_pairs_are_compared_where_all_are_dear(pairs: int) -> None:
    endpoints = fleet(8)
    looked = 0

    def cost(endpoint: Endpoint, now: float) -> float:
        nonlocal looked
        looked += 1
        return 1.0 if now == 0.0 else 1000.0

    chosen = TwoChoicesPicker(WeightClasses(endpoints), cost, Random(1), pairs=pairs)
    for _ in range(100):
        chosen.pick(0.0)
    looked = 0
    chosen.pick(1.0)
    assert looked == 2 * pairs


def test_latencies_are_compared_in_up_to_three_pairs() -> None:
    """Three of eight bad: by two pairs one pick in 87 has nothing but bad ones to choose from, by three one in 800."""
    endpoints = fleet(8)
    for number, endpoint in enumerate(endpoints):
        observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.01 if number < 5 else 0.5, 200), 0.0)
    chosen = view(endpoints, "peak_ewma")
    bad = Counter(
        endpoint.latency(0.0) > 0.1 for endpoint in (chosen.pick(0.0) for _ in range(20_000)) if endpoint
    )
    assert bad[True] / 20_000 < 0.003


@pytest.mark.parametrize(("one", "odds"), [(1.0, 1 / 2), (2.0, 1 / 5), (3.0, 1 / 10)])
def test_the_odds_are_the_inverse_squares(one: float, odds: float) -> None:
    found = picked(fleet(2), [one, 1.0], count=10_000, is_noisy=True)
    assert found["instance-0"] / 10_000 == pytest.approx(odds, rel=0.1)


def test_what_load_tells_apart_is_left_to_no_chance() -> None:
    busy, idle = fleet(2)
    busy.start(0.0)
    assert picked([busy, idle], [1.2, 1.0], is_noisy=True)["instance-0"] == 0


def test_who_costs_nothing_is_tried_before_who_costs_something() -> None:
    """A newcomer of a fleet that has never answered."""
    assert picked(fleet(2), [0.0, 0.001], is_noisy=True)["instance-1"] == 0
