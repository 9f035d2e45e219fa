"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

# Short enough that nobody notices, long enough that a waiting process costs next to nothing.
_INTERVAL = 0.01


def wait_until(condition: Callable[[], bool], *, timeout: float) -> bool:
    """Whether *condition* came true within *timeout* seconds; it is looked at once more at the very end."""
    deadline = time.monotonic() + timeout
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return condition()
        time.sleep(min(_INTERVAL, left))
    return True
