"""A picker chooses an endpoint for one attempt: on the hot path, without I/O, without a shared lock, without blocking."""

from __future__ import annotations

from collections.abc import Callable, Container
from random import Random
from typing import Protocol, TypeAlias

from .endpoint import Endpoint
from .weights import WeightClasses

__all__ = ["HashKey", "Picker", "RandomPicker", "TwoChoicesPicker", "pick_left"]

HashKey: TypeAlias = str | bytes | int

EFFORT = 4
"""Draws before the whole set is looked at (Finagle's ``maxEffort``): with half of it ejected, 4 pairs miss in 1 of 256 picks."""


class Picker(Protocol):
    def pick(self, now: float, tried: Container[str] = (), key: HashKey | None = None) -> Endpoint | None:
        """An endpoint whose id is not in *tried*, or ``None`` if there is none. Never waits, does no I/O.

        An ejected endpoint is picked only when no other is left (fail open). *key* is the request's ``hash_key``, for pickers that send
        equal keys to the same endpoint; it is passed on only when a request has one.
        """


def pick_left(
    weights: WeightClasses,
    now: float,
    tried: Container[str],
    rng: Random,
    cost: Callable[[Endpoint, float], float] | None = None,
) -> Endpoint | None:
    """The slow way, when drawing found nothing: look at all of them, those that are not ejected first."""
    left = [endpoint for endpoint in weights.everyone if endpoint.id not in tried]
    able = [endpoint for endpoint in left if not endpoint.is_ejected(now)] or left
    if not able:
        return None
    group = weights.only(able).draw(rng)
    if cost is None:
        return rng.choice(group)
    return min(rng.sample(group, min(2, len(group))), key=lambda endpoint: cost(endpoint, now))


class TwoChoicesPicker:
    """Two distinct endpoints at random, the better one wins: ejected or not first, then the lower *cost*.

    M. Mitzenmacher, "The power of two choices in randomized load balancing" (2001). With *is_noisy* costs, where the load
    does not tell the two apart, the better one wins only as often as it is better: with odds of the inverse squares. The
    costs of equals differ by chance; a sharp comparison would leave the worst of three without a request for seconds, and
    what gets none can't show that it is well. A cost ten times as high still means 1 in 101.
    """

    __slots__ = ("_cost", "_is_noisy", "_rng", "_weights")

    def __init__(
        self,
        weights: WeightClasses,
        cost: Callable[[Endpoint, float], float],
        rng: Random,
        *,
        is_noisy: bool = False,
    ) -> None:
        self._weights = weights
        self._cost = cost
        self._is_noisy = is_noisy
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = (), key: HashKey | None = None) -> Endpoint | None:
        weights = self._weights
        if not weights.classes:
            return None
        random = self._rng.random
        for _ in range(EFFORT):
            group = weights.draw(self._rng)
            size = len(group)
            if size == 1:
                best = group[0]
            else:
                first = int(random() * size)
                second = int(random() * (size - 1))
                if second >= first:
                    second += 1
                best = self._better(group[first], group[second], now, tried)
            if not best.is_ejected(now) and (not tried or best.id not in tried):
                return best
        return pick_left(weights, now, tried, self._rng, self._cost)

    def _better(self, one: Endpoint, other: Endpoint, now: float, tried: Container[str]) -> Endpoint:
        one_is_out, other_is_out = one.is_ejected(now), other.is_ejected(now)
        if tried:
            one_is_out = one_is_out or one.id in tried
            other_is_out = other_is_out or other.id in tried
        if one_is_out is not other_is_out:
            return other if one_is_out else one
        cost, other_cost = self._cost(one, now), self._cost(other, now)
        if self._is_noisy and cost and other_cost and one.in_flight == other.in_flight:
            square = other_cost * other_cost
            return one if self._rng.random() * (cost * cost + square) < square else other
        return one if cost <= other_cost else other


class RandomPicker:
    """Any endpoint, in proportion to the weights."""

    __slots__ = ("_rng", "_weights")

    def __init__(self, weights: WeightClasses, rng: Random) -> None:
        self._weights = weights
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = (), key: HashKey | None = None) -> Endpoint | None:
        weights = self._weights
        if not weights.classes:
            return None
        for _ in range(EFFORT):
            endpoint = weights.sample(self._rng)
            if not endpoint.is_ejected(now) and (not tried or endpoint.id not in tried):
                return endpoint
        return pick_left(weights, now, tried, self._rng)
