"""One service's numbers over the last two minutes: rates, quantiles and the little chart come from here. PURE."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Reading", "Trail", "quantile"]

LENGTH = 120
"""Points of the history."""
WINDOW = 60.0
"""Seconds that quantiles and rates are of."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts since the start, as they stood at ``at`` (monotonic). ``buckets``: the histogram, one more than its bounds."""

    at: float
    requests: int = 0
    errors: int = 0
    """Answers of 500 and above, our own among them."""
    failed: int = 0
    buckets: tuple[int, ...] = ()


def quantile(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float | None:
    """Seconds that *share* of the requests took at most, by interpolation in the histogram; ``None`` if there were none.

    Of what is slower than the last bound only that is known, so that it is the answer.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    rank, below = share * total, 0
    for index, count in enumerate(buckets):
        if count and below + count >= rank:
            if index >= len(bounds):
                return bounds[-1]
            low = bounds[index - 1] if index else 0.0
            return min(bounds[index], low + (bounds[index] - low) * (rank - below) / count)
        below += count
    return bounds[-1]


class Trail:
    """Readings of one service, a second or so apart. *bounds*: of its histogram, in seconds; *start*: its first reading."""

    def __init__(self, bounds: Sequence[float], start: Reading) -> None:
        self.since = start.at
        self._bounds = bounds
        self._readings: deque[Reading] = deque([start], maxlen=LENGTH + 1)
        self._points: deque[list[Any]] = deque(maxlen=LENGTH)

    def add(self, reading: Reading, wall: float) -> None:
        """*wall*: seconds since 1970, to be shown."""
        before = self._readings[-1]
        elapsed = reading.at - before.at
        if elapsed <= 0:
            return
        buckets = _between(before, reading)
        p50, p99 = (quantile(self._bounds, buckets, share) for share in (0.5, 0.99))
        rates = (
            round((getattr(reading, name) - getattr(before, name)) / elapsed, 2)
            for name in ("requests", "errors", "failed")
        )
        self._readings.append(reading)
        self._points.append([round(wall), *rates, _short(p50), _short(p99)])

    @property
    def newest(self) -> Reading:
        return self._readings[-1]

    def history(self) -> list[list[Any]]:
        """``[seconds since 1970, requests/s, 5xx/s, failed/s, p50, p99]``, oldest first."""
        return list(self._points)

    def recent(self, now: Reading) -> dict[str, Any]:
        """What the last minute brought, or as much of it as there is."""
        times = [each.at for each in self._readings]
        before = self._readings[max(0, bisect_right(times, now.at - WINDOW) - 1)]
        return {
            "seconds": round(now.at - before.at, 3),
            "requests": now.requests - before.requests,
            "errors": now.errors - before.errors,
            "failed": now.failed - before.failed,
            "buckets": list(_between(before, now)),
        }


def _between(before: Reading, after: Reading) -> tuple[int, ...]:
    if not before.buckets:
        return after.buckets
    return tuple(b - a for a, b in zip(before.buckets, after.buckets, strict=True))


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
