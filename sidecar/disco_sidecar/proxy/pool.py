"""The connections to one service's instances that wait for a request: a stack for each endpoint, the freshest on top."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache

from discoclient.balancing.endpoint import Endpoint
from discoclient.transport.wire import KEEPALIVE_MARGIN, KEEPALIVE_UNSAID

from ..http.heads import greeting, signature
from .connection import Connection

__all__ = ["Pool", "Pools", "open_stream"]


class Pool:
    """Connections to one endpoint. On the loop alone, but for `close`, which `Pools` sees to."""

    __slots__ = ("_expiry", "_idle", "endpoint", "greeting", "is_closed", "signature")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        said = endpoint.instance.http_keepalive
        self._expiry = max(0.0, (KEEPALIVE_UNSAID if said is None else said) - KEEPALIVE_MARGIN)
        self._idle: list[Connection] = []
        self.is_closed = False
        self.greeting = greeting(endpoint.expectation)
        self.signature = signature(endpoint.id.encode(), 1)
        """What is said to it, and of it, for each request that it is the first to be asked for."""

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, now: float, *, is_careful: bool = False) -> Connection | None:
        """The freshest that is still good, or none.

        *is_careful*: also look whether the instance has closed it and the loop has yet to be told. A request that can't be sent
        twice would be lost; the others do without, for they are tried again.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if (
                now - connection.idle_since < self._expiry
                and not connection.is_lost
                and not (is_careful and connection.has_news())
            ):
                connection.pool = None
                return connection
            connection.close()
        return None

    def give(self, connection: Connection, now: float) -> None:
        """Take one back whose answer is complete."""
        if self.is_closed or self.endpoint.is_retired or not self._expiry:
            connection.close()
            return
        connection.idle_since = now
        connection.pool = self
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """It was closed while it waited."""
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close those that waited too long: they are at the bottom."""
        while self._idle and now - self._idle[0].idle_since >= self._expiry:
            self._idle.pop(0).close()

    def close(self) -> None:
        self.is_closed = True
        while self._idle:
            self._idle.pop().close()


class Pools:
    """The pools of one service. discoclient closes it, from another thread, when the service is not called any more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pools: dict[Endpoint, Pool] = {}

    def pool(self, endpoint: Endpoint) -> Pool:
        found = self._pools.get(endpoint)
        if found is None:
            found = self._pools[endpoint] = Pool(endpoint)
            endpoint.on_retire(lambda: self._post(self._drop, endpoint))
        return found

    def idle(self) -> int:
        return sum(map(len, self._pools.values()))

    def sweep(self, now: float) -> None:
        for pool in self._pools.values():
            pool.sweep(now)

    def close(self) -> None:
        self._post(self._close)

    def _close(self) -> None:
        for endpoint in list(self._pools):
            self._drop(endpoint)

    def _drop(self, endpoint: Endpoint) -> None:
        pool = self._pools.pop(endpoint, None)
        if pool is not None:
            pool.close()

    def _post(self, function: Callable[..., None], *arguments: Endpoint) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


@lru_cache(maxsize=8)
def _tls(ca: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


async def open_stream(
    endpoint: Endpoint,
    make: Callable[[], asyncio.Protocol],
    *,
    timeout: float,
    ca: str | None = None,
) -> None:
    """Connect to *endpoint*, within *timeout* seconds. Raises `OSError` (also `TimeoutError`): nothing was sent then."""
    scheme, host, port = endpoint.address
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if scheme == "https":
            name = endpoint.instance.service
            await loop.create_connection(make, host, port, ssl=_tls(ca), server_hostname=name)
        else:
            await loop.create_connection(make, host, port)
