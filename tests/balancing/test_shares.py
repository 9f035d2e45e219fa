"""Weights: who gets which share, at low load and at high, and when somebody is missing. Seeded."""

from __future__ import annotations

import pytest

from discoclient.model.instance import State
from tests.balancing.fleet import eject, fleet, instance, play, view

WEIGHTED = ["peak_ewma", "least_request", "random"]

weighted = pytest.mark.parametrize("balancer", WEIGHTED)


def check(counts: dict[str, int], weights: list[float], *, within: float = 0.1) -> None:
    picks, total = sum(counts.values()), sum(weights)
    for number, weight in enumerate(weights):
        expected = picks * weight / total
        assert counts.get(f"instance-{number}", 0) == pytest.approx(expected, rel=within), number


@weighted
@pytest.mark.parametrize("in_flight", [0, 1, 20, 200])
@pytest.mark.parametrize(
    "weights", [[100, 100, 50], [10, 20, 30, 40], [100, 100, 100, 100, 400, 400], [0.5, 1.5]], ids=str
)
def test_shares_follow_the_weights(balancer: str, in_flight: int, weights: list[float]) -> None:
    counts = play(
        view(fleet(len(weights), weights=weights, latency=0.01), balancer), 10_000, in_flight=in_flight
    )
    check(counts, weights)


@weighted
@pytest.mark.parametrize("in_flight", [0, 50])
def test_a_canary_beside_big_ones_is_not_starved(balancer: str, in_flight: int) -> None:
    """A weight of 5 beside three of 100 is 1.6 %; dividing the cost by the weight made 0.02 % of it."""
    weights = [100, 100, 100, 5]
    counts = play(view(fleet(4, weights=weights, latency=0.01), balancer), 30_000, in_flight=in_flight)
    assert 0.012 < counts["instance-3"] / 30_000 < 0.021


@weighted
def test_a_canary_does_not_get_more_because_another_one_is_ejected(balancer: str) -> None:
    """1 beside 100 is 1 %, whatever became of the 1,000."""
    weights = [1000, 100, 1]
    endpoints = fleet(3, weights=weights, latency=0.01)
    eject(endpoints[0])
    counts = play(view(endpoints, balancer), 5000)
    assert counts["instance-0"] == 0
    assert counts["instance-2"] < 0.02 * 5000


@weighted
def test_a_canary_does_not_get_more_of_what_is_tried_again(balancer: str) -> None:
    chosen = view(fleet(3, weights=[100, 100, 1], latency=0.01), balancer)
    picked = [chosen.pick(0.0, {"instance-0"}) for _ in range(5000)]
    assert sum(endpoint is not None and endpoint.id == "instance-2" for endpoint in picked) < 0.02 * 5000


@pytest.mark.parametrize("balancer", [*WEIGHTED, "round_robin"])
def test_a_weight_of_nothing_gets_nothing(balancer: str) -> None:
    counts = play(view(fleet(3, weights=[100, 0, 0.01], latency=0.01), balancer), 3000)
    assert counts["instance-1"] == 0


@pytest.mark.parametrize("balancer", [*WEIGHTED, "round_robin"])
def test_unless_there_is_nothing_else(balancer: str) -> None:
    chosen = view(fleet(3, weights=[100, 0, 0], latency=0.01), balancer)
    left = {chosen.pick(0.0, {"instance-0"}) for _ in range(100)}
    assert {endpoint.id for endpoint in left if endpoint} == {"instance-1", "instance-2"}
    counts = play(view(fleet(4, weights=[0] * 4, latency=0.01), balancer), 4000)
    check(counts, [1] * 4)


@weighted
def test_a_weight_of_nothing_and_an_unready_one_are_the_same_last_resort(balancer: str) -> None:
    endpoints = fleet(2, weights=[0, 100], latency=0.01)
    endpoints[1].update(instance(1, state=State.UNREADY))
    picked = play(view(endpoints, balancer), 2000)
    assert picked.keys() <= {"instance-0", "instance-1"}
    assert picked.total() == 2000


@pytest.mark.parametrize("balancer", ["peak_ewma", "least_request"])
def test_within_a_weight_load_still_decides(balancer: str) -> None:
    endpoints = fleet(4, weights=[100, 100, 50, 50], latency=0.01)
    for _ in range(50):
        endpoints[0].start(0.0)
    counts = play(view(endpoints, balancer), 300)
    assert counts["instance-0"] == 0
    assert counts["instance-1"] == pytest.approx(200, rel=0.2)
