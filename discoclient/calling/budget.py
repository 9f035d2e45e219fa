"""The retry budget: retries are a share of the requests, so that they can't multiply the load of a service in trouble."""

from __future__ import annotations

from collections import deque
from math import inf, nextafter
from threading import RLock

from ..model.policy import check_seconds

__all__ = ["RetryBudget"]

BUCKETS = 50
"""Parts that the window is counted in. What is given away by counting conservatively is one part, 2 %, at most."""


class RetryBudget:
    """Retries up to a share of the requests of the last seconds, and a few a second on top (Finagle's ``RetryBudget``).

    The promise: when a retry is granted, then in the window ``(now - window, now]`` there are, with this one, at most
    ``ratio * requests + reserve * window`` retries. It holds for every window that ends at a granted retry, whatever the
    order of the calls, from any number of threads.

    Requests and retries are counted in buckets, and the doubt goes against the retry: a bucket of requests is out with its
    first one, a bucket of retries with its last one. So time and memory do not grow with the traffic.

    A *now* before the newest one seen counts as that one: threads read the clock before they get here. Safe to use
    from many threads.

    Args:
        ratio: retries for each request.
        reserve: retries a second that need no request.
        window: seconds that are looked back. Default 10.0 (the same).
    """

    __slots__ = (
        "_ended",
        "_first",
        "_lock",
        "_newest",
        "_open",
        "_past",
        "_ratio",
        "_refused",
        "_requests",
        "_reserved",
        "_retries",
        "_spent",
        "_until",
        "_used",
        "_width",
        "_window",
    )

    def __init__(self, *, ratio: float, reserve: float, window: float = 10.0) -> None:
        self._window = check_seconds("window", window)
        self._width = self._window / BUCKETS
        self._ratio = ratio
        self._reserved = reserve * self._window
        # Reentrant: a signal handler of the application's, or a finalizer, may send a request while its thread is in here.
        self._lock = RLock()
        self._newest = -inf
        self._past = 0
        """Requests in all buckets that were ever ended."""
        self._open = 0
        """Requests in the bucket that is open: from ``_first`` to before ``_until``."""
        self._first = self._until = -inf
        self._ended: deque[tuple[float, int]] = deque()
        """The buckets of requests before it: when each began, and how many."""
        self._requests = 0
        """The sum of these."""
        self._retries: deque[list[float]] = deque()
        """Buckets of retries: the first, the last, and how many."""
        self._used = 0
        """The sum of these."""
        self._spent = self._refused = 0

    @property
    def recorded(self) -> int:
        """Requests counted so far."""
        return self._past + self._open

    @property
    def spent(self) -> int:
        """Retries granted so far."""
        return self._spent

    @property
    def refused(self) -> int:
        """Retries refused so far."""
        return self._refused

    def record(self, now: float) -> None:
        """Count one request. Called for every one, so it does little."""
        with self._lock:
            if now > self._newest:
                self._newest = now
            else:
                now = self._newest
            if now < self._until:
                self._open += 1
            else:
                self._begin(now)

    def try_spend(self, now: float) -> bool:
        """Take one retry, if it is inside the budget. What was taken is not given back."""
        with self._lock:
            now = self._move_to(now)
            if self._used + 1 > self._allowed():
                self._refused += 1
                return False
            self._used += 1
            self._spent += 1
            last = self._retries[-1] if self._retries else None
            if last is not None and (now < last[0] + self._width or now == last[0]):
                last[1] = now
                last[2] += 1
            else:
                self._retries.append([now, now, 1])
            return True

    def balance(self, now: float) -> int:
        """How many retries would be granted now."""
        with self._lock:
            self._move_to(now)
            return max(0, int(self._allowed()) - self._used)

    def _allowed(self) -> float:
        return self._ratio * (self._requests + self._open) + self._reserved

    def _begin(self, now: float) -> None:
        """Open a bucket with one request."""
        if now == self._first:  # so far ahead that the clock can't tell a bucket
            self._open += 1
            return
        self._move_to(now)
        if self._open:
            self._past += self._open
            self._ended.append((self._first, self._open))
            self._requests += self._open
        self._first, self._until, self._open = now, now + self._width, 1

    def _move_to(self, now: float) -> float:
        """Forget what is out of the window; returns the time that counts."""
        if now > self._newest:
            self._newest = now
        now = self._newest
        # The same expression as in the promise: another one (a bucket's number, say) would round differently.
        edge = now - self._window
        if edge == now:  # so far ahead that the clock can't tell a window: what is now is still in it
            edge = nextafter(now, -inf)
        ended, retries = self._ended, self._retries
        while ended and ended[0][0] <= edge:
            self._requests -= ended.popleft()[1]
        if self._first <= edge:
            self._past += self._open
            self._open = 0
        while retries and retries[0][1] <= edge:
            self._used -= int(retries.popleft()[2])
        return now
