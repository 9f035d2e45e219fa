"""Shares are the configured ones for every balancer, one at a time as well as a thousand at once. Seeded."""

from __future__ import annotations

from random import Random

import pytest

from discoclient.balancing.picker import TwoChoicesPicker
from discoclient.balancing.weights import WeightClasses
from tests.balancing.building import check_shares
from tests.balancing.fleet import BALANCERS, fleet, instance, play, view

every_balancer = pytest.mark.parametrize("balancer", BALANCERS)
loads = pytest.mark.parametrize("in_flight", [1, 1000])


def shares(weights: list[float]) -> dict[str, float]:
    return {f"instance-{number}": weight for number, weight in enumerate(weights)}


@every_balancer
@loads
@pytest.mark.parametrize("weights", [[100, 100, 100, 5], [1, 2, 3, 4, 5]], ids=str)
def test_shares_are_within_ten_percent_over_ten_thousand_picks(
    balancer: str, in_flight: int, weights: list[float]
) -> None:
    endpoints = fleet(len(weights), weights=weights, latency=0.01)
    check_shares(play(view(endpoints, balancer), 10_000, in_flight=in_flight), shares(weights))


@every_balancer
def test_the_tiniest_is_neither_starved_nor_overfed(balancer: str) -> None:
    """One pick in twenty thousand: three are due."""
    endpoints = fleet(2, weights=[0.5, 9999], latency=0.01)
    counts = play(view(endpoints, balancer), 60_000, in_flight=1)
    assert 1 <= counts["instance-0"] <= 9


@every_balancer
@pytest.mark.parametrize("in_flight", [1, 1000])
def test_shares_are_the_weights_whatever_the_latencies(balancer: str, in_flight: int) -> None:
    """Of classes that differ in weight: within one, load decides."""
    weights: list[float] = [100, 20, 50]
    endpoints = fleet(3, weights=weights, latency=0.01)
    counts = play(
        view(endpoints, balancer),
        5000,
        in_flight=in_flight,
        latency=lambda endpoint: 3.0 if endpoint.weight == 20 else 0.01,
    )
    check_shares(counts, shares(weights))


@every_balancer
def test_a_weight_that_is_changed_changes_the_share(balancer: str) -> None:
    endpoints = fleet(3, latency=0.01)
    before = view(endpoints, balancer)
    check_shares(play(before, 3000), shares([1, 1, 1]))
    endpoints[0].update(instance(0, weight=400))
    check_shares(play(view(endpoints, balancer), 6000), shares([400, 100, 100]))


def test_a_weight_that_divides_the_cost_starves_a_canary() -> None:
    """Negative control: what acts on the cost and not on the sampling."""
    weights = dict(zip(shares([100] * 4), [100, 100, 100, 5], strict=True))
    chosen = TwoChoicesPicker(
        WeightClasses(fleet(4, latency=0.01)),
        lambda endpoint, now: endpoint.cost(now) / weights[endpoint.id],
        Random(1),
    )
    picked = [chosen.pick(0.0) for _ in range(10_000)]
    assert sum(endpoint is not None and endpoint.id == "instance-3" for endpoint in picked) < 0.002 * 10_000
