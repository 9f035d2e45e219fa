"""How much this process is serving: a count that a middleware keeps and a drain asks for."""

from __future__ import annotations

import threading
from types import TracebackType

__all__ = ["Load"]


class Load:
    """Requests in flight. ``with load:`` counts one. Safe to use from many threads."""

    __slots__ = ("_lock", "in_flight")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may end a request while its thread is in here
        self.in_flight = 0

    def begin(self) -> None:
        with self._lock:
            self.in_flight += 1

    def end(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
