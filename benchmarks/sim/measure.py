"""What is read out of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .world import Result, Sample

__all__ = ["FAILED_COUNTS", "Summary", "imbalance", "summarize"]

FAILED_COUNTS = 3.0
"""Seconds that a failed request counts for at least, as in `benchmarks.trouble_figures`: who fails fast is not fast."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Seconds, and shares of the requests. ``attempts``: for each request."""

    requests: int
    mean: float
    p50: float
    p99: float
    p999: float
    errors: float
    attempts: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(samples: Iterable[Sample], *, after: float = 0.0, before: float = math.inf) -> Summary:
    """Of the requests that were due between *after* and *before*."""
    chosen = [sample for sample in samples if after <= sample.due < before]
    if not chosen:
        return Summary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    waited = sorted(
        sample.latency if sample.error is None else max(sample.latency, FAILED_COUNTS) for sample in chosen
    )
    count = len(waited)

    def quantile(share: float) -> float:
        return waited[max(0, math.ceil(share * count) - 1)]

    return Summary(
        count,
        sum(waited) / count,
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        sum(sample.error is not None for sample in chosen) / count,
        sum(sample.attempts for sample in chosen) / count,
    )


def imbalance(
    result: Result,
    ready: Mapping[str, tuple[float, float]],
    *,
    window: float,
    after: float,
    before: float,
) -> float:
    """The most that one instance got in a *window* of seconds, in multiples of the mean of all that were *ready* (from, to) in
    the whole of it.
    """
    worst, slots = 0.0, range(int(after / window), int(before / window))
    counts: dict[str, Counter[int]] = {
        id: Counter(int(moment / window) for moment in moments) for id, moments in result.arrivals.items()
    }
    for slot in slots:
        begin, end = slot * window, (slot + 1) * window
        got: Sequence[int] = [
            counts[id][slot] for id, (since, until) in ready.items() if since <= begin and end <= until
        ]
        if got and sum(got):
            worst = max(worst, max(got) * len(got) / sum(got))
    return worst
