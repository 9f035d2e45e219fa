"""Calling what a service gave as its ``on_retire``."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial

__all__ = ["call_on_retire"]

logger = logging.getLogger("discoclient.serving")


def call_on_retire(function: Callable[..., object], reason: str) -> None:
    """Call *function*, with *reason* if it takes an argument, on a thread of its own: what it does may wait for our loop."""
    bound = partial(function, reason) if _takes_one(function) else function
    threading.Thread(target=_call, args=(bound,), name="discoclient-retire", daemon=True).start()


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind("")
    except TypeError:
        return False
    except ValueError:  # it has no signature, as some functions in C
        return True
    return True


def _call(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:
        logger.exception("on_retire failed")
