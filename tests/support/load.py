"""Open-loop load: request number n is sent at its time, whatever has become of those before it.

A closed loop (send, wait, send) would pause while a service hangs, and count one failure where an open one
counts a hundred.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

__all__ = ["AsyncLoad", "Load", "LoadTooSlow", "Sent"]

_MOST_THREADS = 256
_LATE = 1.0


class LoadTooSlow(RuntimeError):
    """The schedule was not kept at all: what was measured was this machine."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. Times are `time.monotonic`'s; ``due`` is when it was to be sent."""

    method: str
    due: float
    began: float
    ended: float
    status: int = 0
    instance: str = ""
    """The id of who answered."""
    attempts: int = 0
    error: Exception | None = None

    @property
    def is_failure(self) -> bool:
        return self.error is not None or self.status >= 400

    def __str__(self) -> str:
        took = f"{self.ended - self.began:.2f} s"
        if self.error is None:
            return f"{self.method} {self.status} by {self.instance} after {took}"
        notes = "; ".join(getattr(self.error, "__notes__", ()))
        return f"{self.method} {type(self.error).__name__}: {self.error} after {took} {notes}".rstrip()


class _Schedule:
    """What both kinds of load share: when to send, what came of it, and whether it was any good."""

    def __init__(self, *, rate: float, method: str, path: str) -> None:
        self.rate = rate
        self.method = method
        self.path = path
        self._sent: list[Sent] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"load-{method}", daemon=True)
        self._began = self._ended = 0.0
        self._problem: BaseException | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.check_schedule()

    @property
    def sent(self) -> list[Sent]:
        """Every request that has ended so far, in the order of their ends."""
        return list(self._sent)

    @property
    def failures(self) -> list[Sent]:
        return [sent for sent in self._sent if sent.is_failure]

    @property
    def instances(self) -> Counter[str]:
        """How many requests each instance answered."""
        return Counter(sent.instance for sent in self._sent if not sent.is_failure)

    @property
    def successes(self) -> int:
        return sum(not sent.is_failure for sent in self._sent)

    def stop(self) -> None:
        """Send nothing more, and wait for what is under way."""
        if not self._ended:
            self._ended = time.monotonic()
            self._stopping.set()
            self._thread.join()

    def since(self, moment: float) -> list[Sent]:
        """The requests that were begun at or after *moment* and have ended."""
        return [sent for sent in self._sent if sent.began >= moment]

    def check_schedule(self) -> None:
        """Raise `LoadTooSlow` if most requests were not sent, or were more than a second late.

        What was due within the last second is not late yet.
        """
        if self._problem is not None:
            raise self._problem
        due = int((self._ended - self._began - _LATE) * self.rate)
        late = sum(sent.began - sent.due > _LATE for sent in self._sent)
        on_time = len(self._sent) - late
        if due >= 4 and on_time < due / 2:
            raise LoadTooSlow(
                f"{due} requests were due, {len(self._sent)} were sent, {late} of them too late"
            )

    def assert_none_failed(self) -> None:
        """An `AssertionError` that counts the failures by kind, and shows the first ones."""
        failures, sent = self.failures, len(self._sent)
        if not sent:
            raise AssertionError("no request was sent")
        if failures:
            kinds = Counter(type(f.error).__name__ if f.error else str(f.status) for f in failures)
            first = "\n  ".join(map(str, failures[:5]))
            raise AssertionError(f"{len(failures)} of {sent} requests failed: {dict(kinds)}\n  {first}")

    def _run(self) -> None:
        raise NotImplementedError

    def _due(self, number: int) -> float:
        return self._began + number / self.rate

    def _note(
        self, due: float, began: float, response: httpx.Response | None, error: Exception | None
    ) -> None:
        ended = time.monotonic()
        if response is None:
            self._sent.append(Sent(self.method, due, began, ended, error=error))
            return
        routed = response.extensions.get("disco")
        who = routed.instance.id if routed is not None else ""
        attempts = routed.attempts if routed is not None else 1
        self._sent.append(Sent(self.method, due, began, ended, response.status_code, who, attempts))


class Load(_Schedule):
    """*rate* requests a second by a sync *client*, each in a thread of its own, while a ``with`` block lasts.

    Leaving the block waits for what is under way, and raises `LoadTooSlow` if the schedule was not kept at all.
    """

    def __init__(
        self,
        client: httpx.Client,
        *,
        rate: float = 30.0,
        method: str = "GET",
        path: str = "/",
        **options: Any,
    ) -> None:
        super().__init__(rate=rate, method=method, path=path)
        self._client = client
        self._options = options

    def _run(self) -> None:
        number = 0
        with ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="load") as pool:
            while not self._stopping.wait(max(0.0, self._due(number) - time.monotonic())):
                pool.submit(self._send, self._due(number))
                number += 1

    def _send(self, due: float) -> None:
        began = time.monotonic()
        try:
            response = self._client.request(self.method, self.path, **self._options)
        except Exception as error:
            self._note(due, began, None, error)
        else:
            self._note(due, began, response, None)


class AsyncLoad(_Schedule):
    """As `Load`, by an async client on an event loop in a thread of its own; *make* makes the client there."""

    def __init__(
        self,
        make: Callable[[], httpx.AsyncClient],
        *,
        rate: float = 30.0,
        method: str = "GET",
        path: str = "/",
        **options: Any,
    ) -> None:
        super().__init__(rate=rate, method=method, path=path)
        self._make = make
        self._options = options

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._problem = error

    async def _main(self) -> None:
        number = 0
        async with self._make() as client, asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                await asyncio.sleep(max(0.0, self._due(number) - time.monotonic()))
                group.create_task(self._send(client, self._due(number)))
                number += 1

    async def _send(self, client: httpx.AsyncClient, due: float) -> None:
        began = time.monotonic()
        try:
            response = await client.request(self.method, self.path, **self._options)
        except Exception as error:
            self._note(due, began, None, error)
        else:
            self._note(due, began, response, None)
