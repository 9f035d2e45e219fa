"""What the tests about trouble have in common: who is asked first, what hooks were told, and time in the hands of a test."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import pytest

from discoclient import Event
from discoclient.transport import async_transport, router, sync_transport
from tests.client.fleet import Fleet
from tests.support.servers import Behaviour, HttpServer

__all__ = ["IDEMPOTENT", "OTHER", "DecisionClock", "Events", "Waits", "counts", "disco", "in_order"]

T = TypeVar("T")

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
OTHER = ("POST", "PATCH", "PROPFIND")


def in_order(fleet: Fleet, *behaviours: Behaviour, **fields: Any) -> list[HttpServer]:
    """Servers that `BySlot` asks in this order; they keep idle connections for long, and *fields* are their instances'."""
    fields = {"http_keepalive": 600.0, **fields}
    return [fleet.add(behaviour, slot=str(number), **fields) for number, behaviour in enumerate(behaviours)]


def counts(servers: list[HttpServer]) -> list[int]:
    """How many requests have reached each."""
    return [server.requests for server in servers]


def disco(**options: Any) -> dict[str, Any]:
    """Options for one request."""
    return {"extensions": {"disco": options}}


class Events:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.all.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.all if isinstance(event, kind)]

    @property
    def names(self) -> list[str]:
        """The kinds, in their order."""
        return [type(event).__name__ for event in self.all]


class Waits(list[float]):
    """The waits before attempts, in seconds. They are noted and take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(sync_transport, "time", SimpleNamespace(sleep=self.append))
        monkeypatch.setattr(async_transport, "anyio", _Anyio(self))


class _Anyio:
    """anyio as one module sees it."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    async def sleep(self, seconds: float) -> None:
        self._waits.append(seconds)
        await anyio.sleep(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)


class DecisionClock:
    """Stands in for `time.monotonic` where decisions are made (whom to pick, whether to hedge), and nowhere else.

    To be made before the client's first call. Deadlines, and what a request really takes, are the real clock's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr(router, "monotonic", self.now)

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
