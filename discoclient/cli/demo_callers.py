"""The callers of the demo: a steady load, from threads with `DiscoClient` and from an event loop with `AsyncDiscoClient`.

It is of GETs; and of POSTs, too, while they are told to.

Requests are sent on a schedule, not when the one before has been answered: so a service that stalls is seen, not waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx

from ..client import AsyncDiscoClient, DiscoClient
from .demo_measures import Call

__all__ = ["Callers"]

THREADS = 4
MOST_IN_FLIGHT = 100
POST_EVERY = 4
"""While there are POSTs, one of so many requests is one."""


class Callers:
    """Sends *rate* requests a second from threads, and as many from an event loop, until the end of the ``with`` block.

    *options* are those of the two clients.

    ``calls`` are the requests that are over, in the order of their ends. They are only ever added.
    """

    def __init__(self, service: str, *, rate: float, **options: Any) -> None:
        self._service = service
        self._rate = rate
        self._options = options
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()
        self._numbers = count()
        self._sync_turns, self._async_turns = count(), count()
        self.is_posting = False
        """Whether some of the requests are POSTs. Each carries a number of its own."""
        self.calls: list[Call] = []
        self.failure: BaseException | None = None
        """What ended a caller before its time, if anything did."""

    def __enter__(self) -> Self:
        client = DiscoClient(self._service, **self._options)
        self._stack.enter_context(client)
        for number in range(THREADS):
            self._begin(partial(self._call, client, number))
        self._begin(lambda: asyncio.run(self._call_async()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._stack.close()

    def stop(self) -> None:
        """Send nothing more, and wait for what is under way. Stopping twice is stopping once."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - the story asks for it, and ends with it
                self.failure = error

        thread = threading.Thread(target=run, name="demo-caller", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _call(self, client: DiscoClient, number: int) -> None:
        interval = THREADS / self._rate
        due = monotonic() + interval * number / THREADS
        while not self._stop.wait(max(0.0, due - monotonic())):
            post = self._post(self._sync_turns)
            began = monotonic()
            try:
                response = client.get("/") if post is None else client.post("/", content=str(post))
                self._answered("sync", began, response, post)
            except httpx.HTTPError as error:
                self._failed("sync", began, error, post)
            due = _next(due, interval)

    async def _call_async(self) -> None:
        interval = 1 / self._rate
        due = monotonic()
        room = asyncio.Semaphore(MOST_IN_FLIGHT)
        async with AsyncDiscoClient(self._service, **self._options) as client, asyncio.TaskGroup() as tasks:
            while not self._stop.is_set():
                await asyncio.sleep(max(0.0, due - monotonic()))
                await room.acquire()
                tasks.create_task(self._call_once(client)).add_done_callback(lambda _: room.release())
                due = _next(due, interval)

    async def _call_once(self, client: AsyncDiscoClient) -> None:
        post = self._post(self._async_turns)
        began = monotonic()
        try:
            response = await (client.get("/") if post is None else client.post("/", content=str(post)))
            self._answered("async", began, response, post)
        except httpx.HTTPError as error:
            self._failed("async", began, error, post)

    def _post(self, turns: Iterator[int]) -> int | None:
        """What the next request is to carry, if it is to be a POST. *turns*: its caller's own, for callers may alternate."""
        is_due = next(turns) % POST_EVERY == 0
        return next(self._numbers) if self.is_posting and is_due else None

    def _answered(self, caller: str, began: float, response: httpx.Response, post: int | None) -> None:
        ended = monotonic()
        attempts = response.extensions["disco"].attempts
        if response.status_code == 200:
            self.calls.append(Call(caller, began, ended, int(response.text), attempts, post=post))
        else:
            error = f"status {response.status_code}"
            self.calls.append(Call(caller, began, ended, None, attempts, error, post))

    def _failed(self, caller: str, began: float, error: httpx.HTTPError, post: int | None) -> None:
        text = f"{type(error).__name__}: {error}"
        self.calls.append(Call(caller, began, monotonic(), None, error=text, post=post))


def _next(due: float, interval: float) -> float:
    """Keep to the schedule, but do not make up for more than a tenth of a second that was slept through."""
    return max(due + interval, monotonic() - 0.1)
