"""Transports that a test lends for each instance, without any server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx

from discoclient import Instance
from tests.client.fleet import Fleet

__all__ = ["Lender", "Lent", "Parts", "failing", "fine", "two"]

Handler = Callable[[httpx.Request], httpx.Response]


class Lent(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for both flavours that says *handler*'s answers, and counts what is done with it."""

    def __init__(self, instance: Instance, handler: Handler) -> None:
        self.instance = instance
        self.handler = handler
        self.requests: list[httpx.Request] = []
        self.closed = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        b"".join(request.stream)  # type: ignore[arg-type]
        return self.handler(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        async for _ in request.stream:  # type: ignore[union-attr]
            pass
        return self.handler(request)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Lender:
    """``engine=``: what it has lent is in ``lent``, in order. *handlers*: by the instance's slot."""

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = handlers
        self.lent: list[Lent] = []

    def __call__(self, instance: Instance) -> Any:
        self.lent.append(Lent(instance, self.handlers.get(f"at_{instance.slot}", fine)))
        return self.lent[-1]

    def of(self, instance: Instance) -> Lent:
        (found,) = (lent for lent in self.lent if lent.instance == instance)
        return found


class Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in *parts*; before each of them *before* is called."""

    def __init__(self, parts: Iterable[bytes], before: Callable[[], object] = lambda: None) -> None:
        self._parts = iter(parts)
        self._before = before

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._before()
        return next(self._parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None


def fine(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="fine")


def failing(error: Exception) -> Handler:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    return fail


def two(fleet: Fleet, **fields: Any) -> tuple[Instance, Instance]:
    return (
        fleet.register(port=1, slot="0", **fields),
        fleet.register(port=2, slot="1", **fields),
    )
