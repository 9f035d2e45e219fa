"""Balls into bins through the real pickers: requests that never end, so that ``in_flight`` only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import mean
from typing import Any, NamedTuple

from discoclient.balancing.balancer import Balancer, LeastRequest, RandomChoice
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.weights import Candidates
from discoclient.model.instance import Instance

from .references import OnePair
from .report import Check, Plan, Report, Table, number
from .theory import gonnet, growth, one_choice_tail, several_choices_tail, spread_of_maximum

__all__ = ["run", "throw", "twins"]

SIZES = {1_000: 100, 10_000: 30, 100_000: 5, 1_000_000: 3}
"""Bins, and how often."""
QUICK = {1_000: 20, 10_000: 3, 100_000: 1}


class Rule(NamedTuple):
    """``choices``: how many there are; from the second look on it is not just one number, but from two to four."""

    balancer: Balancer
    choices: tuple[int, int]


RULES: dict[str, Rule] = {
    "random": Rule(RandomChoice(), (1, 1)),
    "least_request, one pair": Rule(OnePair(), (2, 2)),
    "least_request": Rule(LeastRequest(), (2, 4)),
}


@dataclass(frozen=True, slots=True)
class Thrown:
    rule: str
    bins: int
    maxima: Sequence[int]
    tail: Sequence[float]
    """The share of the bins with i balls or more, on average."""

    @property
    def expected(self) -> list[tuple[float, int, int]]:
        """What theory says of the fullest, for the least and the most choices."""
        return [spread_of_maximum(tail(choices), self.bins) for choices in reversed(RULES[self.rule].choices)]


@cache
def tail(choices: int) -> list[float]:
    return one_choice_tail() if choices == 1 else several_choices_tail(choices)


def twins(count: int) -> list[Endpoint]:
    """Real endpoints that share what they don't use here (the lock, what speaks against them): a million of them with all
    that is theirs would be a gigabyte.
    """
    instance = Instance(service="bins", id="instance", host="127.0.0.1", port=80)
    first = Endpoint(instance, now=0.0)
    parts = [(name, getattr(first, name)) for name in Endpoint.__slots__]
    made = [first]
    for _ in range(count - 1):
        twin = Endpoint.__new__(Endpoint)
        for name, value in parts:
            setattr(twin, name, value)
        made.append(twin)
    return made


def throw(balancer: Balancer, endpoints: Sequence[Endpoint], rng: Random) -> list[int]:
    """As many balls as bins; how many balls the bins have in the end."""
    pick = balancer.picker(Candidates.of(endpoints), rng).pick
    for _ in endpoints:
        endpoint = pick(0.0)
        if endpoint is not None:
            endpoint.start(0.0)
    return [endpoint.in_flight for endpoint in endpoints]


def run(plan: Plan) -> Report:
    results = []
    for name in RULES:
        for bins, times in (QUICK if plan.is_quick else SIZES).items():
            results.append(_many(name, bins, times, Random(f"{plan.seed}/bins/{name}/{bins}")))
    return Report("bins", [_maxima(results), _loads(results)], _data(results), _checks(results))


def _many(name: str, bins: int, times: int, rng: Random) -> Thrown:
    maxima, shares = [], [0.0] * 16
    for _ in range(times):
        loads = throw(RULES[name].balancer, twins(bins), rng)
        maxima.append(max(loads))
        counts = [0] * (maxima[-1] + 1)
        for load in loads:
            counts[load] += 1
        above = bins
        for load, count in enumerate(counts[: len(shares)]):
            shares[load] += above / bins / times
            above -= count
    return Thrown(name, bins, maxima, shares)


def _known(each: Thrown) -> str:
    """What theory expects: a mean, or two that it lies between."""
    means = [f"{mean:.2f}" for mean, _, _ in each.expected]
    return means[0] if means[0] == means[1] or RULES[each.rule].choices[0] == 1 else " to ".join(means)


_ABOUT = (
    "*one pair*: our picker without its second look, which is two choices and no more; as it is shipped it makes two to "
    "four. *expected*: from the limit of the loads (one choice: Poisson; more: Mitzenmacher's differential equations), "
    "bins taken as independent. *growth*: ln n / ln ln n and ln ln n / ln 2, up to a factor that goes to 1 and a constant."
)


def _maxima(results: Sequence[Thrown]) -> Table:
    rows = []
    for each in results:
        least = RULES[each.rule].choices[0]
        low, high = each.expected[0][1], each.expected[1][2]
        rows.append(
            (
                f"{each.rule}, n = {each.bins:,}",
                f"{len(each.maxima)}",
                f"{mean(each.maxima):.2f}",
                f"{min(each.maxima)} to {max(each.maxima)}",
                _known(each),
                f"{low} to {high}",
                f"{gonnet(each.bins):.2f}" if least == 1 else "",
                f"{growth(least)(each.bins):.2f}",
            )
        )
    return Table(
        "Balls into bins: the fullest of n bins with n balls",
        ("picker", "runs", "mean", "seen", "expected", "99 % of runs", "Gonnet 1981", "growth"),
        rows,
        [_ABOUT],
    )


def _loads(results: Sequence[Thrown]) -> Table:
    largest = {each.rule: each for each in results}
    rows = []
    for load in range(1, 6):
        cells = [f"{load} or more"]
        for name, each in largest.items():
            cells.append(f"{each.tail[load]:.6f}")
            least, most = RULES[name].choices
            if least == most:
                cells.append(f"{tail(least)[load]:.6f}")
        rows.append(cells)
    return Table(
        f"Balls into bins: the share of the bins by load, n = {max(each.bins for each in results):,}",
        ("balls", "random", "theory", "least_request, one pair", "theory", "least_request"),
        rows,
    )


def _data(results: Sequence[Thrown]) -> dict[str, Any]:
    sizes = sorted({each.bins for each in results})
    return {
        "runs": [
            {"rule": each.rule, "bins": each.bins, "maxima": list(each.maxima), "tail": list(each.tail)}
            for each in results
        ],
        "theory": {
            str(choices): {
                "tail": tail(choices)[:16],
                "maxima": {str(bins): spread_of_maximum(tail(choices), bins) for bins in sizes},
            }
            for choices in (1, 2, 4)
        },
    }


def _checks(results: Sequence[Thrown]) -> list[Check]:
    checks = []
    for each in results:
        found = mean(each.maxima)
        # The maximum has a deviation of about 0.8 with one choice, and less with more.
        allowed = 3.5 * 0.85 / len(each.maxima) ** 0.5
        (low, _, _), (high, _, _) = each.expected
        checks.append(
            Check(
                f"fullest of {each.bins:,} bins, {each.rule}",
                _known(each),
                f"{found:.2f}",
                low - allowed <= found <= high + allowed,
                is_theory=True,
            )
        )
    for name, each in {each.rule: each for each in results}.items():
        allowed = 4 / each.bins**0.5
        least, most = (tail(choices) for choices in RULES[name].choices)
        # More choices leave fewer bins empty and fewer full: the shares of one ball are the other way round.
        off = max(
            max(min(a, b) - each.tail[load], each.tail[load] - max(a, b))
            for load, (a, b) in enumerate(zip(least[:8], most[:8]))
        )
        checks.append(
            Check(
                f"shares of {each.bins:,} bins by load, {name}",
                f"theory, to within {number(allowed)}",
                f"off by {number(round(max(0.0, off), 9))} at most",
                off <= allowed,
                is_theory=True,
            )
        )
    return checks
