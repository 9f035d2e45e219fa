"""What a process listens on: for each way in its sockets, who keeps them, and the files of Unix sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from ..places import Listener

__all__ = ["Sockets", "close_sockets"]


class Sockets(dict[Listener, list[socket.socket]]):
    """By listener. ``lent``: those of whoever started us, who keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.lent: set[Listener] = set()
        self._files: dict[Listener, tuple[int, int]] = {}

    def add(self, listener: Listener, sockets: list[socket.socket], *, is_lent: bool) -> None:
        self[listener] = sockets
        if is_lent:
            self.lent.add(listener)
        elif listener.place.path is not None:
            found = _file(listener.place.path)
            if found is not None:
                self._files[listener] = found

    def owns(self, listener: Listener) -> bool:
        """Whether the file of its Unix socket is still the one that was there when we began to listen."""
        path, known = listener.place.path, self._files.get(listener)
        return path is not None and known is not None and _file(path) == known

    def forget(self, listener: Listener) -> None:
        """It is removed: what is there from now on is another one's, even if it gets the same number."""
        self._files.pop(listener, None)


def close_sockets(
    sockets: Sockets,
    *,
    keep: Collection[Listener],
    which: Callable[[Listener], bool] = lambda listener: True,
) -> None:
    """Close those of *which*, and remove the files of Unix sockets; but not those of *keep*, which another process has."""
    for listener, bound in sockets.items():
        if not which(listener):
            continue
        for each in bound:
            each.close()
        path = listener.place.path
        if path is not None and listener not in keep and sockets.owns(listener):
            with suppress(OSError):
                Path(path).unlink()
            sockets.forget(listener)


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
