"""Which of two instances is the older one? The registry's own order tells, not a clock."""

from __future__ import annotations

from ..model.instance import Instance
from ..registry.protocol import Entry

__all__ = ["GENERATION", "generation_of"]

GENERATION = "generation"
"""A field of the record: the revision at which an instance registered first. It is there once it was put back after it got
lost: the key is as new as that, the instance is not."""


def generation_of(instance: Instance, entry: Entry) -> int:
    """The revision that *instance*, which stands in *entry*, was born at. Smaller is older."""
    said = instance.extra.get(GENERATION)
    if isinstance(said, int) and not isinstance(said, bool) and 0 < said < entry.create_revision:
        return said
    return entry.create_revision
