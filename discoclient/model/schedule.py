"""Waiting times: schedules are made per use, and get their chance from outside."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

__all__ = ["full_jitter", "jittered"]


def full_jitter(rng: Random, *, first: float, cap: float, factor: float = 2.0) -> Iterator[float]:
    """Delays in seconds, each drawn from 0 to a bound that grows from *first* by *factor* up to *cap*.

    Full jitter spreads a fleet that lost the same registry best (M. Brooker, "Exponential backoff and jitter", AWS, 2015).
    """
    bound = min(first, cap)
    while True:
        yield rng.uniform(0.0, bound)
        bound = min(cap, bound * factor)


def jittered(rng: Random, seconds: float, share: float) -> float:
    """*seconds*, more or less by up to *share* of itself, so that many processes do not act in step."""
    return seconds * rng.uniform(1.0 - share, 1.0 + share)
