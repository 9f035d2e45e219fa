"""A slot: where the newest view for one client's preferences stands."""

from __future__ import annotations

from collections.abc import Callable

from ..balancing.preferences import Preferences
from ..balancing.view import View
from ..model.events import Event

__all__ = ["Slot"]


class Slot:
    """Read without a lock; its view is ``None`` until something is known. *emit* is told what happens to the set.

    ``failure``: why there is no view of what is known, or not the newest: what a balancer of the user's raised.
    """

    __slots__ = ("__weakref__", "emit", "failure", "preferences", "view")

    def __init__(self, preferences: Preferences, emit: Callable[[Event], None]) -> None:
        self.preferences = preferences
        self.emit = emit
        self.view: View | None = None
        self.failure: Exception | None = None
