"""The reference for the cost of the layer: the same wire, pools and errors, driven for one fixed endpoint.

No registry, no choice, no flow, no ticket: what httpx's own transport does around its pool, around ours. All that makes the
wire fast is here too, a body that is handed over read among it, and what our face spares httpx, so that the difference is the
discovery's alone.
"""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

import httpx

from discoclient.balancing.endpoint import Endpoint
from discoclient.model.instance import Instance
from discoclient.transport.async_pool import AsyncPool, AsyncWire
from discoclient.transport.carrying import Answer, Terms
from discoclient.transport.home import find_loop
from discoclient.transport.sparing import SparingFace
from discoclient.transport.sync_pool import SyncWire
from discoclient.transport.wire import WireOptions, wire_errors

__all__ = ["AsyncBareClient", "AsyncNothing", "BareClient", "Nothing"]

_TERMS = Terms(connect_timeout=1.0, server_name="bare", streamed=())


def _endpoint(port: int, keepalive: float) -> Endpoint:
    instance = Instance(service="bare", id="bare-wire", host="127.0.0.1", port=port, http_keepalive=keepalive)
    return Endpoint(instance, now=monotonic())


def _response(answer: Answer, began: float) -> httpx.Response:
    assert answer.content is not None
    response = httpx.Response(
        status_code=answer.status,
        headers=answer.headers,
        stream=httpx.ByteStream(answer.content),
        extensions=answer.extensions,
    )
    response.read()
    response.elapsed = timedelta(seconds=monotonic() - began)
    return response


def _ignore(now: float) -> None:
    return


class BareClient(SparingFace, httpx.Client):
    """*keepalive*: seconds, as in an instance's record."""

    def __init__(self, port: int, *, keepalive: float, **kwargs: Any) -> None:
        super().__init__(
            transport=_BareWire(port, keepalive=keepalive), **{"base_url": "http://bench", **kwargs}
        )


class AsyncBareClient(SparingFace, httpx.AsyncClient):
    def __init__(self, port: int, *, keepalive: float, **kwargs: Any) -> None:
        super().__init__(
            transport=_AsyncBareWire(port, keepalive=keepalive), **{"base_url": "http://bench", **kwargs}
        )


class _BareWire(httpx.BaseTransport):
    def __init__(self, port: int, *, keepalive: float) -> None:
        self._pool = SyncWire(WireOptions()).pool(_endpoint(port, keepalive))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        began, pool = monotonic(), self._pool
        carrier = pool.take(request.extensions["timeout"].get("pool"))
        try:
            with wire_errors():
                answer = carrier.carry(request, request.headers.raw, _TERMS, _ignore)
        finally:
            pool.give(carrier)
        return _response(answer, began)

    def close(self) -> None:
        self._pool.close()


class _AsyncBareWire(httpx.AsyncBaseTransport):
    def __init__(self, port: int, *, keepalive: float) -> None:
        self._endpoint = _endpoint(port, keepalive)
        self._pool: AsyncPool | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began, pool = monotonic(), self._pool
        if pool is None:
            pool = self._pool = AsyncWire(WireOptions()).pool(find_loop(), self._endpoint)
        carrier = pool.take_idle() or await pool.take(request.extensions["timeout"].get("pool"))
        try:
            with wire_errors():
                answer = await carrier.carry(request, request.headers.raw, _TERMS, _ignore)
        finally:
            if not pool.give_idle(carrier):
                await pool.give(carrier)
        return _response(answer, began)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.close()


_HEADERS = [(b"Server", b"benchmark"), (b"Content-Type", b"application/json"), (b"Content-Length", b"41")]


class Nothing(httpx.BaseTransport):
    """Answers by itself: what is left is the price of the httpx API, the floor for whatever stands behind it."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=_HEADERS, stream=httpx.ByteStream(b"x" * 41))


class AsyncNothing(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=_HEADERS, stream=httpx.ByteStream(b"x" * 41))
