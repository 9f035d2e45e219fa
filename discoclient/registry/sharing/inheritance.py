"""Files that a forked child must not keep: it would hold a lock for longer than the process whose it is, or a connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["disown", "keep_from_children", "while_no_fork"]

_kept_from_children: dict[int, tuple[int, int]] = {}
_lock = threading.Lock()


def keep_from_children(descriptor: int) -> None:
    """A forked child gives its copy of *descriptor* up at once. To be taken back by `disown` before it is closed."""
    _kept_from_children[descriptor] = _identity(descriptor)


def disown(descriptor: int) -> None:
    _kept_from_children.pop(descriptor, None)


@contextmanager
def while_no_fork() -> Iterator[None]:
    """For the moment between opening a file and naming it here. Must be short: whoever forks waits."""
    with _lock:
        yield


def _give_up() -> None:
    """In the child. The numbers stay taken: objects that we never touch again think that these are theirs, and may close them.

    Nothing of it goes through the parent's event loop, and its epoll does not notice: it goes by the file, not by the number.
    """
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, identity in _kept_from_children.items():
            if _identity(descriptor) == identity:  # else asyncio closed it, and the number is somebody else's
                os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
    except OSError:
        pass  # too many open files, say: whoever loses its lender this way hears nothing of it, and notices that
    finally:
        _kept_from_children.clear()
        _lock.release()


def _identity(descriptor: int) -> tuple[int, int]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return -1, descriptor
    return found.st_dev, found.st_ino


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_give_up)
