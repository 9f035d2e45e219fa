"""A picker chooses an endpoint for one attempt: on the hot path, without I/O, without a shared lock, without blocking."""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf
from random import Random
from typing import Protocol, TypeAlias, runtime_checkable

from .endpoint import Endpoint
from .weights import WeightClasses

__all__ = ["HashKey", "KeyedPicker", "Picker", "RandomPicker", "TwoChoicesPicker", "pick_by", "pick_left"]

HashKey: TypeAlias = str | bytes | int

EFFORT = 4
"""Draws before the whole set is looked at (Finagle's ``maxEffort``): with half of it ejected, 4 pairs miss in 1 of 256 picks.
"""
PAIRS = 2
"""Pairs that are compared at most, unless it is said otherwise."""
DEAR_IDLE = 2.5
DEAR_BUSY = 1.5
"""A winner that costs more than so many times what winners usually do is taken only if nothing better is drawn. What is idle
differs by the noise of its latency alone; what is busy makes one wait while another may be idle.
"""
SMOOTHING = 0.05
LOOKS = 0.01
"""How often one is picked that lost, and was not picked for seconds: rarely enough to hurt nobody, often enough to find out,
under any load worth the name, that it is well again.
"""
UNPROVEN = 1.0
"""What it costs more, for a retry, to go where nobody has answered yet: it must not end up at the next bad one."""


class Picker(Protocol):
    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        """An endpoint whose id is not in *tried*, or ``None`` if there is none. Never waits, does no I/O.

        An ejected endpoint is picked only when no other is left (fail open).
        """


@runtime_checkable
class KeyedPicker(Picker, Protocol):
    """A picker to which it matters what a request is about. Others are just not told."""

    def pick_for(self, key: HashKey, now: float, tried: Container[str] = ()) -> Endpoint | None:
        """As `pick`, for a request with that ``hash_key``: equal keys go to the same endpoint."""


def pick_by(picker: Picker, key: HashKey | None, now: float, tried: Container[str]) -> Endpoint | None:
    """By the key, if there is one and *picker* heeds it."""
    if key is not None and isinstance(picker, KeyedPicker):
        return picker.pick_for(key, now, tried)
    return picker.pick(now, tried)


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

    M. Mitzenmacher, "The power of two choices in randomized load balancing" (2001). What two choices can't do is to keep away
    from bad endpoints when both are bad, and with three of eight that is one pair in nine. So a winner that costs much more
    than winners usually do is put aside, and two others are drawn (`DEAR_IDLE`, `DEAR_BUSY`), for *pairs* at most; an ejected
    or tried one does not count as a choice. A retry looks at more pairs, and prefers those that have answered before.

    With *is_noisy* costs, where the load does not tell the two apart, the better one wins only as often as it is better: with
    odds of the inverse squares. The costs of equals differ by chance; a sharp comparison would leave the worst of three
    without a request for seconds, and what gets none can't show that it is well. A cost ten times as high still means 1 in
    101.
    """

    __slots__ = ("_cost", "_is_noisy", "_pairs", "_rng", "_usual", "_weights")

    def __init__(
        self,
        weights: WeightClasses,
        cost: Callable[[Endpoint, float], float],
        rng: Random,
        *,
        is_noisy: bool = False,
        pairs: int = PAIRS,
    ) -> None:
        self._pairs = pairs
        self._weights = weights
        self._cost = cost
        self._is_noisy = is_noisy
        self._rng = rng
        # What winners cost, averaged over some 20 of them. Threads may overwrite each other's addition: it is an average.
        self._usual = inf

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        weights, rng, usual = self._weights, self._rng, self._usual
        if not weights.classes:
            return None
        random, group = rng.random, weights.draw(rng)
        size = len(group)
        best: Endpoint | None = None
        least = inf
        pairs = 0
        for _ in range(EFFORT):
            winner = other = group[int(random() * size)]
            if size > 1:
                second = int(random() * (size - 1))
                other = group[second if group[second] is not winner else size - 1]
            if winner.is_marked or other.is_marked or tried:
                if not tried and size > 1:
                    for either in (winner, other):
                        if either.wants_probe(now):  # by its cost it would not be picked for a minute
                            return either
                if not _is_able(winner, now, tried):
                    winner = other
                if not _is_able(winner, now, tried):
                    continue
                if not _is_able(other, now, tried):
                    other = winner
            cost = self._cost(winner, now)
            if tried and not winner.is_proven:
                cost += UNPROVEN
            if winner is not other:
                other_cost = self._cost(other, now)
                if tried and not other.is_proven:
                    other_cost += UNPROVEN
                if self._prefers(other, other_cost, winner, cost):
                    winner, other, cost = other, winner, other_cost
                if (
                    not tried
                    and other.is_forgotten(now)
                    and random() < LOOKS
                    and not winner.is_forgotten(now)
                ):
                    return other
            if cost < least:
                best, least = winner, cost
            pairs += 1
            if size < 3 or (
                not tried
                and (pairs == self._pairs or cost <= (DEAR_BUSY if winner.in_flight else DEAR_IDLE) * usual)
            ):
                break
        if best is None:
            return pick_left(weights, now, tried, rng, self._cost)
        self._usual = least if usual == inf else usual + (least - usual) * SMOOTHING
        return best

    def _prefers(self, one: Endpoint, cost: float, other: Endpoint, other_cost: float) -> bool:
        if self._is_noisy and cost and other_cost and one.in_flight == other.in_flight:
            square = other_cost * other_cost
            return self._rng.random() * (cost * cost + square) < square
        return cost < other_cost


def _is_able(endpoint: Endpoint, now: float, tried: Container[str]) -> bool:
    return not endpoint.is_ejected(now) and endpoint.id not in tried


class RandomPicker:
    """Any endpoint, in proportion to the weights."""

    __slots__ = ("_rng", "_weights")

    def __init__(self, weights: WeightClasses, rng: Random) -> None:
        self._weights = weights
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        weights = self._weights
        if not weights.classes:
            return None
        for _ in range(EFFORT):
            endpoint = weights.sample(self._rng)
            if not endpoint.is_ejected(now) and (not tried or endpoint.id not in tried):
                return endpoint
        return pick_left(weights, now, tried, self._rng)
