"""Virtual time: events in order, and a clock that jumps from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

__all__ = ["Loop"]


class Loop:
    """Events at the same moment happen in the order in which they were asked for, so a run depends on nothing but its input."""

    __slots__ = ("_count", "_events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the begin."""
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def at(self, moment: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call *function* then. Raises `ValueError` for what is over: virtual time never goes back."""
        if not moment >= self.now:
            raise ValueError(f"{moment} is over: it is {self.now}")
        self._count += 1
        heappush(self._events, (moment, self._count, function, arguments))

    def after(self, seconds: float, function: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + seconds, function, *arguments)

    def run(self) -> None:
        """Until nothing is left to happen."""
        events = self._events
        while events:
            self.now, _, function, arguments = heappop(events)
            function(*arguments)
