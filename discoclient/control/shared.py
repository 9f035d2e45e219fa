"""What the clients of one service share: made for the first who asks, and closed some time after the last one is gone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["SharedThings"]

T = TypeVar("T")

SPARE = 4
"""Things without a user that are kept for the next one: clients made per call come back, those with options of their own
don't.
"""


class SharedThings:
    """By key, with their users counted. Safe to use from many threads; what has a method ``close`` is closed outside of the
    lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[Hashable, Any] = {}
        self._users: dict[Hashable, int] = {}
        self._spare: OrderedDict[Hashable, None] = OrderedDict()

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of that key, for one more user."""
        with self._lock:
            if key not in self._things:
                self._things[key] = make()
                self._users[key] = 0
            self._users[key] += 1
            self._spare.pop(key, None)
            found: T = self._things[key]
            return found

    def give_back(self, key: Hashable) -> None:
        """One user less."""
        closing = []
        with self._lock:
            if self._users.get(key, 0) > 0:
                self._users[key] -= 1
                if not self._users[key]:
                    self._spare[key] = None
            while len(self._spare) > SPARE:
                oldest, _ = self._spare.popitem(last=False)
                del self._users[oldest]
                closing.append(self._things.pop(oldest))
        _close(closing)

    def close(self) -> None:
        """Close everything. For callers that still call, things are made anew."""
        with self._lock:
            closing = list(self._things.values())
            self._things.clear()
            self._users.clear()
            self._spare.clear()
        _close(closing)


def _close(things: list[Any]) -> None:
    for thing in things:
        if hasattr(thing, "close"):
            thing.close()
