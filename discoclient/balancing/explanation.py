"""Why a request would go where: every instance with what this process knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model.instance import Instance
from ..model.policy import OutlierPolicy
from .endpoint import Endpoint, Rank
from .preferences import Preferences
from .shaping import newcomers
from .view import View

__all__ = ["Candidate", "Explanation", "explain"]

_STANDINGS = {
    Rank.FIRST: "ready",
    Rank.UNWEIGHTED: "weight 0",
    Rank.UNREADY: "unready",
    Rank.HELD: "vanished",
    Rank.NEVER: "draining",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One instance. Times are seconds.

    ``standing``: ready; weight 0, unready or vanished (called only if nothing better is left); draining (never called).
    ``weight``: what it gets just now, less than its own for a newcomer. ``latency`` and ``cost``: what ``peak_ewma``
    compares. ``success_rate``: of ``answers`` of late. ``ejected_for``: how long it is left alone still, for ``reason``; 0
    while it waits for a probe; ``None``: not at all.
    """

    instance: Instance
    standing: str
    weight: float
    in_flight: int
    latency: float
    cost: float
    requests: int
    failures: int
    success_rate: float
    answers: int
    failures_in_a_row: int
    ejected_for: float | None
    reason: str | None
    known_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The whole service, as this client sees it. ``age`` and ``phase``: how much the knowledge is worth. ``str`` gives a
    table.
    """

    service: str
    balancer: str
    revision: int
    age: float | None
    phase: str
    is_suspect: bool
    is_panic: bool
    candidates: tuple[Candidate, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        age = "never proved" if self.age is None else f"{self.age:.1f} s old"
        doubt = ", perhaps old" if self.is_suspect else ""
        head = f"{self.service}: {len(self.candidates)} known as of revision {self.revision} ({self.phase}, {age}{doubt})"
        lines = [f"{head}, by {self.balancer}{', in panic' if self.is_panic else ''}"]
        lines += [f"  {_line(candidate)}" for candidate in self.candidates]
        if self.counts:
            lines.append("  " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))
        return "\n".join(lines)

    def rows(self) -> list[dict[str, Any]]:
        """The candidates as plain values, for programs."""
        return [
            {
                "id": candidate.instance.id,
                "address": candidate.instance.address,
                "version": candidate.instance.version,
                "zone": candidate.instance.zone,
                **{
                    name: getattr(candidate, name)
                    for name in Candidate.__dataclass_fields__
                    if name != "instance"
                },
            }
            for candidate in self.candidates
        ]


def explain(
    view: View,
    preferences: Preferences,
    outlier: OutlierPolicy,
    now: float,
    *,
    age: float | None,
    phase: str,
    is_panic: bool,
    counts: Mapping[str, int],
) -> Explanation:
    """What *view* would be chosen from at *now*."""
    everyone = sorted(view.endpoints.values(), key=lambda endpoint: (endpoint.rank, endpoint.id))
    ramps, _ = newcomers(
        [endpoint for endpoint in everyone if endpoint.rank is Rank.FIRST], preferences.slow_start, now
    )
    return Explanation(
        service=view.snapshot.service,
        balancer=type(preferences.balancer).__name__,
        revision=view.snapshot.revision,
        age=age,
        phase=phase,
        is_suspect=view.snapshot.suspect,
        is_panic=is_panic,
        candidates=tuple(_candidate(endpoint, ramps, outlier, now) for endpoint in everyone),
        counts=dict(counts),
    )


def _candidate(
    endpoint: Endpoint, ramps: Mapping[str, float], outlier: OutlierPolicy, now: float
) -> Candidate:
    accrual = endpoint.accrual
    rate, answers = accrual.success_rate(now, outlier.success_window)
    is_ejected = accrual.ejections > 0
    return Candidate(
        instance=endpoint.instance,
        standing=_STANDINGS[endpoint.rank],
        weight=endpoint.weight * ramps.get(endpoint.id, 1.0),
        in_flight=endpoint.in_flight,
        latency=endpoint.latency(now),
        cost=endpoint.cost(now),
        requests=endpoint.requests,
        failures=endpoint.failures,
        success_rate=rate,
        answers=answers,
        failures_in_a_row=accrual.in_a_row,
        ejected_for=max(0.0, accrual.until - now) if is_ejected else None,
        reason=accrual.reason if is_ejected else None,
        known_for=now - endpoint.first_seen,
    )


def _line(candidate: Candidate) -> str:
    instance = candidate.instance
    text = (
        f"{instance.address:<21} {instance.id[:12]:<12} {candidate.standing:<8} weight {candidate.weight:<6g} "
        f"in flight {candidate.in_flight:<3} latency {candidate.latency * 1000:8.2f} ms  cost {candidate.cost * 1000:9.2f}"
    )
    for name in ("version", "zone"):
        value = getattr(instance, name)
        if value is not None:
            text += f"  {name} {value}"
    if candidate.answers:
        text += f"  good {candidate.success_rate:.0%} of {candidate.answers}"
    if candidate.ejected_for is not None:
        wait = f"for {candidate.ejected_for:.1f} s" if candidate.ejected_for else "until a probe goes well"
        text += f"  left alone {wait} ({candidate.reason})"
    return text
