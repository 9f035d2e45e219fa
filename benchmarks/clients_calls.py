"""One GET by each client, sync and async: as its own documentation does it, with the settings that it has by itself.

A client is imported only by the side that uses it, so that nobody carries the modules of others. Of discoclient and of all
others only the public API is used.
"""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias
from urllib.parse import urlsplit

__all__ = ["ASYNC", "SERVICE", "SYNC", "AsyncCall", "SyncCall", "Target", "known"]

AsyncCall: TypeAlias = "Callable[[], Awaitable[Any]]"
"""Sends one GET, reads its body, and raises if anything went wrong."""
SyncCall: TypeAlias = "Callable[[], Any]"

SERVICE = "bench"
_OK = 200
_TIMEOUT = 10.0
_FLOOR_HEADERS = [(b"Server", b"nothing"), (b"Content-Type", b"application/json"), (b"Content-Length", b"41")]


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    url: str
    """Of what is called directly: one instance, or the proxy."""
    path: str
    ports: tuple[int, ...] = ()
    """Of the instances, for who finds them in a registry in memory."""
    registry: str | None = None
    """For who finds them in etcd."""
    keepalive: float = 75.0
    """Seconds that the servers keep an idle connection, as the registry says it."""

    @property
    def whole(self) -> str:
        return self.url + self.path


def _check(status: int) -> None:
    if status != _OK:
        raise RuntimeError(f"status {status}")


@contextmanager
def known(target: Target) -> Iterator[str]:
    """The URL of a registry that knows the instances: the one in etcd, or one in memory."""
    if target.registry is not None:
        yield target.registry
        return
    from discoclient.testing import memory_registry

    with memory_registry() as registry:
        for port in target.ports:
            registry.add(SERVICE, port, http_keepalive=target.keepalive)
        yield registry.url


def _paths(target: Target, *, is_new: bool) -> Callable[[], str]:
    """What gives the path to ask for: always the same, or one that was not asked for before."""
    if not is_new:
        return lambda: target.path
    numbers = count()
    return lambda: f"{target.path}?n={next(numbers)}"


def _async_disco(*, is_new: bool = False) -> Callable[[Target], AbstractAsyncContextManager[AsyncCall]]:
    @asynccontextmanager
    async def open_(target: Target) -> AsyncIterator[AsyncCall]:
        from discoclient import AsyncDiscoClient

        with known(target) as registry:
            async with AsyncDiscoClient(SERVICE, registry=registry) as client:
                await client.wait_ready(_TIMEOUT)
                path = _paths(target, is_new=is_new)

                async def call() -> None:
                    _check((await client.get(path())).status_code)

                yield call

    return open_


def _async_httpx(make: Callable[[], Any]) -> Callable[[Target], AbstractAsyncContextManager[AsyncCall]]:
    @asynccontextmanager
    async def open_(target: Target) -> AsyncIterator[AsyncCall]:
        async with make() as client:
            url = target.whole

            async def call() -> None:
                _check((await client.get(url)).status_code)

            yield call

    return open_


def _httpx() -> Any:
    import httpx

    return httpx.AsyncClient()


def _httpx2() -> Any:
    import httpx2

    return httpx2.AsyncClient()


def _httpx_aiohttp() -> Any:
    from httpx_aiohttp import HttpxAiohttpClient

    return HttpxAiohttpClient()


def _floor() -> Any:
    import httpx

    class Nothing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(_OK, headers=_FLOOR_HEADERS, stream=httpx.ByteStream(b"x" * 41))

    return httpx.AsyncClient(transport=Nothing())


@asynccontextmanager
async def _aiohttp(target: Target) -> AsyncIterator[AsyncCall]:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        url = target.whole

        async def call() -> None:
            async with session.get(url) as response:
                await response.read()
                _check(response.status)

        yield call


@asynccontextmanager
async def _pyreqwest(target: Target) -> AsyncIterator[AsyncCall]:
    from pyreqwest.client import ClientBuilder

    async with ClientBuilder().build() as client:
        url = target.whole

        async def call() -> None:
            response = await client.get(url).build().send()
            await response.bytes()
            _check(response.status)

        yield call


ASYNC: Mapping[str, Callable[[Target], AbstractAsyncContextManager[AsyncCall]]] = {
    "disco": _async_disco(),
    "disco_paths": _async_disco(is_new=True),
    "httpx": _async_httpx(_httpx),
    "httpx2": _async_httpx(_httpx2),
    "httpx_aiohttp": _async_httpx(_httpx_aiohttp),
    "aiohttp": _aiohttp,
    "pyreqwest": _pyreqwest,
    "floor": _async_httpx(_floor),
}


def _disco(*, is_new: bool = False) -> Callable[[Target], AbstractContextManager[Callable[[], SyncCall]]]:
    @contextmanager
    def open_(target: Target) -> Iterator[Callable[[], SyncCall]]:
        from discoclient import DiscoClient

        with known(target) as registry, DiscoClient(SERVICE, registry=registry) as client:
            client.wait_ready(_TIMEOUT)
            path = _paths(target, is_new=is_new)
            yield lambda: lambda: _check(client.get(path()).status_code)

    return open_


def _sync_httpx(
    make: Callable[[], Any],
) -> Callable[[Target], AbstractContextManager[Callable[[], SyncCall]]]:
    @contextmanager
    def open_(target: Target) -> Iterator[Callable[[], SyncCall]]:
        with make() as client:
            url = target.whole
            yield lambda: lambda: _check(client.get(url).status_code)

    return open_


def _httpx_sync() -> Any:
    import httpx

    return httpx.Client()


def _httpx2_sync() -> Any:
    import httpx2

    return httpx2.Client()


def _floor_sync() -> Any:
    import httpx

    class Nothing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(_OK, headers=_FLOOR_HEADERS, stream=httpx.ByteStream(b"x" * 41))

    return httpx.Client(transport=Nothing())


@contextmanager
def _pyreqwest_sync(target: Target) -> Iterator[Callable[[], SyncCall]]:
    from pyreqwest.client import SyncClientBuilder

    with SyncClientBuilder().build() as client:
        url = target.whole

        def call() -> None:
            response = client.get(url).build().send()
            response.bytes()
            _check(response.status)

        yield lambda: call


@contextmanager
def _requests(target: Target) -> Iterator[Callable[[], SyncCall]]:
    """A session for each thread: they are not made to be shared."""
    import requests

    sessions: list[requests.Session] = []

    def make() -> SyncCall:
        session = requests.Session()
        sessions.append(session)
        url = target.whole
        return lambda: _check(session.get(url, timeout=_TIMEOUT).status_code)

    try:
        yield make
    finally:
        for session in sessions:
            session.close()


@contextmanager
def _http_client(target: Target) -> Iterator[Callable[[], SyncCall]]:
    """A connection for each thread."""
    connections: list[http.client.HTTPConnection] = []

    def make() -> SyncCall:
        where = urlsplit(target.url)
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=_TIMEOUT)
        connections.append(connection)

        def call() -> None:
            connection.request("GET", target.path)
            response = connection.getresponse()
            response.read()
            _check(response.status)

        return call

    try:
        yield make
    finally:
        for connection in connections:
            connection.close()


SYNC: Mapping[str, Callable[[Target], AbstractContextManager[Callable[[], SyncCall]]]] = {
    "disco": _disco(),
    "disco_paths": _disco(is_new=True),
    "httpx": _sync_httpx(_httpx_sync),
    "httpx2": _sync_httpx(_httpx2_sync),
    "http_client": _http_client,
    "requests": _requests,
    "pyreqwest": _pyreqwest_sync,
    "floor": _sync_httpx(_floor_sync),
}
"""Each gives something that makes a call for one thread."""
