"""So many may be inside at once, and who waits longest comes in first."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Room"]


class Room:
    """For threads; `anyio.Semaphore` is its like for tasks.

    The garbage collector may call `leave` anywhere, also inside `enter`.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.RLock()
        self._is_letting_in = False

    def enter(self, timeout: float | None) -> bool:
        """Whether there was a place within *timeout* seconds."""
        door = threading.Lock()
        door.acquire()
        has_come = False
        try:
            with self._lock:  # a signal's handler may raise from here on
                has_come = True
                self._waiting.append(door)
                self._let_in()
            has_entered = door.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        except BaseException:
            if has_come:
                self._give_up(door)
            raise
        return has_entered or not self._give_up(door, is_entering=True)

    def leave(self) -> None:
        with self._lock:
            self._free += 1
            self._let_in()

    def _give_up(self, door: threading.Lock, *, is_entering: bool = False) -> bool:
        """Whether it had not been let in yet. If it had, and does not enter after all, the place is free again."""
        with self._lock:
            try:
                self._waiting.remove(door)
            except ValueError:
                if not is_entering:
                    self._free += 1
                    self._let_in()
                return False
            return True

    def _let_in(self) -> None:
        if (
            self._is_letting_in
        ):  # called by the garbage collector, in the middle of itself: the loop below looks again
            return
        while self._free and self._waiting:
            self._is_letting_in = True
            try:
                while self._free and self._waiting:
                    self._free -= 1
                    self._waiting.popleft().release()
            finally:
                self._is_letting_in = False
