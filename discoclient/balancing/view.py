"""A view: a snapshot and the picker for it, published together by one assignment."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from random import Random

from ..model.instance import State
from ..model.snapshot import Snapshot
from .balancer import Balancer
from .endpoint import Endpoint
from .picker import Picker

__all__ = ["View", "build_view"]


@dataclass(frozen=True, slots=True)
class View:
    """Immutable. ``tiers`` are pickers in the order of preference; a later one is asked when the earlier ones have none."""

    snapshot: Snapshot
    endpoints: Mapping[str, Endpoint]
    tiers: tuple[Picker, ...]

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        for picker in self.tiers:
            endpoint = picker.pick(now, tried)
            if endpoint is not None:
                return endpoint
        return None


def build_view(
    snapshot: Snapshot, endpoints: Mapping[str, Endpoint], balancer: Balancer, rng: Random
) -> View:
    """First what is ready; what is unready or weighs 0 only if nothing else is left; what drains never."""
    first: list[Endpoint] = []
    last: list[Endpoint] = []
    for endpoint in endpoints.values():
        instance = endpoint.instance
        if instance.state is State.READY and instance.weight > 0:
            first.append(endpoint)
        elif instance.state is not State.DRAINING:
            last.append(endpoint)
    return View(snapshot, endpoints, tuple(balancer.picker(tier, rng) for tier in (first, last) if tier))
