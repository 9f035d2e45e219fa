"""The one private event loop of this process, in a thread of its own.

Watches and leases live here, for sync and async users alike: a blocked loop of the application must not lose a lease, and
nothing of it is on the path of a request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Background"]

T = TypeVar("T")

logger = logging.getLogger("discoclient.control")


class Background:
    """A daemon thread that runs an event loop from the first use until `stop`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the background thread itself."""
        return threading.current_thread() is self._thread

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* there, and wait for what comes of it."""
        try:
            self.check_elsewhere()
        except RuntimeError:
            coroutine.close()
            raise
        return self.submit(coroutine).result()

    def check_elsewhere(self) -> None:
        """Raise `RuntimeError` on the background thread itself: whoever waited there would stop everything."""
        if self.is_here:
            raise RuntimeError(
                "this waits for discoclient's background thread, and was called on it, by a hook or by on_state; "
                "hand it to a thread of your own"
            )

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call *function* there, soon. Safe from any thread and from a finalizer; ignored once stopped."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # closed meanwhile
            pass

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """For code that runs there: a task that is kept, and whose failure is logged."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def stop(self, timeout: float) -> None:
        """End the loop and its thread; waits *timeout* seconds at most."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self.post(loop.stop)
        thread.join(timeout)

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                # Not new_event_loop(): the application's policy may give another kind, with other ways to fork and to close.
                self._loop = asyncio.SelectorEventLoop()
                self._loop.set_exception_handler(_log_exception)
                self._loop.set_debug(False)  # which dev mode turns on: it complains of slow moments on stderr
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="discoclient", daemon=True
                )
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            # One round lets the cancelled tasks end, the next lets their connections close.
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
        finally:
            loop.close()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a background task failed", exc_info=task.exception())


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Never on stderr: an application did not ask for this loop."""
    logger.debug("event loop: %s", context.get("message"), exc_info=context.get("exception"))
