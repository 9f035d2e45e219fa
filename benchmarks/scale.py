"""What grows with the fleet: instances in a service, services in a process, callers at a cluster. And what each costs etcd.

Growth is told per doubling: 2 is linear. `docs/scale.md` reckons with these figures beyond what fits on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import scale_fleet, scale_instances, scale_services, scale_units
from .figures import Section

__all__ = ["run"]


def run(*, quick: bool) -> Iterator[Section]:
    yield scale_instances.measure(quick=quick)
    yield scale_services.measure(quick=quick)
    yield scale_units.measure(quick=quick)
    yield from scale_fleet.measure(quick=quick)
