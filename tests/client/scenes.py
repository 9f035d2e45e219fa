"""What the tests about trouble have in common: who is asked first, what hooks were told, and time in the hands of a test."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import pytest

from discoclient import Endpoint, Event
from discoclient.transport import async_transport, router, sync_transport
from tests.client.fleet import Fleet
from tests.support.servers import Behaviour, HttpServer

__all__ = [
    "HTTPX_ON_TRIO",
    "IDEMPOTENT",
    "OTHER",
    "DecisionClock",
    "Events",
    "FirstWell",
    "Waits",
    "counts",
    "disco",
    "in_order",
]

T = TypeVar("T")

HTTPX_ON_TRIO = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object ByteStream.__aiter__"
)
"""For a body that the server does not read: httpx, also by itself, leaves its iterator unfinished, and trio warns of that."""

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


class FirstWell:
    """A balancer: as `BySlot`, but who is left alone is asked only if nobody else is left."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> _FirstWellPicker:
        return _FirstWellPicker(sorted(endpoints, key=lambda endpoint: endpoint.instance.slot))


class _FirstWellPicker:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        left = [endpoint for endpoint in self._endpoints if endpoint.id not in tried]
        return next((each for each in left if not each.is_ejected(now)), left[0] if left else None)


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

    To be made before the client's first call. Deadlines are moments of the real clock: a call that has one is to be made when
    this one is not *ahead* of it. With *is_frozen* it moves only when it is told to.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, ahead: float = 0.0, is_frozen: bool = False
    ) -> None:
        self._ahead = ahead
        self._frozen_at = time.monotonic() if is_frozen else None
        monkeypatch.setattr(router, "monotonic", self.now)

    def now(self) -> float:
        return (self._frozen_at or time.monotonic()) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
