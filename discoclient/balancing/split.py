"""First a group of endpoints, then one of them: a canary's share and a zone's are kept, whatever the load metric thinks."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Container, Sequence
from itertools import accumulate
from random import Random

from .endpoint import Endpoint
from .hashing import fraction
from .picker import HashKey, Picker, pick_by
from .weights import WeightClasses

__all__ = ["SplitPicker", "SubsetPicker", "ZonePicker"]


class SplitPicker:
    """*groups*: pickers with the shares of the requests that they get, which add up to 1. Where one has nothing but
    ejected endpoints, the next one is asked.
    """

    __slots__ = ("_bounds", "_pickers", "_rng")

    def __init__(self, groups: Sequence[tuple[float, Picker]], rng: Random) -> None:
        self._pickers = tuple(picker for _, picker in groups)
        self._bounds = tuple(accumulate(share for share, _ in groups))
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(self._rng.random(), None, now, tried)

    def pick_for(self, key: HashKey, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(fraction(key, "group"), key, now, tried)

    def _pick(self, point: float, key: HashKey | None, now: float, tried: Container[str]) -> Endpoint | None:
        chosen = min(bisect(self._bounds, point), len(self._pickers) - 1)
        return _first_able(self._pickers, chosen, key, now, tried)


class ZonePicker:
    """*near* gets *share* of the requests, less what it has lost: the part of its capacity that is ejected spills to *far*."""

    __slots__ = ("_pickers", "_rng", "_share", "_weights")

    def __init__(self, near: Picker, far: Picker, share: float, weights: WeightClasses, rng: Random) -> None:
        """*weights*: those of *near*."""
        self._pickers = (near, far)
        self._share = share
        self._weights = weights
        self._rng = rng

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(self._rng.random(), None, now, tried)

    def pick_for(self, key: HashKey, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(fraction(key, "zone"), key, now, tried)

    def _pick(self, point: float, key: HashKey | None, now: float, tried: Container[str]) -> Endpoint | None:
        # Without a key. With one, whoever is near takes over: a key must not move because of others' ejections.
        is_lost = key is None and self._weights.sample(self._rng).is_ejected(now)
        is_near = point < self._share and not is_lost
        return _first_able(self._pickers, 0 if is_near else 1, key, now, tried)


class SubsetPicker:
    """*used*, and the *rest* while all of those are ejected or tried. A picker for the rest is made when it is needed."""

    __slots__ = ("_make_rest", "_rest", "_used")

    def __init__(self, used: Picker, rest: Callable[[], Picker]) -> None:
        self._used = used
        self._make_rest = rest
        self._rest: Picker | None = None

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(None, now, tried)

    def pick_for(self, key: HashKey, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._pick(key, now, tried)

    def _pick(self, key: HashKey | None, now: float, tried: Container[str]) -> Endpoint | None:
        endpoint = pick_by(self._used, key, now, tried)
        if endpoint is not None and not endpoint.is_ejected(now):
            return endpoint
        if self._rest is None:
            self._rest = self._make_rest()
        other = pick_by(self._rest, key, now, tried)
        return other if endpoint is None or (other is not None and not other.is_ejected(now)) else endpoint


def _first_able(
    pickers: Sequence[Picker], first: int, key: HashKey | None, now: float, tried: Container[str]
) -> Endpoint | None:
    """What the picker at *first* picks, if it is not ejected; else what the others do; else the first one's, if it has any."""
    last_resort = None
    for picker in (pickers[first], *pickers[:first], *pickers[first + 1 :]):
        endpoint = pick_by(picker, key, now, tried)
        if endpoint is not None:
            if not endpoint.is_ejected(now):
                return endpoint
            last_resort = last_resort or endpoint
    return last_resort
