"""A picker chooses an endpoint for one attempt: on the hot path, without I/O, without a shared lock, without blocking."""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf
from random import Random
from typing import Protocol, TypeAlias

from .endpoint import Endpoint
from .weights import WeightClasses

__all__ = ["HashKey", "Picker", "RandomPicker", "TwoChoicesPicker", "pick_left"]

HashKey: TypeAlias = str | bytes | int

EFFORT = 4
"""Draws before the whole set is looked at (Finagle's ``maxEffort``): with half of it ejected, 4 pairs miss in 1 of 256 picks."""
DEAR = 5.0
"""A winner that costs more than so many times what winners usually do is taken only if nothing better is drawn."""
SMOOTHING = 0.05


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
    """Two distinct endpoints at random, and the one with the lower *cost* wins.

    M. Mitzenmacher, "The power of two choices in randomized load balancing" (2001). What two choices can't do is to keep away from
    bad endpoints when both are bad, and with three of eight that is one pair in nine. So a winner that costs much more than
    winners usually do is put aside, and two others are drawn (`DEAR`, `EFFORT`); an ejected or tried one does not count as a choice.

    With *is_noisy* costs, where the load does not tell the two apart, the better one wins only as often as it is better: with odds of
    the inverse squares. The costs of equals differ by chance; a sharp comparison would leave the worst of three without a
    request for seconds, and what gets none can't show that it is well. A cost ten times as high still means 1 in 101.
    """

    __slots__ = ("_cost", "_is_noisy", "_rng", "_usual", "_weights")

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
        # What winners cost, averaged over some 20 of them. Threads may overwrite each other's addition: it is an average.
        self._usual = inf

    def pick(self, now: float, tried: Container[str] = (), key: HashKey | None = None) -> Endpoint | None:
        weights, rng = self._weights, self._rng
        if not weights.classes:
            return None
        random = rng.random
        best: Endpoint | None = None
        least = inf
        for _ in range(EFFORT):
            group = weights.draw(rng)
            size = len(group)
            if size == 1:
                winner = group[0]
                if winner.is_ejected(now) or winner.id in tried:
                    continue
                cost = self._cost(winner, now)
            else:
                first = int(random() * size)
                second = int(random() * (size - 1))
                if second >= first:
                    second += 1
                winner, other = group[first], group[second]
                is_out = winner.is_ejected(now) or winner.id in tried
                if other.is_ejected(now) or other.id in tried:
                    if is_out:
                        continue
                    cost = self._cost(winner, now)
                elif is_out:
                    winner = other
                    cost = self._cost(winner, now)
                else:
                    cost, other_cost = self._cost(winner, now), self._cost(other, now)
                    if self._prefers(other, other_cost, winner, cost):
                        winner, cost = other, other_cost
            if cost <= DEAR * self._usual:
                self._usual = cost if self._usual == inf else self._usual + (cost - self._usual) * SMOOTHING
                return winner
            if cost < least:
                best, least = winner, cost
        if best is None:
            return pick_left(weights, now, tried, rng, self._cost)
        self._usual += (least - self._usual) * SMOOTHING
        return best

    def _prefers(self, one: Endpoint, cost: float, other: Endpoint, other_cost: float) -> bool:
        if self._is_noisy and cost and other_cost and one.in_flight == other.in_flight:
            square = other_cost * other_cost
            return self._rng.random() * (cost * cost + square) < square
        return cost < other_cost


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
