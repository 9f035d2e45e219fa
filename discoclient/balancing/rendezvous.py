"""Rendezvous hashing: equal keys go to the same endpoint, and when one leaves, only its keys move, evenly to the others."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from random import Random

from .endpoint import Endpoint
from .hashing import digest, mix
from .picker import HashKey, TwoChoicesPicker, pick_left
from .weights import WeightClasses

__all__ = ["RendezvousPicker"]

OVERLOAD = 1.25
"""What one endpoint may have in flight, as a multiple of its fair share, before its keys go to the next in their order (V.
Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads", 2017)."""
REMEMBERED = 4096
"""Keys whose order of endpoints is kept."""
DEEP = 8
"""How much of that order is kept: with 8 of them ejected, tried or overloaded it is worked out anew."""


class RendezvousPicker:
    """D. Thaler, C. Ravishankar, "A name-based mapping scheme for rendezvous" (1996), with weights by C. Schindelhauer and G.
    Schomaker (2005). A key that was not seen of late costs a look at every endpoint. Without a key it is two random choices.
    """

    __slots__ = ("_busy", "_by_load", "_left", "_orders", "_rng", "_seeds", "_total", "_weights")

    def __init__(self, weights: WeightClasses, rng: Random) -> None:
        self._weights = weights
        self._rng = rng
        self._total = sum(weights.weights) or float(len(weights.everyone))
        # In flight everywhere, counted anew after so many picks that each pays for a few looks.
        self._busy = 0
        self._left = 0
        self._seeds = tuple(digest(endpoint.id) for endpoint in weights.everyone)
        self._orders: dict[int, tuple[tuple[Endpoint, float], ...]] = {}
        self._by_load = TwoChoicesPicker(weights, lambda endpoint, now: endpoint.in_flight + 1, rng)

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._by_load.pick(now, tried)

    def pick_for(self, key: HashKey, now: float, tried: Container[str] = ()) -> Endpoint | None:
        point = digest(key)
        order = self._orders.get(point)
        if order is None:
            if len(self._orders) >= REMEMBERED:
                self._orders.clear()
            order = self._orders[point] = self._order(point)[:DEEP]
        self._left -= 1
        if self._left < 0:
            everyone = self._weights.everyone
            self._left = len(everyone) // DEEP
            self._busy = sum(endpoint.in_flight for endpoint in everyone)
        room = OVERLOAD * (self._busy + 1) / self._total
        found, has_room = _first(order, now, tried, room)
        if not has_room and len(order) == DEEP:
            order = self._order(point)
            found, _ = _first(order, now, tried, room)
        # With all of them ejected, what weighs nothing comes first, and then the order is the order again.
        return found or self._beyond(order, now, tried)

    def _beyond(
        self, order: Sequence[tuple[Endpoint, float]], now: float, tried: Container[str]
    ) -> Endpoint | None:
        ordered = {id(endpoint) for endpoint, _ in order}
        for endpoint in self._weights.everyone:
            if id(endpoint) not in ordered and endpoint.id not in tried and not endpoint.is_ejected(now):
                return endpoint
        left = (endpoint for endpoint, _ in order if endpoint.id not in tried)
        return next(left, None) or pick_left(self._weights, now, tried, self._rng)

    def _order(self, point: int) -> tuple[tuple[Endpoint, float], ...]:
        """All endpoints, as they come for that key."""
        is_weightless = not any(self._weights.weights)
        scored = []
        for endpoint, weight, seed in zip(
            self._weights.everyone, self._weights.weights, self._seeds, strict=True
        ):
            share = 1.0 if is_weightless else weight
            if share > 0:
                scored.append((-math.log(mix(seed ^ point)) / share, endpoint.id, endpoint, share))
        scored.sort(key=lambda row: row[:2])
        return tuple((endpoint, share) for _, _, endpoint, share in scored)


def _first(
    order: Sequence[tuple[Endpoint, float]], now: float, tried: Container[str], room: float
) -> tuple[Endpoint | None, bool]:
    """The first that may be called and has room; the first that may be called, if none has. And whether it has."""
    second_best = None
    for endpoint, weight in order:
        if endpoint.id in tried or endpoint.is_ejected(now):
            continue
        if endpoint.in_flight < math.ceil(room * weight):
            return endpoint, True
        second_best = second_best or endpoint
    return second_best, False
