"""Recent latencies of a service, to know when a request is late enough to be hedged."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, inf, log
from operator import add
from threading import RLock

from ..model.policy import check_seconds

__all__ = ["Latencies"]

LEAST = 1e-5
"""Seconds; what is shorter reads as this, and so does 0."""
MOST = 1e3
"""Seconds; what is longer reads as this."""
GROWTH = 1.1
"""Each bucket is so much wider than the one before. Its middle is at most sqrt(1.1) - 1 = 4.9 % off whatever is in it."""
REFRESH = 1.0
"""Seconds for which sums are used again."""

_SCALE = 1.0 / log(GROWTH)
_OFFSET = -log(LEAST) * _SCALE
_MIDDLES: tuple[float, ...] = tuple(
    LEAST * GROWTH ** (index + 0.5) for index in range(int(log(MOST) * _SCALE + _OFFSET) + 1)
)


class Latencies:
    """A histogram of the last seconds, and its quantiles to within 5 %.

    It is made of two halves: the one that is being filled, and the one before it. So a latency is remembered for half a window
    at least, and for a window at most. Sums are made once a second (or half window, if that is less), whatever is asked how
    often: answers are up to so old. Safe to use from many threads.

    Args:
        window: seconds. Default 30.0.
    """

    __slots__ = ("_before", "_half", "_lock", "_recent", "_stale_at", "_sums", "_until")

    def __init__(self, *, window: float = 30.0) -> None:
        self._half = check_seconds("window", window) / 2
        # Reentrant: a signal handler of the application's, or a finalizer, may send a request while its thread is in here.
        self._lock = RLock()
        self._recent = [0] * len(_MIDDLES)
        self._before = [0] * len(_MIDDLES)
        self._until = -inf
        """When the recent half is full."""
        self._sums = [0] * len(_MIDDLES)
        """How many are in a bucket and all below. Replaced, never changed."""
        self._stale_at = -inf

    def record(self, seconds: float, now: float) -> None:
        """A request took *seconds*."""
        index = 0
        if seconds > LEAST:  # not so: 0, and what is no number
            index = int(log(min(seconds, MOST)) * _SCALE + _OFFSET)
        with self._lock:
            if now >= self._until:
                self._turn(now)
            self._recent[index] += 1

    def quantile(self, share: float, now: float, *, least: int) -> float | None:
        """The seconds that *share* (0 to 1) of the recent requests did not exceed; ``None`` if fewer than *least* are known."""
        if now >= self._stale_at:
            self._refresh(now)
        sums = self._sums
        count = sums[-1]
        if count < max(1, least):
            return None
        rank = ceil(share * count - 1e-9)  # 0.07 * 100 is more than 7
        return _MIDDLES[bisect_left(sums, max(1, rank))]

    def _refresh(self, now: float) -> None:
        with self._lock:
            if now < self._stale_at:  # another thread has just done it
                return
            if now >= self._until:
                self._turn(now)
            self._sums = list(accumulate(map(add, self._before, self._recent)))
            self._stale_at = now + min(REFRESH, self._half)

    def _turn(self, now: float) -> None:
        """The recent half becomes the one before, unless it is older than that."""
        empty = [0] * len(_MIDDLES)
        if now < self._until + self._half:
            self._before = self._recent
            self._until += self._half
        else:
            self._before = empty.copy()
            self._until = now + self._half
        self._recent = empty
