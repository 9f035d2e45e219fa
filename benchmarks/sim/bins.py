"""Balls into bins through the real pickers: requests that never end, so that ``in_flight`` only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean
from typing import Any, cast

from discoclient.balancing.balancer import Balancer, LeastRequest, RandomChoice
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.weights import Candidates
from discoclient.model.instance import Instance

from .report import Check, Plan, Report, Table, number
from .theory import gonnet, growth, one_choice_tail, spread_of_maximum, two_choices_tail

__all__ = ["Bin", "run", "throw"]

BIG = 200_000
"""From so many on a bin is a `Bin`: a million endpoints, with their locks and counters, are a gigabyte."""

SIZES = {1_000: 100, 10_000: 30, 100_000: 5, 1_000_000: 3}
"""Bins, and how often."""
QUICK = {1_000: 20, 10_000: 3, 100_000: 1}
RULES: dict[str, tuple[int, Balancer]] = {"random": (1, RandomChoice()), "least_request": (2, LeastRequest())}
"""The balancers by name, with how many choices they make."""


class Bin:
    """All that the pickers look at in an endpoint."""

    __slots__ = ("id", "in_flight")
    weight = 100.0

    def __init__(self, id: str) -> None:
        self.id = id
        self.in_flight = 0

    def is_ejected(self, now: float) -> bool:
        return False

    def start(self, now: float) -> None:
        self.in_flight += 1


@dataclass(frozen=True, slots=True)
class Thrown:
    choices: int
    bins: int
    maxima: Sequence[int]
    tail: Sequence[float]
    """The share of the bins with i balls or more, on average."""


def throw(balancer: Balancer, bins: int, rng: Random, *, is_light: bool = False) -> list[int]:
    """As many balls as bins; how many balls the bins have in the end. *is_light*: in a `Bin`, not an `Endpoint`."""
    if is_light:
        endpoints = cast("list[Endpoint]", [Bin(str(index)) for index in range(bins)])
    else:
        instance = Instance(service="bins", id="instance", host="127.0.0.1", port=80)
        endpoints = [Endpoint(instance, now=0.0) for _ in range(bins)]
    pick = balancer.picker(Candidates.of(endpoints), rng).pick
    for _ in range(bins):
        endpoint = pick(0.0)
        if endpoint is not None:
            endpoint.start(0.0)
    return [endpoint.in_flight for endpoint in endpoints]


def run(plan: Plan) -> Report:
    results = []
    for choices, balancer in RULES.values():
        for bins, times in (QUICK if plan.is_quick else SIZES).items():
            rng = Random(f"{plan.seed}/bins/{choices}/{bins}")
            results.append(_many(choices, balancer, bins, times, rng))
    tails = {1: one_choice_tail(), 2: two_choices_tail()}
    return Report(
        "bins",
        [_maxima(results, tails), _loads(results, tails)],
        _data(results, tails),
        _checks(results, tails),
    )


def _many(choices: int, balancer: Balancer, bins: int, times: int, rng: Random) -> Thrown:
    maxima, tail = [], [0.0] * 16
    for _ in range(times):
        loads = throw(balancer, bins, rng, is_light=bins >= BIG)
        maxima.append(max(loads))
        counts = [0] * (maxima[-1] + 1)
        for load in loads:
            counts[load] += 1
        above = bins
        for load, count in enumerate(counts[: len(tail)]):
            tail[load] += above / bins / times
            above -= count
    return Thrown(choices, bins, maxima, tail)


def _maxima(results: Sequence[Thrown], tails: dict[int, list[float]]) -> Table:
    rows = []
    for each in results:
        expected, low, high = spread_of_maximum(tails[each.choices], each.bins)
        rows.append(
            (
                f"{'random, one choice' if each.choices == 1 else 'least_request, two choices'}, n = {each.bins:,}",
                f"{len(each.maxima)}",
                f"{mean(each.maxima):.2f}",
                f"{min(each.maxima)} to {max(each.maxima)}",
                f"{expected:.2f}",
                f"{low} to {high}",
                f"{gonnet(each.bins):.2f}" if each.choices == 1 else "",
                f"{growth(each.choices)(each.bins):.2f}",
            )
        )
    return Table(
        "Balls into bins: the fullest of n bins with n balls",
        ("picker", "runs", "mean", "seen", "expected", "99 % of runs", "Gonnet 1981", "growth"),
        rows,
        [
            "*expected*: from the limit of the loads (one choice: Poisson; two: Mitzenmacher's differential equations), bins taken as "
            "independent. *growth*: ln n / ln ln n and ln ln n / ln 2, up to a factor that goes to 1 and a constant. From "
            f"{BIG:,} bins on the pickers are real and the endpoints light."
        ],
    )


def _loads(results: Sequence[Thrown], tails: dict[int, list[float]]) -> Table:
    rows = []
    largest = {each.choices: each for each in results}
    for load in range(1, 6):
        cells = [f"{load} or more"]
        for choices, each in largest.items():
            cells += [f"{each.tail[load]:.6f}", f"{tails[choices][load]:.6f}"]
        rows.append(cells)
    bins = max(each.bins for each in results)
    return Table(
        f"Balls into bins: the share of the bins by load, n = {bins:,}",
        ("balls", "random", "theory", "least_request", "theory"),
        rows,
    )


def _data(results: Sequence[Thrown], tails: dict[int, list[float]]) -> dict[str, Any]:
    return {
        "runs": [
            {"choices": each.choices, "bins": each.bins, "maxima": list(each.maxima), "tail": list(each.tail)}
            for each in results
        ],
        "theory": {
            str(choices): {
                "tail": tail[:16],
                "maxima": {
                    str(bins): spread_of_maximum(tail, bins)
                    for bins in sorted({each.bins for each in results})
                },
            }
            for choices, tail in tails.items()
        },
    }


def _checks(results: Sequence[Thrown], tails: dict[int, list[float]]) -> list[Check]:
    checks = []
    for each in results:
        expected, low, high = spread_of_maximum(tails[each.choices], each.bins)
        found = mean(each.maxima)
        # The maximum has a deviation of about 0.8 with one choice, and less with two.
        allowed = 3.5 * 0.85 / len(each.maxima) ** 0.5
        checks.append(
            Check(
                f"fullest of {each.bins:,} bins, {'one choice' if each.choices == 1 else 'two choices'}",
                f"{expected:.2f}, {low} to {high}",
                f"{found:.2f}, {min(each.maxima)} to {max(each.maxima)}",
                abs(found - expected) <= allowed,
                is_theory=True,
            )
        )
    for choices, each in {each.choices: each for each in results}.items():
        worst = max(abs(each.tail[load] - tails[choices][load]) for load in range(1, 8))
        checks.append(
            Check(
                f"shares of the bins by load, {each.bins:,} bins, {'one choice' if choices == 1 else 'two choices'}",
                "theory, to within 4 / sqrt(n)",
                f"off by {number(worst)} at most",
                worst <= 4 / each.bins**0.5,
                is_theory=True,
            )
        )
    return checks
