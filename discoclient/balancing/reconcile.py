"""Reconcile: the endpoints of yesterday and the snapshot of today give the endpoints of today."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from ..model.snapshot import Snapshot
from .endpoint import Endpoint

__all__ = ["reconcile"]


def reconcile(
    endpoints: Mapping[str, Endpoint], snapshot: Snapshot, now: float
) -> tuple[Mapping[str, Endpoint], list[Endpoint]]:
    """The new endpoints by id, and those that left.

    A survivor keeps its endpoint, with its history and its connections. A newcomer is taken to be as fast as the fleet's
    median, not infinitely fast. Leavers are still to be retired by the caller, once the new set is published.
    """
    after: dict[str, Endpoint] = {}
    typical: float | None = None
    for id, instance in snapshot.by_id.items():
        endpoint = endpoints.get(id)
        if endpoint is not None and endpoint.instance is instance:
            after[id] = endpoint
        elif endpoint is not None and endpoint.address == (instance.scheme, instance.host, instance.port):
            endpoint.update(instance)
            after[id] = endpoint
        else:
            if typical is None:
                typical = median([known.latency(now) for known in endpoints.values()] or [0.0])
            after[id] = Endpoint(instance, now=now, latency=typical)
    return after, [endpoint for id, endpoint in endpoints.items() if after.get(id) is not endpoint]
