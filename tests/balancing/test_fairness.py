"""Equals get equal shares also when hardly anything is in flight, and a cold start is not held against anybody."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from discoclient.balancing.balancer import PeakEwma
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker, TwoChoicesPicker
from discoclient.balancing.weights import WeightClasses
from discoclient.model.instance import Instance
from discoclient.model.outcome import Outcome, OutcomeKind
from tests.balancing.fleet import observe

RATE, WINDOW = 160, 4


def fleet(size: int) -> list[Endpoint]:
    return [
        Endpoint(Instance(service="web", id=f"instance-{n}", host="127.0.0.1", port=8000 + n), now=0.0)
        for n in range(size)
    ]


def least_share(picker: Picker, size: int, rng: Random) -> float:
    """The smallest share that any endpoint had in any window of a minute, one request at a time, equal latencies."""
    now, shares, counts = 0.0, [], Counter[str]()
    for number in range(1, RATE * 60 + 1):
        now += 1 / RATE
        endpoint = picker.pick(now)
        assert endpoint is not None
        ticket = endpoint.start(now)
        observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.002 * rng.lognormvariate(0, 0.5), 200), now)
        ticket.close()
        counts[endpoint.id] += 1
        if number % (RATE * WINDOW) == 0:
            shares += [counts[f"instance-{n}"] / (RATE * WINDOW) for n in range(size)]
            counts.clear()
    return min(shares)


@pytest.mark.parametrize("seed", range(5))
def test_no_equal_is_starved_for_seconds_by_chance(seed: int) -> None:
    rng = Random(seed)
    assert least_share(PeakEwma().picker(fleet(3), rng), 3, rng) > 0.1


def test_a_sharp_comparison_starves_the_worst_of_three() -> None:
    """Negative control: what the one above is there for."""
    rng = Random(1)
    assert least_share(TwoChoicesPicker(WeightClasses(fleet(3)), Endpoint.cost, rng), 3, rng) < 0.05


def test_the_first_answer_on_a_new_connection_is_no_measure_of_an_instance() -> None:
    (endpoint,) = fleet(1)
    observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.5, 200, is_warm=False), 0.0)
    assert endpoint.latency(0.0) == 0.0
    observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.003, 200), 0.0)
    assert endpoint.latency(0.0) == 0.003


def test_a_failure_on_a_new_connection_counts_all_the_same() -> None:
    (endpoint,) = fleet(1)
    observe(endpoint, Outcome(OutcomeKind.NOT_SENT, 0.001, is_warm=False), 0.0)
    assert endpoint.latency(0.0) >= 1.0
