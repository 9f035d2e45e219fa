"""An endpoint: what this process has learnt about one instance. Mutable; it outlives the records and the pickers.

When is a request over? Its *latency* is known when the response headers are there (or when it failed); it is *in flight*
until its body is closed. Both are reported once, whatever happens, because the `Ticket` that a start returns is the only
way to report them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from threading import RLock

from ..model.instance import Instance, State
from ..model.outcome import Outcome
from ..model.policy import OutlierPolicy
from .accrual import PROBE_PASSED, Accrual, Verdict
from .rank import Rank
from .ticket import Ticket

__all__ = ["Endpoint", "Rank", "Ticket"]

DECAY = 10.0
"""Seconds after which an old latency weighs 1/e (Finagle's and Linkerd's peak EWMA)."""
FAILURE_LATENCY = 1.0
"""Seconds that a failure counts for at least: failing fast must never look attractive (Google SRE's sinkhole)."""
MAX_LATENCY = 30.0
"""Seconds that the average is capped at, so that a row of failures can be forgotten again."""


FORGOTTEN = 5.0
"""Seconds without a request after which it is worth a look how an endpoint is (go-zero's P2C forces a pick after 1 s)."""


class Endpoint:
    """Load, health and requests of one instance. Safe to use from many threads; a lock is held for single assignments."""

    __slots__ = (
        "_accrual",
        "_ewma",
        "_lock",
        "_on_retire",
        "_penalized_at",
        "_penalty",
        "_quiet_since",
        "_stamp",
        "_waiting",
        "address",
        "expectation",
        "failures",
        "first_seen",
        "id",
        "in_flight",
        "instance",
        "is_held",
        "is_marked",
        "is_retired",
        "on_idle",
        "rank",
        "requests",
        "server_errors",
        "weight",
    )

    def __init__(
        self, instance: Instance, *, now: float, latency: float = 0.0, memory: Endpoint | None = None
    ) -> None:
        """*latency*: what it is taken for until it has answered. *memory*: the same instance as we knew it before it left."""
        self._read(instance)
        self.id = instance.id
        self.address = (instance.scheme, instance.host, instance.port)
        self.expectation = None if instance.is_nameless else f"{instance.service}/{instance.id}".encode()
        """Whom a request to it is meant for, as ``X-Disco-Expect`` says it."""
        self.first_seen = now
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.server_errors = 0
        """Answers of 500 and above that are no failures: the application's own, and nothing to eject for."""
        self.is_held = False
        """It vanished from the registry, and is kept as a last resort: the first refused connection ends that."""
        self.is_retired = self.rank is Rank.NEVER
        """It gets no new request: it drains, or has left."""
        self.on_idle: Callable[[], None] | None = None
        """Called when the last request in flight is over, in the thread that ends it."""
        # Reentrant, because the garbage collector may close a forgotten response's ticket while its thread holds the lock.
        self._lock = RLock()
        self._on_retire: list[Callable[[], None]] = []
        self._ewma = latency
        self._stamp = now
        self._penalty = 0.0  # what its last failure counts for, until it gives a good answer
        self._penalized_at = now
        self._waiting = 0  # requests without an outcome yet
        self._quiet_since = now  # when somebody began to wait, or there last was a good answer
        self._accrual = Accrual()
        self.is_marked = False
        """Whether it was ejected since it last passed a probe."""
        if memory is not None:
            self.first_seen = memory.first_seen
            self._ewma, self._stamp, self._accrual = memory._ewma, memory._stamp, memory._accrual.copy()
            self.is_marked = memory.is_marked

    def __repr__(self) -> str:
        is_over = ", retired" if self.is_retired else ""
        return f"<Endpoint {self.id} {self.instance.address} {self.instance.state}, in flight {self.in_flight}{is_over}>"

    # ---- load

    def latency(self, now: float) -> float:
        """The peak EWMA in seconds: it jumps to a new peak at once and decays with time, also while idle.

        After a failure at least what that counts for, which decays as well, and ends with the next good answer.
        """
        latency = self._ewma * math.exp((self._stamp - now) / DECAY)
        if self._penalty:
            latency = max(latency, self._penalty * math.exp((self._penalized_at - now) / DECAY))
        return latency

    def cost(self, now: float) -> float:
        """Expected seconds for one more request here. Smaller is better.

        While requests wait, silence counts as latency: who hangs gives no answer to learn from (Kratos' ``predict`` has the
        same aim).
        """
        if self._penalty:
            latency = self.latency(now)
        elif self._ewma:
            latency = self._ewma * math.exp((self._stamp - now) / DECAY)
        else:  # it has not answered yet: one may try it, and not everybody
            return self.in_flight * FAILURE_LATENCY
        if self._waiting:
            silence = now - self._quiet_since
            if silence > latency:
                latency = min(silence, MAX_LATENCY)
        return latency * (self.in_flight + 1)

    @property
    def is_proven(self) -> bool:
        """Whether it has answered, or we take it for an equal of those that have."""
        return self._ewma > 0.0

    def start(self, now: float) -> Ticket:
        """Count one more request in flight. It falls when the ticket is closed."""
        ticket = Ticket(self)
        with self._lock:
            self.in_flight += 1
            self.requests += 1
            if not self._waiting:
                self._quiet_since = now
            self._waiting += 1
            if self.is_marked:
                accrual = self._accrual
                if not accrual.is_probing and now >= accrual.until:
                    accrual.is_probing = ticket.is_probe = True
        return ticket

    def heard(self, ticket: Ticket, now: float) -> None:
        """For the ticket: an answer has begun."""
        with self._lock:
            self._waiting -= ticket.is_waiting
            ticket.is_waiting = False
            self._quiet_since = now

    def finish(self, ticket: Ticket) -> None:
        """For the ticket: one request less, once."""
        with self._lock:
            if ticket.is_open:
                ticket.is_open = False
                self.in_flight -= 1
                self._stop_waiting(ticket)
                if ticket.is_probe:
                    self._accrual.is_probing = False
        if self.on_idle is not None and not self.in_flight:
            self.on_idle()

    def learn(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        policy: OutlierPolicy,
        veto: Callable[[Endpoint], str | None],
        rng: Random,
    ) -> Verdict | None:
        """Learn from an attempt that ended: how long it took, and whether it speaks for or against the endpoint.

        The verdict, where there is one. *veto* is asked why it must not be ejected (`OutlierPolicy.max_ejected`), if there is a
        reason, only when it comes to that.
        """
        with self._lock:
            self._observe(outcome, now)
            self._stop_waiting(ticket)
            return self._judge(ticket, outcome, now, policy, veto, rng)

    def learn_success(
        self, ticket: Ticket, latency: float, now: float, *, is_warm: bool, window: float
    ) -> None:
        """`learn` for what nearly always is: a good answer, and no probe. All in one place: it is in every call's way."""
        with self._lock:
            self._waiting -= ticket.is_waiting
            ticket.is_waiting = False
            self._quiet_since = now
            weight = math.exp((self._stamp - now) / DECAY)
            current = self._ewma * weight
            if latency <= current or not is_warm:
                latency = current + latency * (1.0 - weight)
            self._ewma = min(latency, MAX_LATENCY)
            self._stamp = now
            self._penalty = 0.0
            self._accrual.note_success(now, window)

    def note_server_error(self) -> None:
        with self._lock:
            self.server_errors += 1

    def _stop_waiting(self, ticket: Ticket) -> None:
        self._waiting -= ticket.is_waiting
        ticket.is_waiting = False

    def _observe(self, outcome: Outcome, now: float) -> None:
        """A failure never lowers the cost, and counts for `FAILURE_LATENCY` at least.

        A success on a new connection is no peak: it took the time to connect, and often a cold start, and one such
        peak would keep an instance that just began from being called for half a minute. It counts by the time since the
        last one, for there are instances that close every connection, and nothing else would be known of them.
        """
        latency = outcome.latency
        if outcome.is_failure:
            self.failures += 1
            worst = max(latency, 2 * self._ewma, 2 * self._penalty, FAILURE_LATENCY)
            if self._waiting:
                worst = max(worst, now - self._quiet_since)
            self._penalty = min(worst, MAX_LATENCY)
            self._penalized_at = now
            return
        self._quiet_since = now
        self._penalty = 0.0
        weight = math.exp((self._stamp - now) / DECAY)
        current = self._ewma * weight
        if latency <= current or not outcome.is_warm:
            latency = current + latency * (1.0 - weight)
        self._ewma = min(latency, MAX_LATENCY)
        self._stamp = now

    def is_forgotten(self, now: float) -> bool:
        """Whether nothing was heard of it for so long that what is known of it may not be true any more, and nobody waits."""
        return now - self._stamp > FORGOTTEN and now - self._penalized_at > FORGOTTEN and not self._waiting

    def outlast(self, seconds: float, now: float) -> None:
        """Learn from a request that was given up after *seconds*, without a verdict: it takes at least that long."""
        with self._lock:
            if seconds > self.latency(now):
                self._ewma, self._stamp = min(seconds, MAX_LATENCY), now

    # ---- outlier detection

    def is_ejected(self, now: float) -> bool:
        """Whether it is to be left alone now. After its time is over it is on probation: one request at a time."""
        if not self.is_marked:  # nearly always, and told without a look at another object
            return False
        accrual = self._accrual
        return now < accrual.until or accrual.is_probing

    def wants_probe(self, now: float) -> bool:
        """Whether its ejection is over, and the next request is to find out whether it is well."""
        return self.is_marked and now >= self._accrual.until and not self._accrual.is_probing

    @property
    def accrual(self) -> Accrual:
        """What speaks for and against it, to look at."""
        return self._accrual

    def _judge(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        policy: OutlierPolicy,
        veto: Callable[[Endpoint], str | None],
        rng: Random,
    ) -> Verdict | None:
        is_probe = ticket.is_probe
        accrual = self._accrual
        if outcome.is_failure or is_probe:
            ticket.is_probe = False  # the verdict is here; the body may go on for days
            verdict = accrual.judge(outcome, now, policy, lambda: veto(self), rng, is_probe=is_probe)
            self.is_marked = accrual.ejections > 0
            if verdict is not None and verdict.reason == PROBE_PASSED:
                self._ewma = min(outcome.latency, MAX_LATENCY)  # from before counts no more
            return verdict
        accrual.note_success(now, policy.success_window)
        return None

    # ---- life

    def update(self, instance: Instance) -> None:
        """The registry has a newer record of the same instance."""
        if self.accept(instance):
            self.retire()

    def accept(self, instance: Instance) -> bool:
        """As `update`, but to retire it is left to the caller, who publishes the new set first; True if it is to be done."""
        self._read(instance)
        self.is_held = False
        if self.rank is not Rank.NEVER:
            self.is_retired = False
        return self.rank is Rank.NEVER

    def is_at(self, instance: Instance) -> bool:
        """Whether *instance* listens where this endpoint's connections lead."""
        return self.address == (instance.scheme, instance.host, instance.port)

    def hold(self) -> None:
        """It vanished from the registry and may be well all the same: a last resort from now on."""
        self.is_held = True
        self.rank = Rank.HELD

    def _read(self, instance: Instance) -> None:
        """Take from the record what is asked of every endpoint at every change of the set."""
        self.instance = instance
        self.weight = instance.weight
        if instance.state is State.DRAINING:
            self.rank = Rank.NEVER
        elif instance.state is not State.READY:
            self.rank = Rank.UNREADY
        else:
            self.rank = Rank.FIRST if instance.weight > 0 else Rank.UNWEIGHTED

    def retire(self) -> None:
        """No new request from now on. Whoever holds idle connections to it is told to close them."""
        with self._lock:
            told, self._on_retire = self._on_retire, []
            self.is_retired = True
        for callback in told:
            callback()

    def on_retire(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when the endpoint retires, in the thread that retires it; at once if it has."""
        with self._lock:
            is_retired = self.is_retired
            if not is_retired:
                self._on_retire.append(callback)
        if is_retired:
            callback()

    def off_retire(self, callback: Callable[[], None]) -> None:
        """Don't, any more."""
        with self._lock:
            self._on_retire = [each for each in self._on_retire if each is not callback]
