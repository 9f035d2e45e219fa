"""What is known: the results that the simulator must reproduce before it is believed.
 One choice: the loads of n bins are Poisson(1) as good as independently, so the longest is known by its distribution; its
mean is ``inverse_gamma(n) - 3/2 + o(1)`` (G. Gonnet, "Expected length of the longest probe sequence in hash code
searching", 1981), which grows as ``ln n / ln ln n``.
 d choices: the share of the bins with i balls or more follows ``ds_i/dt = s_(i-1)^d - s_i^d`` as balls come at rate n for
one unit of time (M. Mitzenmacher, "Studying balanced allocations with differential equations", 1999). The maximum grows
as ``ln ln n / ln d + O(1)`` (Y. Azar, A. Broder, A. Karlin, E. Upfal, "Balanced allocations", 1999).
 Queues with Poisson arrivals and exponential service at load rho: a request takes ``1 / (1 - rho)`` mean services with
one choice (M/M/1), and ``sum over i of rho^((d^i - d) / (d - 1))`` with d (the supermarket model: N. Vvedenskaya, R.
Dobrushin, F. Karpelevich, 1996; M. Mitzenmacher, "The power of two choices in randomized load balancing", 2001), both for
infinitely many servers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

__all__ = [
    "erlang_c_time",
    "gonnet",
    "growth",
    "one_choice_tail",
    "queue_time",
    "several_choices_tail",
    "spread_of_maximum",
]

DEPTH = 24
"""Loads that are reckoned with: more balls in a bin, at one a bin, are never seen."""
STEPS = 400


def one_choice_tail() -> list[float]:
    """The share of the bins with i balls or more, for i = 0, 1, ..."""
    tail, term = [1.0], math.exp(-1.0)
    for index in range(1, DEPTH):
        tail.append(max(0.0, tail[-1] - term))
        term /= index
    # Differences of small numbers: from where they cancel out on, the sum from behind.
    return [max(share, math.exp(-1.0) / math.factorial(index)) for index, share in enumerate(tail)]


def several_choices_tail(choices: int) -> list[float]:
    """The same with two choices or more: the differential equations, by Runge and Kutta."""

    def slope(shares: Sequence[float]) -> list[float]:
        return [0.0] + [before**choices - here**choices for before, here in pairwise(shares)]

    def moved(shares: Sequence[float], by: Sequence[float], step: float) -> list[float]:
        return [share + step * change for share, change in zip(shares, by)]

    shares, step = [1.0] + [0.0] * (DEPTH - 1), 1.0 / STEPS
    for _ in range(STEPS):
        one = slope(shares)
        two = slope(moved(shares, one, step / 2))
        three = slope(moved(shares, two, step / 2))
        four = slope(moved(shares, three, step))
        shares = [
            share + step / 6 * (a + 2 * b + 2 * c + d)
            for share, a, b, c, d in zip(shares, one, two, three, four)
        ]
    return shares


def spread_of_maximum(tail: Sequence[float], bins: int) -> tuple[float, int, int]:
    """The mean of the longest of *bins*, and between what it lies in 99 of 100 cases, if they are taken as independent."""
    below = [math.exp(bins * math.log1p(-min(share, 1 - 1e-12))) for share in tail]  # P(maximum < i)
    mean = sum(1.0 - share for share in below[1:])
    low = next(index for index, share in enumerate(below) if share > 0.005) - 1
    high = next(index for index, share in enumerate(below) if share > 0.995) - 1
    return mean, low, high


def gonnet(bins: int) -> float:
    """The mean of the longest of *bins* with one choice."""
    low, high = 2.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if math.lgamma(middle) < math.log(bins) else (low, middle)
    return low - 1.5


def growth(choices: int) -> Callable[[int], float]:
    """How the maximum grows, without the terms that vanish or stay."""
    if choices == 1:
        return lambda bins: math.log(bins) / math.log(math.log(bins))
    return lambda bins: math.log(math.log(bins)) / math.log(choices)


def queue_time(load: float, choices: int) -> float:
    """Mean services that a request takes, waiting included."""
    if choices == 1:
        return 1.0 / (1.0 - load)
    return math.fsum(load ** ((float(choices) ** index - choices) / (choices - 1)) for index in range(1, 30))


def erlang_c_time(load: float, workers: int) -> float:
    """The same for one queue with several workers (M/M/c)."""
    offered = load * workers
    terms = [offered**index / math.factorial(index) for index in range(workers)]
    last = offered**workers / math.factorial(workers) / (1.0 - load)
    return 1.0 + last / (sum(terms) + last) / (workers * (1.0 - load))
