"""A view: a snapshot and the picker for it, published together by one assignment."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from random import Random

from ..model.snapshot import Snapshot
from .balancer import Balancer
from .endpoint import Endpoint, Rank
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
    everyone = endpoints.values()
    ranks = sorted({endpoint.rank for endpoint in everyone} - {Rank.NEVER})
    tiers = ([endpoint for endpoint in everyone if endpoint.rank == rank] for rank in ranks)
    return View(snapshot, endpoints, tuple(balancer.picker(tier, rng) for tier in tiers))
