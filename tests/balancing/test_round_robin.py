"""Round robin: exact shares, evenly spaced, without a search however the weights are spread. Seeded."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing import round_robin
from discoclient.balancing.balancer import find_balancer
from discoclient.balancing.round_robin import RoundRobinPicker
from discoclient.balancing.weights import Candidates
from tests.balancing.building import check_shares
from tests.balancing.fleet import eject, fleet, play, view
from tests.support.properties import thorough

NAMES = ["round_robin", "weighted_round_robin"]

WEIGHTS = [
    [100, 100, 100, 5],
    [1, 2, 3, 4, 5],
    [0.5, 9999],
    [1] * 7,
    [5, 1, 1],
    [10_000, 1, 1, 1],
    [3, 7, 11, 13, 17, 19, 23],
]


def order(weights: list[float], picks: int, *, seed: int = 1) -> list[int]:
    """The numbers of those that are picked, one after the other."""
    endpoints = fleet(len(weights), weights=weights)
    numbers = {endpoint.id: number for number, endpoint in enumerate(endpoints)}
    chosen = RoundRobinPicker(endpoints, Random(seed))
    found = []
    for _ in range(picks):
        endpoint = chosen.pick(0.0)
        assert endpoint is not None
        found.append(numbers[endpoint.id])
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_flight", [0, 1000])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_shares_are_exact_at_any_load(name: str, in_flight: int, weights: list[float]) -> None:
    counts = play(view(fleet(len(weights), weights=weights), name), 10_000, in_flight=in_flight)
    shares = {f"instance-{number}": weight for number, weight in enumerate(weights)}
    check_shares(counts, shares, within=0.01, is_exact=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_at_any_moment_everybody_had_its_share_to_within_three(weights: list[float], seed: int) -> None:
    """Smooth: no bursts of one. In any stretch of picks, wherever it begins and ends."""
    total = sum(weights)
    lead = dict.fromkeys(range(len(weights)), 0.0)
    most, least = dict(lead), dict(lead)
    for number, found in enumerate(order(weights, 3000, seed=seed), start=1):
        lead[found] += 1
        for index, weight in enumerate(weights):
            ahead = lead[index] - number * weight / total
            most[index], least[index] = max(most[index], ahead), min(least[index], ahead)
    assert max(most[index] - least[index] for index in lead) <= 3.0


@thorough(60)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=12), st.integers(0, 9))
def test_the_wait_for_the_next_turn_is_that_of_the_share(weights: list[int], seed: int) -> None:
    total = sum(weights)
    turns: dict[int, list[int]] = {}
    for number, found in enumerate(order(list(weights), 600, seed=seed)):
        turns.setdefault(found, []).append(number)
    for index, weight in enumerate(weights):
        if 600 * weight / total < 3:
            continue
        gaps = [later - earlier for earlier, later in itertools.pairwise(turns[index])]
        assert max(gaps) <= 3 * total / weight + 2, (index, max(gaps), total / weight)


def test_of_equals_each_has_its_turn_in_every_round_in_the_same_order() -> None:
    found = order([100] * 5, 50)
    assert sorted(found[:5]) == list(range(5))
    assert found == found[:5] * 10


def test_where_it_begins_is_chance() -> None:
    assert {order([1] * 6, 1, seed=seed)[0] for seed in range(60)} == set(range(6))


def test_who_weighs_half_of_all_has_every_other_turn() -> None:
    found = order([100, 50, 50], 400)
    assert all(0 in pair for pair in itertools.pairwise(found))
    assert found.count(0) == 200


def test_a_newcomers_factor_counts() -> None:
    endpoints = fleet(3)
    chosen = RoundRobinPicker(Candidates.of(endpoints, {"instance-0": 0.1}), Random(1))
    counts = Counter(endpoint.id for endpoint in map(chosen.pick, [0.0] * 2100) if endpoint)
    assert counts["instance-0"] == pytest.approx(100, abs=1)


def test_weighted_shares_hold_among_those_that_are_left() -> None:
    endpoints = fleet(4, weights=[100, 50, 50, 200])
    eject(endpoints[3])
    chosen = find_balancer("round_robin").picker(Candidates.of(endpoints), Random(1))
    counts = Counter(endpoint.id for endpoint in map(chosen.pick, [0.0] * 4000) if endpoint)
    check_shares(counts, {"instance-0": 100, "instance-1": 50, "instance-2": 50}, is_exact=True)


@pytest.mark.parametrize(
    "weights",
    [[10_000] + [1] * 999, [1] * 999 + [10_000], [2.0**power for power in range(13)] * 20, [1] * 1000],
    ids=["one heavy first", "one heavy last", "all sizes", "equals"],
)
def test_a_pick_is_no_search(weights: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that are looked at, those that are left out among them."""
    looked = 0

    def counting(start: int) -> Iterator[int]:
        nonlocal looked
        for number in itertools.count(start):
            looked += 1
            yield number

    monkeypatch.setattr(round_robin, "count", counting)
    order(weights, 2000)
    assert looked <= 2000 * 16


def test_by_one_stride_over_all_it_would_be_one() -> None:
    """Negative control: what the buckets are there for."""
    stride = round_robin._Stride([10_000, *[1] * 999], Random(1))
    before = next(stride._turns)
    for _ in range(200):
        stride.next()
    assert next(stride._turns) - before > 200 * 100
