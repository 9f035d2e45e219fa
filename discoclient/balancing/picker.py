"""A picker chooses an endpoint for one attempt: on the hot path, without I/O, without a shared lock, without blocking."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Container, Sequence
from itertools import accumulate, count
from random import Random
from typing import Protocol

from .endpoint import Endpoint

__all__ = ["Picker", "RandomPicker", "RoundRobinPicker", "TwoChoicesPicker"]

EFFORT = 4
"""Draws before the whole set is looked at: with half of it ejected, 4 pairs miss only in 1 of 256 picks."""


class Picker(Protocol):
    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        """An endpoint whose id is not in *tried*, or ``None`` if there is none. Never waits, does no I/O.

        An ejected endpoint is picked only when no other is left (fail open).
        """


class _WeightClasses:
    """Endpoints of equal weight together; a class is drawn in proportion to its total weight (Finagle's WeightClass).

    Weights act here, on the sampling, and never on the cost: at low load the cost hardly differs, and dividing it by the
    weight would starve whatever weighs little.
    """

    __slots__ = ("_bounds", "classes", "everyone")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.everyone = tuple(endpoints)
        weights = sorted({endpoint.weight for endpoint in self.everyone})
        if len(weights) == 1:
            self.classes: tuple[tuple[Endpoint, ...], ...] = (self.everyone,)
        else:
            groups: dict[float, list[Endpoint]] = {weight: [] for weight in weights}
            for endpoint in self.everyone:
                groups[endpoint.weight].append(endpoint)
            self.classes = tuple(tuple(group) for group in groups.values())
        # A weight of 0 gets here only when nothing else is left: then all are alike.
        totals = list(accumulate(group[0].weight * len(group) for group in self.classes if group))
        self._bounds = (
            [total / totals[-1] for total in totals] if totals and totals[-1] else [1.0] * len(totals)
        )

    def draw(self, rng: Random) -> tuple[Endpoint, ...]:
        if len(self.classes) == 1:
            return self.classes[0]
        return self.classes[min(bisect(self._bounds, rng.random()), len(self.classes) - 1)]


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
        endpoints: Sequence[Endpoint],
        cost: Callable[[Endpoint, float], float],
        rng: Random,
        *,
        is_noisy: bool = False,
    ) -> None:
        self._weights = _WeightClasses(endpoints)
        self._cost = cost
        self._is_noisy = is_noisy
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        if tried:
            return self._best(
                [endpoint for endpoint in self._weights.everyone if endpoint.id not in tried], now
            )
        if not self._weights.everyone:
            return None
        random = self._rng.random
        for _ in range(EFFORT):
            group = self._weights.draw(self._rng)
            size = len(group)
            if size == 1:
                best = group[0]
            else:
                first = int(random() * size)
                second = int(random() * (size - 1))
                if second >= first:
                    second += 1
                best = self._better(group[first], group[second], now)
            if not best.is_ejected(now):
                return best
        return self._best(self._weights.everyone, now)

    def _better(self, one: Endpoint, other: Endpoint, now: float) -> Endpoint:
        one_is_out, other_is_out = one.is_ejected(now), other.is_ejected(now)
        if one_is_out is not other_is_out:
            return other if one_is_out else one
        cost, other_cost = self._cost(one, now), self._cost(other, now)
        if self._is_noisy and cost and other_cost and one.in_flight == other.in_flight:
            square = other_cost * other_cost
            return one if self._rng.random() * (cost * cost + square) < square else other
        return one if cost <= other_cost else other

    def _best(self, endpoints: Sequence[Endpoint], now: float) -> Endpoint | None:
        """Two choices among those that are not ejected; among all of them if every one is."""
        able = [endpoint for endpoint in endpoints if not endpoint.is_ejected(now)] or endpoints
        if not able:
            return None
        group = _WeightClasses(able).draw(self._rng)
        return min(
            self._rng.sample(group, min(2, len(group))), key=lambda endpoint: self._cost(endpoint, now)
        )


class RandomPicker:
    """Any endpoint, in proportion to the weights."""

    __slots__ = ("_rng", "_weights")

    def __init__(self, endpoints: Sequence[Endpoint], rng: Random) -> None:
        self._weights = _WeightClasses(endpoints)
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        if not tried and self._weights.everyone:
            for _ in range(EFFORT):
                group = self._weights.draw(self._rng)
                endpoint = group[int(self._rng.random() * len(group))]
                if not endpoint.is_ejected(now):
                    return endpoint
        left = [endpoint for endpoint in self._weights.everyone if endpoint.id not in tried]
        able = [endpoint for endpoint in left if not endpoint.is_ejected(now)] or left
        return self._rng.choice(_WeightClasses(able).draw(self._rng)) if able else None


class RoundRobinPicker:
    """One after the other. Begins anywhere, so that many short-lived processes don't all begin with the same one."""

    __slots__ = ("_endpoints", "_next")

    def __init__(self, endpoints: Sequence[Endpoint], rng: Random) -> None:
        self._endpoints = tuple(endpoints)
        self._next = count(rng.randrange(len(endpoints)) if endpoints else 0)

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        size = len(self._endpoints)
        last_resort = None
        for _ in range(size):
            endpoint = self._endpoints[next(self._next) % size]
            if endpoint.id in tried:
                continue
            if not endpoint.is_ejected(now):
                return endpoint
            last_resort = last_resort or endpoint
        if last_resort is not None:
            next(self._next)  # a whole round was in vain: the next one begins with the next endpoint
        return last_resort
