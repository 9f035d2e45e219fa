"""Who gets less than its weight, or nothing: newcomers, other zones, and what is outside of our subset."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..model.policy import SlowStartPolicy
from .endpoint import Endpoint
from .hashing import digest, mix

__all__ = ["newcomers", "subset", "zone_share"]

STEPS = 10
"""In how many steps a newcomer gets its whole share: each is a new view, and a weight class for those who are as new."""


def newcomers(
    endpoints: Sequence[Endpoint], policy: SlowStartPolicy, now: float
) -> tuple[dict[str, float], float | None]:
    """The factors of the weights by id, for those that have not their whole share yet; and when that is to be asked again.

    Envoy's slow start, linear, from when we first saw them. None while more than half are new: that is a deploy, or
    our own start (Envoy's documentation: no use when all are new).
    """
    window = policy.window
    if not window:
        return {}, None
    since = now - window
    new = {endpoint.id: now - endpoint.first_seen for endpoint in endpoints if endpoint.first_seen > since}
    if not new or 2 * len(new) > len(endpoints):
        return {}, None
    step = window / STEPS
    steps = {id: math.floor(age / step) for id, age in new.items()}
    next_step = min((steps[id] + 1) * step - age for id, age in new.items())
    return {id: max(policy.floor, done / STEPS) for id, done in steps.items()}, now + next_step


def zone_share(endpoints: Sequence[Endpoint], zone: str | None) -> float | None:
    """How much of our requests stays in *zone*; ``None`` where zones make no difference.

    Envoy's zone-aware routing, with callers taken to be spread evenly over the zones, for we don't know where they are: a
    zone with its fair part of the capacity keeps all of its requests, one with less keeps what it can carry.
    """
    if zone is None:
        return None
    capacity: dict[str | None, float] = {}
    for endpoint in endpoints:
        capacity[endpoint.instance.zone] = capacity.get(endpoint.instance.zone, 0.0) + endpoint.weight
    total = sum(capacity.values())
    if len(capacity) < 2 or not capacity.get(zone):
        return None
    return min(1.0, capacity[zone] * len(capacity) / total)


def subset(endpoints: Sequence[Endpoint], size: int | None, seed: str) -> Sequence[Endpoint]:
    """*size* of the endpoints, the same for the same *seed*; one that comes or goes changes one of them at most (gRFC A68)."""
    if size is None or len(endpoints) <= size:
        return endpoints
    place = digest(seed)
    return sorted(endpoints, key=lambda endpoint: mix(place ^ digest(endpoint.id)))[:size]
