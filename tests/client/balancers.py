"""A balancer for tests that have to know who is asked first."""

from __future__ import annotations

from collections.abc import Container, Sequence
from random import Random

from discoclient import Endpoint

__all__ = ["BySlot"]


class BySlot:
    """The instance with the first slot by name that was not tried yet."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> _BySlotPicker:
        return _BySlotPicker(sorted(endpoints, key=lambda endpoint: endpoint.instance.slot))


class _BySlotPicker:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return next((endpoint for endpoint in self._endpoints if endpoint.id not in tried), None)
