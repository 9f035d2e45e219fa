"""Recovery: after a total outage the first instance that is back does not get the whole load."""

from __future__ import annotations

from math import inf
from random import Random
from threading import RLock

from ..model.policy import RecoveryPolicy

__all__ = ["Recovery"]


class Recovery:
    """Lets few requests through while few instances are back (brpc's ``DefaultClusterRecoverPolicy``).

    Recovery begins with a call that finds no usable endpoint. From then on a request passes with probability
    ``usable / min_working``, until ``usable`` reaches ``min_working``, or is more than 0 and has not changed for ``hold``
    seconds: then this is the fleet there is. (brpc goes on for ``hold`` seconds also with enough of them; nothing is refused
    then, except if they become fewer again.)

    **While none is usable every request passes.** brpc refuses them all, and can afford to: its health checks find out
    what is alive. Here requests do. Where all endpoints are ejected, a request to one of them is what brings it back, and
    refusing would make the outage last; where there are none at all, the caller gets to know just that, and there is nobody to
    protect. So it fails open, as all our detectors do.

    One of these sees one set of endpoints: what is asked of two different subsets in turn never settles. Safe to use from
    many threads.
    """

    __slots__ = ("_is_recovering", "_lock", "_policy", "_since", "_usable")

    def __init__(self, policy: RecoveryPolicy) -> None:
        self._policy = policy
        # Reentrant: a signal handler of the application's, or a finalizer, may send a request while its thread is in here.
        self._lock = RLock()
        self._is_recovering = False
        self._usable = 0
        self._since = -inf
        """When ``usable`` was seen to change."""

    @property
    def is_recovering(self) -> bool:
        """Whether requests are being held back, as of the last call."""
        return self._is_recovering

    def admit(self, usable: int, now: float, rng: Random) -> float | None:
        """``None``: go on. Otherwise the request is refused, and was with this probability.

        *usable* is how many endpoints could be called now without failing open: there, ready, not ejected.
        """
        if usable > 0 and not self._is_recovering:  # nearly always
            return None
        with self._lock:
            if usable <= 0:
                self._is_recovering = True
                self._usable = 0
                return None
            if usable != self._usable:
                self._usable, self._since = usable, now
            if usable >= self._policy.min_working or now - self._since >= self._policy.hold:
                self._is_recovering = False
            if not self._is_recovering:
                return None
        share = usable / self._policy.min_working
        return None if rng.random() < share else 1.0 - share
