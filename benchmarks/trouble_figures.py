"""What is read out of one run against a fleet in trouble: from the caller's samples, and from what reached the servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .figures import percentile
from .open_loop import ATTEMPT_TIMEOUT, Report, Sample

__all__ = ["FAILED_COUNTS", "LEFT_ALONE", "Run", "requests_until_left_alone", "times_fair_share"]

FAILED_COUNTS = 3 * ATTEMPT_TIMEOUT
"""Seconds that a failed request counts for at least, as long as three attempts may take: who fails fast is not fast."""
LEFT_ALONE = 2 * ATTEMPT_TIMEOUT
"""Seconds without a request after which an instance counts as left alone: longer than a request may hang there."""


@dataclass(frozen=True, slots=True)
class Run:
    """One side, once. Moments are seconds from the begin of the schedule, which went on for ``seconds``."""

    seconds: float
    report: Report
    kinds: Sequence[str]
    """Of the instances."""
    arrivals: Sequence[Sequence[float]]
    """When each of them got a request."""

    @classmethod
    def read(cls, seconds: float, report: Any, kinds: Sequence[str], arrivals: Any) -> Run:
        """From what the two processes said, as JSON gives it."""
        began, cpu, wall, samples = report
        return cls(
            seconds,
            Report(began, cpu, wall, [Sample(*sample) for sample in samples]),
            kinds,
            [[moment - began for moment in moments] for moments in arrivals],
        )

    def latency(self, share: float, *, after: float = 0.0) -> float:
        """Milliseconds within which *share* of the requests that were due *after* had their answer; see `FAILED_COUNTS`."""
        return percentile(_waited(self.report.samples, after), share) * 1e3

    def outside(self, share: float) -> float:
        """The same for the time that a request was neither late nor with a server. Only where nothing is retried."""
        samples = self.report.samples
        return percentile((each.latency - each.late - each.served for each in samples), share) * 1e3

    def late(self, share: float) -> float:
        """Milliseconds that *share* of the requests were at most sent late."""
        return percentile((sample.late for sample in self.report.samples), share) * 1e3

    @property
    def busy(self) -> float:
        """The CPU that the process of the caller used, in percent of a core."""
        return self.report.cpu / self.report.wall * 100

    @property
    def errors(self) -> Counter[str]:
        return Counter(sample.error for sample in self.report.samples if sample.error is not None)

    @property
    def amplification(self) -> float:
        """Requests that reached a server for each that was made."""
        return sum(map(len, self.arrivals)) / len(self.report.samples)

    def at(self, kind: str) -> list[float]:
        """When instances of that *kind* got requests."""
        groups = zip(self.kinds, self.arrivals, strict=True)
        return sorted(moment for each, moments in groups if each == kind for moment in moments)

    @property
    def until_left_alone(self) -> int:
        return requests_until_left_alone(self.at("hung"), until=self.seconds)

    def failing_share(self, *, worst_second: bool = False) -> float:
        """What the failing instance got, in multiples of its fair share: in all, or in the second when it was most."""
        everything = [moment for moments in self.arrivals for moment in moments]
        length = 1.0 if worst_second else self.seconds
        return times_fair_share(
            self.at("failing"), everything, instances=len(self.kinds), seconds=self.seconds, length=length
        )


def _waited(samples: Iterable[Sample], after: float) -> Iterable[float]:
    for sample in samples:
        if sample.due >= after:
            yield sample.latency if sample.error is None else max(sample.latency, FAILED_COUNTS)


def requests_until_left_alone(moments: Sequence[float], *, until: float) -> int:
    """How many requests came before the first `LEFT_ALONE` seconds without one; all if there were none such *until* the end."""
    for count, (one, other) in enumerate(pairwise([*moments, until]), start=1):
        if other - one >= LEFT_ALONE:
            return count
    return len(moments)


def times_fair_share(
    moments: Iterable[float], everything: Iterable[float], *, instances: int, seconds: float, length: float
) -> float:
    """The most that one of *instances* got of *everything* in any whole *length* of *seconds*, in multiples of its fair share.

    What came after the last whole one, such as retries of the last requests, does not count.
    """
    whole = max(1, int(seconds / length))
    mine = Counter(int(moment / length) for moment in moments)
    total = Counter(int(moment / length) for moment in everything)
    return max(mine[slot] / (total[slot] / instances) if total[slot] else 0.0 for slot in range(whole))
