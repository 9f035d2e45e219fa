"""Adaptive throttling: refuse here what the service would refuse there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from random import Random
from threading import RLock

from ..model.policy import ThrottlePolicy, check_seconds

__all__ = ["Throttle"]

BUCKETS = 40
"""Parts that the window is counted in (as in go-zero's ``googlebreaker``), and forgotten in."""
PARTS_OF_PATIENCE = 4
"""The same, for how long a request has been on its way."""


class Throttle:
    """Refuses requests to a service that refuses most of them anyway (Google SRE book, "Handling overload").

    A request is refused with probability ``(requests - ratio * accepts) / (requests + 1)``, at most ``max_probability``,
    over the last ``window`` seconds. Requests are counted when they are sent and not when they end, because those that
    hang tell most (go-zero issue 5011); refused ones are counted like all others, as in the book.

    The book's clients are never idle. Here a burst after a silence is usual, and by the formula alone the second of two
    parallel requests to a service in the best of health would be refused with probability 1/2, and of twenty most. So a
    request that was sent less than *patience* seconds ago is no evidence yet: it is on its way.

    A *now* before the newest one seen counts as that one. Safe to use from many threads.

    Args:
        policy: see there.
        patience: seconds, to within a quarter. Default 1.0; 0 gives the plain formula.
    """

    __slots__ = ("_accepts", "_lock", "_newest", "_patience", "_policy", "_requests", "_young")

    def __init__(self, policy: ThrottlePolicy, *, patience: float = 1.0) -> None:
        self._policy = policy
        self._patience = check_seconds("patience", patience, zero=True)
        # Reentrant: a signal handler of the application's, or a finalizer, may send a request while its thread is in here.
        self._lock = RLock()
        self._newest = -inf
        self._young = _Counts(self._patience / PARTS_OF_PATIENCE)
        self._requests = _Counts(policy.window / BUCKETS)
        self._accepts = _Counts(policy.window / BUCKETS)

    def admit(self, now: float, rng: Random) -> float | None:
        """``None``: send it. Otherwise it is refused, and was with this probability. Counts as a request in both cases."""
        with self._lock:
            now = self._move_to(now)
            probability = self._probability()
            self._young.add(now, 1)
        return probability if probability > 0.0 and rng.random() < probability else None

    def accepted(self, now: float) -> None:
        """The service took a request on: it gave any answer but 429 and 503."""
        with self._lock:
            self._accepts.add(self._move_to(now), 1)

    def probability(self, now: float) -> float:
        """With which probability the next request would be refused."""
        with self._lock:
            self._move_to(now)
            return self._probability()

    def _probability(self) -> float:
        requests = self._requests.total
        excess = requests - self._policy.ratio * self._accepts.total
        return min(self._policy.max_probability, excess / (requests + 1)) if excess > 0 else 0.0

    def _move_to(self, now: float) -> float:
        """What grew old counts, what is out of the window does not; returns the time that counts."""
        if now > self._newest:
            self._newest = now
        now = self._newest
        for first, count in self._young.take(now - self._patience):
            self._requests.add(first, count)
        self._requests.take(now - self._policy.window)
        self._accepts.take(now - self._policy.window)
        return now


class _Counts:
    """How many of something, in buckets by time, oldest first."""

    __slots__ = ("_buckets", "_width", "total")

    def __init__(self, width: float) -> None:
        self._width = width
        self._buckets: deque[tuple[float, int]] = deque()
        self.total = 0

    def add(self, now: float, count: int) -> None:
        buckets = self._buckets
        if buckets and (now < buckets[-1][0] + self._width or now == buckets[-1][0]):
            first, before = buckets[-1]
            buckets[-1] = (first, before + count)
        else:
            buckets.append((now, count))
        self.total += count

    def take(self, until: float) -> Sequence[tuple[float, int]]:
        """Remove the buckets that began at *until* or before."""
        buckets = self._buckets
        if not buckets or buckets[0][0] > until:  # nearly always
            return ()
        taken = []
        while buckets and buckets[0][0] <= until:
            taken.append(buckets.popleft())
            self.total -= taken[-1][1]
        return taken
