"""A slot: where the newest view for one client's preferences stands."""

from __future__ import annotations

from collections.abc import Callable

from ..balancing.preferences import Preferences
from ..balancing.view import View
from ..model.events import Event

__all__ = ["Slot"]


class Slot:
    """Read without a lock; its view is ``None`` until something is known. *emit* is told what happens to the set."""

    __slots__ = ("__weakref__", "emit", "preferences", "view")

    def __init__(self, preferences: Preferences, emit: Callable[[Event], None]) -> None:
        self.preferences = preferences
        self.emit = emit
        self.view: View | None = None
