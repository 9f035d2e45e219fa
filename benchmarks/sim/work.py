"""How long a request takes when nobody is in its way: distributions of service times, each with its mean in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TypeAlias

__all__ = ["Work", "bimodal", "exponential", "lognormal", "truncated_normal"]

Work: TypeAlias = Callable[[Random], float]


def exponential(mean: float) -> Work:
    """What theory is written for."""
    return lambda rng: rng.expovariate(1.0 / mean)


def lognormal(mean: float, sigma: float = 1.0) -> Work:
    """A long tail, as measured services have; with *sigma* 1 the 99th percentile is 6 times the mean."""
    mu = math.log(mean) - sigma * sigma / 2
    return lambda rng: rng.lognormvariate(mu, sigma)


def bimodal(mean: float, *, slow: float = 10.0, share: float = 0.1) -> Work:
    """Hits and misses: *share* of the requests take *slow* times as long as the others."""
    fast = mean / (1.0 - share + share * slow)
    return lambda rng: fast * slow if rng.random() < share else fast


def truncated_normal(mean: float) -> Work:
    """A normal distribution whose deviation is its mean, cut off at 0 (Prequal's testbed), scaled so that *mean* is what
    it has.
    """
    # The mean of N(1, 1) given that it is positive: 1 + pdf(-1) / cdf(1).
    pdf, cdf = math.exp(-0.5) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(math.sqrt(0.5)))
    scale = mean / (1 + pdf / cdf)

    def draw(rng: Random) -> float:
        while True:
            value = rng.gauss(1.0, 1.0)
            if value > 0:
                return value * scale

    return draw
