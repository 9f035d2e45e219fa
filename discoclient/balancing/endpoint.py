"""An endpoint: what this process has learnt about one instance. Mutable; it outlives the records and the pickers.

When is a request over? Its *latency* is known when the response headers are there (or when it failed); it is *in flight*
until its body is closed. Both are reported once, whatever happens, because the `Ticket` that a start returns is the only
way to report them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from random import Random
from threading import RLock

from ..model.instance import Instance, State
from ..model.outcome import Outcome
from ..model.policy import OutlierPolicy

__all__ = ["Endpoint", "Rank", "Ticket"]

DECAY = 10.0
"""Seconds after which an old latency weighs 1/e (Finagle's and Linkerd's peak EWMA)."""
FAILURE_LATENCY = 1.0
"""Seconds that a failure counts for at least: failing fast must never look attractive (Google SRE's sinkhole)."""
MAX_LATENCY = 30.0
"""Seconds that the average is capped at, so that a row of failures can be forgotten again."""


class Rank(IntEnum):
    """Which endpoints are called before which."""

    FIRST = 0
    LAST_RESORT = 1
    """Unready, or with a weight of 0: only if nothing else is left."""
    NEVER = 2
    """Draining."""


class Endpoint:
    """Load, health and requests of one instance. Safe to use from many threads; a lock is held for single assignments."""

    __slots__ = (
        "_ejected_until",
        "_ejections",
        "_ewma",
        "_failures",
        "_is_probing",
        "_lock",
        "_on_retire",
        "_stamp",
        "address",
        "first_seen",
        "id",
        "in_flight",
        "instance",
        "is_retired",
        "rank",
        "weight",
    )

    def __init__(self, instance: Instance, *, now: float, latency: float = 0.0) -> None:
        self._read(instance)
        self.id = instance.id
        self.address = (instance.scheme, instance.host, instance.port)
        self.first_seen = now
        self.in_flight = 0
        self.is_retired = self.rank is Rank.NEVER
        """It gets no new request: it drains, or has left."""
        # Reentrant, because the garbage collector may close a forgotten response's ticket while its thread holds the lock.
        self._lock = RLock()
        self._on_retire: list[Callable[[], None]] = []
        self._ewma = latency
        self._stamp = now
        self._failures = 0
        self._ejections = 0
        self._ejected_until = 0.0
        self._is_probing = False

    def __repr__(self) -> str:
        retired = ", retired" if self.is_retired else ""
        return f"<Endpoint {self.id} {self.instance.address} {self.instance.state}, in flight {self.in_flight}{retired}>"

    # ---- load

    def latency(self, now: float) -> float:
        """The peak EWMA in seconds: it jumps to a new peak at once and decays with time, also while idle."""
        return self._ewma * math.exp((self._stamp - now) / DECAY)

    def cost(self, now: float) -> float:
        """Expected seconds for one more request here. Smaller is better."""
        if not self._ewma:  # it has not answered yet: one may try it, and not everybody
            return self.in_flight * FAILURE_LATENCY
        return self._ewma * math.exp((self._stamp - now) / DECAY) * (self.in_flight + 1)

    def start(self, now: float) -> Ticket:
        """Count one more request in flight. It falls when the ticket is closed."""
        ticket = Ticket(self)
        with self._lock:
            self.in_flight += 1
            if self._ejections and not self._is_probing and now >= self._ejected_until:
                self._is_probing = ticket.is_probe = True
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """For the ticket: one request less, once."""
        with self._lock:
            if ticket.is_open:
                ticket.is_open = False
                self.in_flight -= 1
                if ticket.is_probe:
                    self._is_probing = False

    def observe(self, outcome: Outcome, now: float) -> None:
        """Learn the latency of an attempt. A failure never lowers the cost, and counts for `FAILURE_LATENCY` at least.

        A success on a new connection is no peak: it took the time to connect, and often a cold start, and one such
        peak would keep an instance that just began from being called for half a minute. It counts by the time since the
        last one, for there are instances that close every connection, and nothing else would be known of them.
        """
        with self._lock:
            current = self.latency(now)
            latency = outcome.latency
            if outcome.is_failure:
                latency = max(latency, 2 * self._ewma, FAILURE_LATENCY)
            if latency > current and (outcome.is_warm or outcome.is_failure):
                self._ewma = min(latency, MAX_LATENCY)
            else:
                weight = math.exp((self._stamp - now) / DECAY)
                self._ewma = min(current + latency * (1.0 - weight), MAX_LATENCY)
            self._stamp = now

    # ---- outlier detection

    def is_ejected(self, now: float) -> bool:
        """Whether it is to be left alone now. After its time is over it is on probation: one request at a time."""
        if not self._ejections:
            return False
        return now < self._ejected_until or self._is_probing

    def judge(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        policy: OutlierPolicy,
        may_eject: Callable[[], bool],
        rng: Random,
    ) -> bool:
        """Count an attempt for or against the endpoint; True if it is ejected for that.

        *may_eject* is asked whether one more may be ejected (`OutlierPolicy.max_ejected`) only when it comes to that.
        """
        with self._lock:
            is_probe = ticket.is_probe
            if is_probe:  # the verdict is here; the body may go on for days
                self._is_probing = ticket.is_probe = False
            if not outcome.is_failure:
                self._failures = 0
                if is_probe:
                    self._ejections = 0
                return False
            self._failures += 1
            is_due = outcome.is_connect_failure or is_probe or self._failures >= policy.consecutive_failures
            if not is_due or now < self._ejected_until or not may_eject():
                return False
            self._failures = 0
            bound = min(policy.max_ejection, policy.base_ejection * 2.0 ** min(self._ejections, 30))
            self._ejected_until = now + rng.uniform(bound / 2, bound)
            self._ejections += 1
            return True

    # ---- life

    def update(self, instance: Instance) -> None:
        """The registry has a newer record of the same instance."""
        if self.accept(instance):
            self.retire()

    def accept(self, instance: Instance) -> bool:
        """As `update`, but to retire it is left to the caller, who publishes the new set first; True if it is to be done."""
        self._read(instance)
        if self.rank is Rank.NEVER:
            return True
        self.is_retired = False
        return False

    def _read(self, instance: Instance) -> None:
        """Take from the record what is asked of every endpoint at every change of the set."""
        self.instance = instance
        self.weight = instance.weight
        if instance.state is State.DRAINING:
            self.rank = Rank.NEVER
        else:
            able = instance.state is State.READY and instance.weight > 0
            self.rank = Rank.FIRST if able else Rank.LAST_RESORT

    def retire(self) -> None:
        """No new request from now on. Whoever holds idle connections to it is told to close them."""
        with self._lock:
            told = self._on_retire if not self.is_retired else []
            self.is_retired = True
        for callback in list(told):
            callback()

    def on_retire(self, callback: Callable[[], None]) -> None:
        """Call *callback* when the endpoint retires, in the thread that retires it; at once if it has."""
        with self._lock:
            self._on_retire.append(callback)
            is_retired = self.is_retired
        if is_retired:
            callback()


class Ticket:
    """One request in flight. Close it when the response body is closed, or when no response came. Closing twice is once."""

    __slots__ = ("endpoint", "is_open", "is_probe")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_open = True
        self.is_probe = False
        """Whether it tries an ejected endpoint out."""

    def close(self) -> None:
        self.endpoint.finish(self)
