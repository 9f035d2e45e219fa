"""The reference for the cost of the layer: the same wire, pools and errors, driven for one fixed endpoint.

No registry, no choice, no flow, no ticket: what httpx's own transport does around its pool, around ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import httpcore
import httpx

from discoclient.balancing.endpoint import Endpoint
from discoclient.model.instance import Instance
from discoclient.transport.async_pool import AsyncPool, AsyncWire
from discoclient.transport.home import find_loop
from discoclient.transport.link import AsyncConnection, SyncConnection
from discoclient.transport.sync_pool import SyncPool, SyncWire
from discoclient.transport.wire import WireOptions, wire_errors

__all__ = ["AsyncBareWire", "AsyncNothing", "BareWire", "Nothing"]


def _endpoint(port: int, keepalive: float) -> Endpoint:
    instance = Instance(service="bare", id="bare-wire", host="127.0.0.1", port=port, http_keepalive=keepalive)
    return Endpoint(instance, now=monotonic())


def _response(answer: httpcore.Response, stream: Any) -> httpx.Response:
    return httpx.Response(
        status_code=answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions
    )


class BareWire(httpx.BaseTransport):
    """*keepalive*: seconds, as in an instance's record."""

    def __init__(self, port: int, *, keepalive: float) -> None:
        self._pool = SyncWire(WireOptions()).pool(_endpoint(port, keepalive))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        pool = self._pool
        connection = pool.take(request.extensions["timeout"].get("pool"))
        try:
            answer = connection.handle_request(
                pool.origin.aim(request, request.headers.raw, request.extensions)
            )
        except BaseException:
            pool.give(connection)
            raise
        return _response(answer, _Stream(answer.stream, connection, pool))

    def close(self) -> None:
        self._pool.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, stream: Any, connection: SyncConnection, pool: SyncPool) -> None:
        self._stream = stream
        self._connection = connection
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        with wire_errors():
            yield from self._stream

    def close(self) -> None:
        with wire_errors():
            self._stream.close()
        self._pool.give(self._connection)


class AsyncBareWire(httpx.AsyncBaseTransport):
    def __init__(self, port: int, *, keepalive: float) -> None:
        self._endpoint = _endpoint(port, keepalive)
        self._pool: AsyncPool | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool = self._pool
        if pool is None:
            pool = self._pool = AsyncWire(WireOptions()).pool(find_loop(), self._endpoint)
        connection = await pool.take(request.extensions["timeout"].get("pool"))
        try:
            answer = await connection.handle_async_request(
                pool.origin.aim(request, request.headers.raw, request.extensions)
            )
        except BaseException:
            await pool.give(connection)
            raise
        return _response(answer, _AsyncStream(answer.stream, connection, pool))

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, stream: Any, connection: AsyncConnection, pool: AsyncPool) -> None:
        self._stream = stream
        self._connection = connection
        self._pool = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with wire_errors():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        with wire_errors():
            await self._stream.aclose()
        await self._pool.give(self._connection)


_HEADERS = [(b"Server", b"benchmark"), (b"Content-Type", b"application/json"), (b"Content-Length", b"41")]


class Nothing(httpx.BaseTransport):
    """Answers by itself: what is left is the price of the httpx API, the floor for whatever stands behind it."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=_HEADERS, stream=httpx.ByteStream(b"x" * 41))


class AsyncNothing(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=_HEADERS, stream=httpx.ByteStream(b"x" * 41))
