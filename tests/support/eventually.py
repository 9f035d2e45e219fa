"""Waiting for something to come true: short looks at a condition, a deadline, and words for when it does not."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

import anyio

__all__ = ["eventually", "eventually_async"]

T = TypeVar("T")

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


def eventually(predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "") -> T:
    """The first true value of *predicate*, looked at again and again for up to *timeout* seconds.

    An `AssertionError` inside *predicate* counts as "not yet", so that it may hold assertions; any other
    error is raised at once. When the time is over the `AssertionError` names *what*, and the last value or
    assertion.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        is_last = time.monotonic() >= deadline
        try:
            value = predicate()
            if value:
                return value
            problem = f"last: {value!r}"
        except AssertionError as error:
            problem = f"last: {error}"
        if is_last:
            raise AssertionError(f"not within {timeout:g} s: {what or _name(predicate)} ({problem})")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[T]], *, timeout: float = 5.0, what: str = ""
) -> T: ...
@overload
async def eventually_async(predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "") -> T: ...
async def eventually_async(
    predicate: Callable[[], object], *, timeout: float = 5.0, what: str = ""
) -> object:
    """`eventually` that lets the loop run, on asyncio and on trio. *predicate* may be async."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        is_last = time.monotonic() >= deadline
        try:
            found = predicate()
            value = await found if isinstance(found, Awaitable) else found
            if value:
                return value
            problem = f"last: {value!r}"
        except AssertionError as error:
            problem = f"last: {error}"
        if is_last:
            raise AssertionError(f"not within {timeout:g} s: {what or _name(predicate)} ({problem})")
        await anyio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _name(predicate: object) -> str:
    return getattr(predicate, "__qualname__", repr(predicate))
