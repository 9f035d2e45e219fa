"""Round robin: one after the other, as often as the weights say, evenly spaced, in O(1)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import count
from math import frexp
from random import Random

from .endpoint import Endpoint
from .weights import Candidates

__all__ = ["RoundRobinPicker"]

_SCALE = 1 << 40
_GOLDEN = 0.6180339887498949
"""What is left out is left out at moments of its own: multiples of the golden ratio lie apart from each other, modulo 1."""


class _Stride:
    """A static stride scheduler (gRPC's ``weighted_round_robin``): rounds over all, in which the heaviest always has its turn
    and the others as often as their weight says. Without a lock: a turn is a number, and numbers are counted out.
    """

    __slots__ = ("_offsets", "_size", "_steps", "_turns")

    def __init__(self, weights: Sequence[float], rng: Random) -> None:
        heaviest = max(weights)
        self._size = len(weights)
        self._steps = tuple(round(weight / heaviest * _SCALE) for weight in weights)
        self._offsets = tuple(int(number * _GOLDEN % 1 * _SCALE) for number in range(self._size))
        # Anywhere: short-lived processes must not all begin alike.
        self._turns = count(rng.randrange(self._size << 16))

    def next(self) -> int:
        while True:
            round_, index = divmod(next(self._turns), self._size)
            step = self._steps[index]
            if step == _SCALE or (step * round_ + self._offsets[index]) % _SCALE < step:
                return index


class RoundRobinPicker:
    """Buckets of weights that differ by less than a factor of 2, and a stride over the buckets and in each of them: so that
    one heavy endpoint among thousands of light ones doesn't make every pick a search.
    """

    __slots__ = ("_among", "_buckets", "_everyone", "_within")

    def __init__(self, candidates: Iterable[Endpoint], rng: Random) -> None:
        self._everyone = Candidates.of(candidates)
        weights = self._everyone.weights if any(self._everyone.weights) else (1.0,) * len(self._everyone)
        buckets: dict[int, list[tuple[Endpoint, float]]] = {}
        for endpoint, weight in zip(self._everyone, weights, strict=True):
            if weight > 0:
                buckets.setdefault(frexp(weight)[1], []).append((endpoint, weight))
        self._buckets = tuple(tuple(endpoint for endpoint, _ in bucket) for bucket in buckets.values())
        self._within = tuple(_Stride([weight for _, weight in bucket], rng) for bucket in buckets.values())
        totals = [sum(weight for _, weight in bucket) for bucket in buckets.values()]
        self._among = _Stride(totals, rng) if len(totals) > 1 else None

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        if not self._buckets:
            return None
        for _ in range(len(self._everyone)):
            endpoint = self._next()
            if not endpoint.is_ejected(now) and (not tried or endpoint.id not in tried):
                return endpoint
        # With weights a round may leave out the one that is left; and if all are ejected, it is still one after the other.
        start = self._everyone.index(self._next())
        left = [
            endpoint
            for endpoint in (*self._everyone[start:], *self._everyone[:start])
            if endpoint.id not in tried
        ]
        return next(
            (endpoint for endpoint in left if not endpoint.is_ejected(now)), left[0] if left else None
        )

    def _next(self) -> Endpoint:
        bucket = self._among.next() if self._among is not None else 0
        return self._buckets[bucket][self._within[bucket].next()]
