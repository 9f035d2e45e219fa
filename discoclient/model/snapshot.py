"""A snapshot: the whole set of a service's instances at one revision. Immutable, replaced and never changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .instance import Instance

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every instance of ``service`` (all states) as of ``revision``.

    An empty snapshot says that the service is known to have no instance. That nothing is known is said by ``None`` in the
    place of a snapshot. ``suspect`` is true when it was read from a single member without a quorum, or from disk: it may
    be old. Two snapshots share the `Instance` objects that did not change between them.
    """

    service: str
    revision: int
    by_id: Mapping[str, Instance]
    suspect: bool = False

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances, ordered by id."""
        return tuple(self.by_id[key] for key in sorted(self.by_id))

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)
