"""The ledger: what the calls to one service have in common: budgets, recent latencies, panic, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from threading import RLock

from ..balancing.endpoint import Endpoint, Rank
from ..model.events import PanicChanged, RequestThrottled
from ..model.policy import HedgePolicy, OutlierPolicy, RecoveryPolicy, RetryPolicy, ThrottlePolicy
from .budget import RetryBudget
from .latencies import Latencies
from .recovery import Recovery
from .throttle import Throttle

__all__ = ["CAPPED", "Ledger", "Policies"]

OFF, ALONE, CAPPED = "off", "alone", "max_ejected"
"""Why an endpoint that is due for it is not ejected."""
LOOK_AGAIN = 1.0
"""Seconds between two looks whether a panic is over: each one looks at every endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """How calls are made. Clients of a service with equal policies share a ledger."""

    retry: RetryPolicy = RetryPolicy()
    outlier: OutlierPolicy = OutlierPolicy()
    hedge: HedgePolicy | None = None
    throttle: ThrottlePolicy | None = None
    recovery: RecoveryPolicy | None = None


class Ledger:
    """Safe to use from many threads."""

    def __init__(self, service: str, policies: Policies) -> None:
        self.service = service
        self.policies = policies
        retry, hedge = policies.retry, policies.hedge
        self.budget = RetryBudget(ratio=retry.budget, reserve=retry.budget_reserve)
        self.hedges = RetryBudget(ratio=hedge.budget, reserve=0.0) if hedge is not None else None
        self.latencies = Latencies() if hedge is not None else None
        self._throttle = Throttle(policies.throttle) if policies.throttle is not None else None
        self._recovery = Recovery(policies.recovery) if policies.recovery is not None else None
        self.is_guarded = self._throttle is not None or self._recovery is not None
        """Whether a call must ask to be admitted."""
        # Reentrant: a finalizer may end a call while its thread is in here.
        self._lock = RLock()
        self._counts: Counter[str] = Counter()
        self._ejecting: set[str] = set()
        self.is_panic = False
        self.is_curious = self.is_guarded or self.latencies is not None
        """Whether a good answer is of interest beyond its endpoint."""
        self._looked_at = 0.0

    def record(self, now: float) -> None:
        """A call begins."""
        self.budget.record(now)
        if self.hedges is not None:
            self.hedges.record(now)

    def count(self, what: str) -> None:
        """For what is rare: it takes a lock that all calls share."""
        with self._lock:
            self._counts[what] += 1

    def stats(self) -> dict[str, int]:
        """Counts by name. ``requests``: calls that came as far as being sent; each took one attempt, and its retries and
        hedges.
        """
        with self._lock:
            counts = dict(self._counts)
        return {"requests": self.budget.recorded, "retries": self.budget.spent, **counts}

    def reserve(self, endpoint: Endpoint, peers: Iterable[Endpoint], now: float) -> str | None:
        """Why *endpoint* must not be ejected; if it may, its place is taken until `release`: no two threads take the same."""
        policy = self.policies.outlier
        if policy.max_ejected <= 0:
            return OFF
        able = [peer for peer in peers if not peer.is_retired]
        if len(able) <= 1:
            return ALONE
        with self._lock:
            others = [peer for peer in able if peer is not endpoint]
            out = sum(peer.is_ejected(now) or peer.id in self._ejecting for peer in others)
            if not may_eject_more(out, len(able), policy):
                return CAPPED
            self._ejecting.add(endpoint.id)
        return None

    def release(self, endpoint: Endpoint) -> None:
        """It is ejected by now."""
        with self._lock:
            self._ejecting.discard(endpoint.id)

    def admit(self, endpoints: Mapping[str, Endpoint], now: float, rng: Random) -> RequestThrottled | None:
        """Whether a new call may begin; if not, why."""
        if self._recovery is not None:
            # On probation is not usable yet: counting it in and out would make the number flap.
            usable = sum(
                endpoint.rank is Rank.FIRST and not endpoint.accrual.ejections
                for endpoint in endpoints.values()
            )
            probability = self._recovery.admit(usable, now, rng)
            if probability is not None:
                return RequestThrottled(self.service, "recovery", probability)
        if self._throttle is not None:
            probability = self._throttle.admit(now, rng)
            if probability is not None:
                return RequestThrottled(self.service, "throttle", probability)
        return None

    def took(self, now: float) -> None:
        """The service took a request on."""
        if self._throttle is not None:
            self._throttle.accepted(now)

    def panic(self, endpoints: Iterable[Endpoint], now: float, *, is_capped: bool) -> PanicChanged | None:
        """What an attempt's end says of a panic. *is_capped*: one was due for ejection, and too many are ejected."""
        if not self.is_panic and not is_capped:  # nearly always
            return None
        with self._lock:
            if self.is_panic and (is_capped or now - self._looked_at < LOOK_AGAIN):
                return None
            self._looked_at = now
            able = [endpoint for endpoint in endpoints if not endpoint.is_retired]
            ejected = sum(endpoint.is_ejected(now) for endpoint in able)
            # Over only when some of them proved to be well, and not when their time is up.
            marked = sum(endpoint.is_marked for endpoint in able)
            if self.is_panic and not may_eject_more(marked, len(able), self.policies.outlier):
                return None
            self.is_panic = is_capped
            self.is_curious = is_capped or self.is_guarded or self.latencies is not None
        return PanicChanged(self.service, is_capped, ejected, len(able))


def may_eject_more(ejected: int, total: int, policy: OutlierPolicy) -> bool:
    """Whether one more may be ejected. One of several always may (Envoy's ``max_ejection_percent`` does the same)."""
    return ejected + 1 <= max(1, int(total * policy.max_ejected))
