"""A transport that a user lent: who uses it, and when it is to be closed."""

from __future__ import annotations

import threading

__all__ = ["Loan"]


class Loan:
    """Counts the requests that use it or wait to. Whoever is told ``True`` closes it; it is said once.

    Safe from any thread; the garbage collector may call `leave` anywhere, also inside `enter`.
    """

    __slots__ = ("_is_closed", "_is_ending", "_lock", "_users")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._is_ending = False
        self._is_closed = False

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            self._is_closed = False  # who comes too late opens connections of its own there

    def leave(self) -> bool:
        with self._lock:
            self._users -= 1
            return self._is_due()

    def end(self, *, at_once: bool = False) -> bool:
        """Nobody else is to come; with *at_once* nobody is waited for either."""
        with self._lock:
            self._is_ending = True
            if at_once:
                self._users = 0
            return self._is_due()

    def _is_due(self) -> bool:
        if self._users > 0 or not self._is_ending or self._is_closed:
            return False
        self._is_closed = True
        return True
