"""The event loop that an async caller lives in, asyncio's or trio's, as seen from another thread."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

__all__ = ["Home", "find_loop", "is_trio"]

logger = logging.getLogger("discoclient.transport")


def find_loop() -> object:
    """What stands for the loop that runs here: asyncio's loop, or trio's token."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        if trio is None:
            raise
        token: object = trio.lowlevel.current_trio_token()
        return token


def is_trio() -> bool:
    """Whether the code runs under trio, and not under asyncio."""
    return not isinstance(find_loop(), asyncio.AbstractEventLoop)


class Home:
    """One event loop."""

    def __init__(self, loop: object) -> None:
        self.is_asyncio = isinstance(loop, asyncio.AbstractEventLoop)
        self._loop: Any = loop
        self._tasks: set[Any] = set()
        self._owed: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._ending: AsyncGenerator[None, None] | None = None
        self._is_ending = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing can run there any more."""
        if self.is_asyncio:
            return bool(self._loop.is_closed())
        try:
            self._loop.run_sync_soon(int)
        except Exception:
            return True
        return False

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call *function* in the loop. Safe from any thread; nothing happens if the loop is closed."""
        try:
            if self.is_asyncio:
                self._loop.call_soon_threadsafe(function)
            else:
                self._loop.run_sync_soon(function)
        except Exception:
            return

    def run_soon(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function in the loop, as a task of its own, or at the loop's end if it has not run by then.

        Safe from any thread. What it raises is of no interest to anybody.
        """
        self._owed.add(function)
        self.call_soon(lambda: self._spawn(function))

    def at_end(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await *finish* in the loop when it ends. For code that runs there.

        Whoever ends a loop well (`asyncio.run`, `trio.run`) closes the async generators that were begun in it: so we begin one.
        """
        self._ending = self._wait_for_the_end(finish)
        try:
            self._ending.asend(None).send(None)
        except StopIteration:  # it stands at its ``yield``
            return

    async def _wait_for_the_end(
        self, finish: Callable[[], Coroutine[Any, Any, None]]
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._is_ending = True
            for function in [*self._owed, finish]:
                await self._do(function)

    def _spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._is_ending:
            return
        if self.is_asyncio:
            task = self._loop.create_task(self._do(function))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            try:
                sys.modules["trio"].lowlevel.spawn_system_task(self._do, function)
            except RuntimeError:
                return  # the run is about to end and takes no tasks; raised from here, it would be trio's own crash

    async def _do(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await function()
        except Exception:
            logger.debug("closing a connection failed", exc_info=True)
        self._owed.discard(function)  # but not when it was cancelled
