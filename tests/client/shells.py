"""The three shells behind one face, so that every case is written once: sync, asyncio and trio.

A case is a coroutine function. In the sync shell its awaits end at once: it is driven without a loop, so a case that really
waits for something fails.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx
import trio

from discoclient import AsyncDiscoClient, AsyncDiscoTransport, DiscoClient, DiscoTransport
from tests.support.eventually import eventually, eventually_async

__all__ = ["SHELLS", "Face", "Shell", "in_every_shell"]

T = TypeVar("T")


class Face:
    """A client whose methods are awaited, whatever its kind. ``raw`` is the httpx client itself."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_sync(self) -> bool:
        return isinstance(self.raw, httpx.Client)

    async def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        done = getattr(self.raw, name)(*args, **kwargs)
        return done if self.is_sync else await done

    async def request(self, method: str, url: httpx.URL | str = "/", **kwargs: Any) -> httpx.Response:
        response: httpx.Response = await self._do("request", method, url, **kwargs)
        return response

    async def get(self, url: httpx.URL | str = "/", **kwargs: Any) -> httpx.Response:
        return await self.request("GET", url, **kwargs)

    async def post(self, url: httpx.URL | str = "/", **kwargs: Any) -> httpx.Response:
        return await self.request("POST", url, **kwargs)

    async def port(self, url: httpx.URL | str = "/", **kwargs: Any) -> int:
        """Which server answers."""
        return int((await self.get(url, **kwargs)).headers["x-server"])

    async def send(self, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        response: httpx.Response = await self._do("send", request, **kwargs)
        return response

    async def open(self, method: str = "GET", url: httpx.URL | str = "/", **kwargs: Any) -> httpx.Response:
        """A response whose body is still to be read."""
        return await self.send(self.raw.build_request(method, url, **kwargs), stream=True)

    async def read(self, response: httpx.Response) -> bytes:
        return response.read() if self.is_sync else await response.aread()

    async def close_response(self, response: httpx.Response) -> None:
        response.close() if self.is_sync else await response.aclose()

    async def parts(self, response: httpx.Response) -> AsyncIterator[bytes]:
        if self.is_sync:
            for part in response.iter_raw():
                yield part
        else:
            async for part in response.aiter_raw():
                yield part

    @asynccontextmanager
    async def stream(
        self, method: str = "GET", url: httpx.URL | str = "/", **kwargs: Any
    ) -> AsyncIterator[httpx.Response]:
        if self.is_sync:
            with self.raw.stream(method, url, **kwargs) as response:
                yield response
        else:
            async with self.raw.stream(method, url, **kwargs) as response:
                yield response

    async def wait_ready(self, timeout: float | None = None) -> None:
        await self._do("wait_ready", timeout)

    async def close(self) -> None:
        await self._do("close" if self.is_sync else "aclose")


class Shell:
    """One way to wait."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_sync(self) -> bool:
        return self.name == "sync"

    def __repr__(self) -> str:
        return f"<Shell {self.name}>"

    def run(self, case: Callable[[], Coroutine[Any, Any, T]]) -> T:
        match self.name:
            case "asyncio":
                return asyncio.run(case())
            case "trio":
                return trio.run(case)
        coroutine = case()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        coroutine.close()
        raise AssertionError("a sync case has nothing to wait for")

    def client(self, service: str = "experiment", **kwargs: Any) -> Face:
        return Face((DiscoClient if self.is_sync else AsyncDiscoClient)(service, **kwargs))

    def plain_client(self, **kwargs: Any) -> Face:
        """httpx's own."""
        return Face((httpx.Client if self.is_sync else httpx.AsyncClient)(**kwargs))

    def transport(self, *args: Any, **kwargs: Any) -> Any:
        return (DiscoTransport if self.is_sync else AsyncDiscoTransport)(*args, **kwargs)

    def many(self, **kwargs: Any) -> Face:
        """httpx's own client, with many services behind ``disco://``."""
        return self.plain_client(mounts={"disco://": self.transport()}, **kwargs)

    def body(self, parts: Iterable[bytes], *, error: Exception | None = None) -> Any:
        """A body to send that can't be sent twice: *parts*, and then *error*."""
        return _body(parts, error) if self.is_sync else _async_body(parts, error)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds) if self.is_sync else await anyio.sleep(seconds)

    async def eventually(self, predicate: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
        if self.is_sync:
            return eventually(predicate, timeout=timeout, what=what)
        return await eventually_async(predicate, timeout=timeout, what=what)

    async def together(self, *acts: Callable[[], Awaitable[T]]) -> list[T | Exception]:
        """What came of each of *acts*, done at the same time: in threads, or in tasks."""
        results: dict[int, T | Exception] = {}

        async def act(number: int) -> None:
            try:
                results[number] = await acts[number]()
            except Exception as error:
                results[number] = error

        if self.is_sync:
            threads = [
                threading.Thread(target=self.run, args=(functools.partial(act, number),))
                for number in range(len(acts))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            async with anyio.create_task_group() as group:
                for number in range(len(acts)):
                    group.start_soon(act, number)
        return [results[number] for number in range(len(acts))]


SHELLS = [Shell("sync"), Shell("asyncio"), Shell("trio")]


def in_every_shell(case: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a case whose first parameter is ``shell``; the others are fixtures and parameters as ever."""

    @functools.wraps(case)
    def test(shell: Shell, **fixtures: Any) -> None:
        shell.run(lambda: case(shell=shell, **fixtures))

    return test


def _body(parts: Iterable[bytes], error: Exception | None) -> Iterable[bytes]:
    yield from parts
    if error is not None:
        raise error


async def _async_body(parts: Iterable[bytes], error: Exception | None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error
