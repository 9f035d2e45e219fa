"""What speaks for and against one endpoint (passive outlier detection): failures in a row, success rate, ejections, probes.

Finagle's failure accrual with Envoy's caps: 5 failures in a row, or too few good answers of late, eject; the time doubles
with each further ejection, with equal jitter; then one request at a time tries the endpoint out.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from random import Random

from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import OutlierPolicy

__all__ = ["PROBE_PASSED", "Accrual", "Verdict"]


PROBE_PASSED = "probe_passed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ejected for ``seconds``; or due to be, and not done ``because``; or well again, with the ``reason`` `PROBE_PASSED`."""

    reason: str
    seconds: float = 0.0
    because: str | None = None

    @property
    def is_ejected(self) -> bool:
        return self.seconds > 0


class Accrual:
    """Not safe by itself: the endpoint holds its lock."""

    __slots__ = (
        "_bad",
        "_bad_before",
        "_began",
        "_good",
        "_good_before",
        "ejections",
        "in_a_row",
        "is_probing",
        "reason",
        "until",
    )

    def __init__(self) -> None:
        self.in_a_row = 0
        """Failures since the last good answer."""
        self.ejections = 0
        """How often it was ejected since it last passed a probe."""
        self.until = 0.0
        """When its ejection is over, and a probe may be sent."""
        self.is_probing = False
        self.reason = ""
        """What it was ejected for."""
        self._began = 0.0
        self._good = self._bad = self._good_before = self._bad_before = 0

    def copy(self) -> Accrual:
        """For the same instance when it comes back: without a probe, which was another endpoint's."""
        twin = copy(self)
        twin.is_probing = False
        return twin

    def success_rate(self, now: float, window: float) -> tuple[float, int]:
        """The share of good answers in the last half to whole *window* seconds, and of how many."""
        passed = now - self._began
        if passed >= window:
            return 1.0, 0
        good, bad = (self._good, self._bad)
        if passed < window / 2:
            good, bad = good + self._good_before, bad + self._bad_before
        return (good / (good + bad) if good + bad else 1.0), good + bad

    def note_success(self, now: float, window: float) -> None:
        """A good answer, and no probe: what nearly always is."""
        if now - self._began >= window / 2:
            self._slide(now, window)
        self.in_a_row = 0
        self._good += 1

    def judge(
        self,
        outcome: Outcome,
        now: float,
        policy: OutlierPolicy,
        veto: Callable[[], str | None],
        rng: Random,
        *,
        is_probe: bool,
    ) -> Verdict | None:
        if is_probe:
            self.is_probing = False
        self._slide(now, policy.success_window)
        if not outcome.is_failure:
            self.in_a_row = 0
            self._good += 1
            if not is_probe:
                return None
            self.ejections = 0
            self._forget()
            return Verdict(PROBE_PASSED)
        self.in_a_row += 1
        self._bad += 1
        reason = self._reason(outcome, now, policy, is_probe)
        if reason is None or now < self.until:
            return None
        because = veto()
        if because is not None:
            return Verdict(reason, because=because)
        bound = min(policy.max_ejection, policy.base_ejection * 2.0 ** min(self.ejections, 30))
        seconds = rng.uniform(bound / 2, bound)
        self.in_a_row = 0
        self._forget()
        self.until = now + seconds
        self.ejections += 1
        self.reason = reason
        return Verdict(reason, seconds)

    def _reason(self, outcome: Outcome, now: float, policy: OutlierPolicy, is_probe: bool) -> str | None:
        if outcome.is_connect_failure:
            return "connect"
        if outcome.kind is OutcomeKind.MISDIRECTED:
            return "wrong_instance"
        if is_probe:
            return "probe"
        if self.in_a_row >= policy.consecutive_failures:
            return "consecutive"
        rate, answers = self.success_rate(now, policy.success_window)
        return "success_rate" if answers >= policy.min_requests and rate < policy.min_success_rate else None

    def _slide(self, now: float, window: float) -> None:
        """Two half windows: the older one goes when the younger one is full."""
        passed = now - self._began
        if passed >= window:
            self._forget()
            self._began = now
        elif passed >= window / 2:
            self._good_before, self._bad_before = self._good, self._bad
            self._good = self._bad = 0
            self._began += window / 2

    def _forget(self) -> None:
        """What it was judged by must not judge it again."""
        self._good = self._bad = self._good_before = self._bad_before = 0
