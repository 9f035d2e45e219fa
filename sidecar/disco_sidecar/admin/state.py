"""The state: everything that can be looked at, as one plain dict, built when somebody asks for it.

It is what ``/api/services`` answers, and what page, events and metrics are made from::

    {"sidecar": {"version", "pid", "started_at", "uptime", "workers", "registry", "ways": [{"kind", "address", "service"}],
                 "connections", "connections_total", "requests", "refused": {reason: n}, "is_draining"},
     "services": [{"service", "is_known", "problem", "phase", "age", "revision", "is_suspect", "is_panic", "balancer",
                   "requests", "retries", "in_flight", "tunnels", "received", "sent", "statuses": {"1xx": n, ...}, "failed",
                   "reasons": {reason: n}, "latency": {"p50", "p99"},
                   "recent": {"seconds", "requests", "errors", "failed", "buckets"},
                   "histogram": {"bounds", "counts", "sum"}, "counts": {name: n}, "history": [[...]],
                   "instances": [{"id", "address", "standing", "state", "version", "zone", "hostname", "slot", "weight",
                                  "in_flight", "latency", "cost", "requests", "failures", "success_rate", "answers",
                                  "failures_in_a_row", "ejected_for", "reason", "known_for"}]}],
     "events": [{"at", "service", "kind", "text", "times"}]}

A point of the history is ``[seconds since 1970, requests/s, 5xx/s, failed/s, p50, p99]``. Times are seconds, ``at`` and
``started_at`` ISO 8601 in UTC. ``latency`` of a service is of the last minute, that of an instance is the balancer's peak
EWMA. ``age`` is ``None`` while the registry never proved what is known. What is not a finite number is ``None``.

Nothing secret gets in: of the registry's URL only what `RegistryAddress` prints, of an instance neither metadata nor
environment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .happenings import Happenings
from .trail import Reading, Trail, quantile

__all__ = ["Observer"]

PATIENCE = 1.0
"""Seconds without any knowledge of a service before that is called a problem."""
DUE = 0.9
"""Seconds after which a look takes a reading of its own, in case nobody calls `Observer.sample`."""


class Observer:
    """Looks at the proxy. Only on its loop.

    Args:
        facts: gives what ``"sidecar"`` holds but ``requests``; the caller's to fill.
        routes: gives discoclient's routes, ``Router.routes``. Asked of each: ``service``, ``is_known``, ``explain()`` (once
            known), ``ledger.stats()``, and of its ``resolver``: ``phase``, ``age()``, ``revision``, ``refusal``,
            ``timed_out(seconds)``.
        counts: gives the proxy's counts of a service, or ``None``. Asked of them: ``requests``, ``failed``, ``in_flight``,
            ``statuses`` (a list, by first digit), ``histogram`` (a list, one more than *bounds*), ``seconds`` (its sum), and
            if they are there ``tunnels``, ``received``, ``sent``, ``reasons`` (a mapping to numbers).
        bounds: the upper bounds of that histogram, in seconds, ascending.
        happenings: the events. Default: none.
        clock: monotonic seconds. Default ``time.monotonic``.
        wall: seconds since 1970. Default ``time.time``.
    """

    def __init__(
        self,
        *,
        facts: Callable[[], dict[str, Any]],
        routes: Callable[[], Iterable[Any]],
        counts: Callable[[str], Any],
        bounds: Sequence[float],
        happenings: Happenings | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._facts = facts
        self._routes = routes
        self._counts = counts
        self._bounds = tuple(bounds)
        self._happenings = happenings
        self._clock = clock
        self._wall = wall
        self._trails: dict[str, Trail] = {}

    def sample(self) -> None:
        """Take a reading of every service; once a second, so that whoever comes to look sees the last two minutes."""
        now, wall = self._clock(), self._wall()
        services = [route.service for route in self._routes()]
        for service in services:
            self._read(service, now, wall)
        if len(self._trails) > len(services):
            self._trails = {service: self._trails[service] for service in services if service in self._trails}

    def state(self) -> dict[str, Any]:
        """As above."""
        now, wall = self._clock(), self._wall()
        services = [self._service(route, now, wall) for route in self._routes()]
        services.sort(key=lambda each: str(each["service"]))
        sidecar = self._facts()
        return {
            "sidecar": {**sidecar, "requests": sum(each["requests"] for each in services)},
            "services": services,
            "events": self._happenings.recent() if self._happenings is not None else [],
        }

    def _read(self, service: str, now: float, wall: float) -> Trail:
        counts = self._counts(service)
        trail = self._trails.get(service)
        if trail is None:
            # The first reading is of what is there by now: what came before has no time of its own.
            trail = self._trails[service] = Trail(self._bounds, _reading(counts, now, len(self._bounds)))
        elif now - trail.newest.at >= DUE:
            trail.add(_reading(counts, now, len(self._bounds)), wall)
        return trail

    def _service(self, route: Any, now: float, wall: float) -> dict[str, Any]:
        service = route.service
        counts, trail = self._counts(service), self._read(service, now, wall)
        recent = trail.recent(_reading(counts, now, len(self._bounds)))
        stats = route.ledger.stats()
        return {
            "service": service,
            **_knowledge(route, now - trail.since),
            "requests": getattr(counts, "requests", 0),
            "retries": stats.get("retries", 0),
            "in_flight": getattr(counts, "in_flight", 0),
            "tunnels": getattr(counts, "tunnels", 0),
            "received": getattr(counts, "received", 0),
            "sent": getattr(counts, "sent", 0),
            "statuses": {f"{digit}xx": counts.statuses[digit] if counts else 0 for digit in range(1, 6)},
            "failed": getattr(counts, "failed", 0),
            "reasons": dict(getattr(counts, "reasons", {})),
            "latency": {
                "p50": quantile(self._bounds, recent["buckets"], 0.5),
                "p99": quantile(self._bounds, recent["buckets"], 0.99),
            },
            "recent": recent,
            "histogram": {
                "bounds": list(self._bounds),
                "counts": list(counts.histogram) if counts else [0] * (len(self._bounds) + 1),
                "sum": getattr(counts, "seconds", 0.0),
            },
            "counts": dict(stats),
            "history": trail.history(),
        }


def _reading(counts: Any, now: float, bounds: int) -> Reading:
    if counts is None:
        return Reading(now, buckets=(0,) * (bounds + 1))
    return Reading(now, counts.requests, counts.statuses[5], counts.failed, tuple(counts.histogram))


def _knowledge(route: Any, waited: float) -> dict[str, Any]:
    resolver = route.resolver
    if not route.is_known:
        return {
            "is_known": False,
            "problem": str(resolver.timed_out(round(waited)))
            if resolver.refusal or waited >= PATIENCE
            else None,
            "phase": str(resolver.phase),
            "age": _finite(resolver.age()),
            "revision": resolver.revision,
            "is_suspect": False,
            "is_panic": False,
            "balancer": "",
            "instances": [],
        }
    explained = route.explain()
    refusal = resolver.refusal
    return {
        "is_known": True,
        "problem": None if refusal is None else str(refusal),
        "phase": explained.phase,
        "age": _finite(explained.age),
        "revision": explained.revision,
        "is_suspect": explained.is_suspect,
        "is_panic": explained.is_panic,
        "balancer": explained.balancer,
        "instances": [_instance(candidate) for candidate in explained.candidates],
    }


def _instance(candidate: Any) -> dict[str, Any]:
    instance = candidate.instance
    return {
        "id": instance.id,
        "address": instance.address,
        "standing": candidate.standing,
        "state": str(instance.state),
        "version": instance.version,
        "zone": instance.zone,
        "hostname": instance.hostname,
        "slot": instance.slot,
        "weight": _finite(candidate.weight),
        "in_flight": candidate.in_flight,
        "latency": _finite(candidate.latency),
        "cost": _finite(candidate.cost),
        "requests": candidate.requests,
        "failures": candidate.failures,
        "success_rate": _finite(candidate.success_rate),
        "answers": candidate.answers,
        "failures_in_a_row": candidate.failures_in_a_row,
        "ejected_for": _finite(candidate.ejected_for),
        "reason": candidate.reason,
        "known_for": _finite(candidate.known_for),
    }


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else round(number, 6)
