"""Which endpoints are called before which."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Rank"]


class Rank(IntEnum):
    """The lower, the earlier."""

    FIRST = 0
    UNWEIGHTED = 1
    """Ready, with a weight of 0: only if no other is ready."""
    UNREADY = 2
    """Alive, and not well: only if nothing is ready."""
    HELD = 3
    """Vanished from the registry with many others: only if nothing else is left."""
    NEVER = 4
    """Draining."""
