"""Reconcile: the endpoints of yesterday and the snapshot of today give the endpoints of today."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import median
from types import MappingProxyType

from ..model.snapshot import Snapshot
from .endpoint import Endpoint

__all__ = ["reconcile"]

SAMPLE = 200
"""Endpoints that are looked at for the fleet's median; all of them, unless there are more."""


def reconcile(
    endpoints: Mapping[str, Endpoint],
    snapshot: Snapshot,
    now: float,
    changed: Collection[str] | None = None,
    *,
    memory: Mapping[str, Endpoint] = MappingProxyType({}),
) -> tuple[Mapping[str, Endpoint], list[Endpoint]]:
    """The new endpoints by id, and those that left, or drain from now on.

    A survivor keeps its endpoint, with its history and its connections. A newcomer is taken to be as fast as
    the fleet's median, not infinitely fast; one that is in *memory*, which has those that left of late, to be what it was.
    Leavers are still to be retired by the caller, once the new set is published. *changed* names the ids that may have
    changed, where that
    is known: others are not looked at.
    """
    after = dict(endpoints)
    left: list[Endpoint] = []
    typical: float | None = None
    for id in snapshot.by_id.keys() | endpoints.keys() if changed is None else changed:
        instance, endpoint = snapshot.by_id.get(id), after.get(id)
        if endpoint is not None:
            if instance is endpoint.instance:
                continue
            if instance is not None and endpoint.is_at(instance):
                if endpoint.accept(instance):
                    left.append(endpoint)
                continue
            left.append(after.pop(id))
        if instance is None:
            continue
        known = memory.get(id)
        if known is not None and known.is_at(instance):
            if known.is_held and not known.is_retired and not known.accept(instance):
                after[id] = known  # it was never away, as far as its connections know
            else:
                after[id] = Endpoint(instance, now=now, memory=known)
            continue
        if typical is None:
            typical = _typical_latency(endpoints, now)
        after[id] = Endpoint(instance, now=now, latency=typical)
    return after, left


def _typical_latency(endpoints: Mapping[str, Endpoint], now: float) -> float:
    known = list(endpoints.values())
    sample = known[:: len(known) // SAMPLE + 1]
    return median(endpoint.latency(now) for endpoint in sample) if sample else 0.0
