"""The async shell, for asyncio and trio: as in `sync_transport`, with another way to wait."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from time import monotonic
from typing import Any

import anyio
import httpcore
import httpx

from ..balancing.balancer import Balancer
from ..balancing.endpoint import Ticket
from ..calling.flow import End, Send
from ..control.resolver import Resolver
from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import OutlierPolicy, RetryPolicy, check_seconds
from .async_pool import AsyncPool, AsyncWire
from .attempts import Attempts, finalize, make_response
from .home import Home, find_loop
from .options import read_call
from .router import Route, Router
from .wire import WireOptions, as_httpx, classify, wire_errors

__all__ = ["AsyncDiscoTransport"]


class AsyncDiscoTransport(httpx.AsyncBaseTransport):
    """The async twin of `DiscoTransport`: ``httpx.AsyncClient(mounts={"disco://": AsyncDiscoTransport()})``."""

    def __init__(
        self,
        service: str | None = None,
        *,
        registry: str | None = None,
        balancer: str | Balancer = "peak_ewma",
        retry: RetryPolicy = RetryPolicy(),
        outlier: OutlierPolicy = OutlierPolicy(),
        host_header: str | None = None,
        server_name: str | None = None,
        discovery_timeout: float = 5.0,
        wire: WireOptions = WireOptions(),
    ) -> None:
        self._router = Router(
            AsyncWire,
            "async",
            service=service,
            registry=registry,
            balancer=balancer,
            retry=retry,
            outlier=outlier,
            host_header=host_header,
            server_name=server_name,
            discovery_timeout=discovery_timeout,
            wire=wire,
        )
        finalize(self, self._router)

    def __repr__(self) -> str:
        return f"<AsyncDiscoTransport {self._router.service or 'any service'}>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = read_call(request)
        route = self._router.route(self._router.service or request.url.host)
        if not route.is_known:
            await self._await_view(route)
        flow = route.flow(call)
        attempts = Attempts(route, request)
        try:
            send = next(flow)
            while True:
                send = flow.send(await self._attempt(send, attempts))
        except StopIteration as stop:
            if stop.value is End.NO_INSTANCES:
                raise route.no_instances() from None
        except BaseException:
            flow.close()
            raise
        return attempts.deliver()

    async def wait_ready(self, timeout: float | None = None) -> None:
        """See `DiscoClient.wait_ready`."""
        route = self._router.route(self._router.service or "")
        limit = route.settings.discovery_timeout
        if timeout is not None:
            limit = check_seconds("timeout", timeout, zero=True)
        if not await _wait(route.resolver, lambda: route.is_callable, limit):
            raise route.no_instances() if route.is_known else route.resolver.timed_out(limit)

    async def aclose(self) -> None:
        loop = find_loop()
        for route in self._router.routes():
            if route.resolver.users <= 1:
                await route.wire.leave(loop)
        self._router.release()

    async def _await_view(self, route: Route[AsyncWire]) -> None:
        timeout = route.settings.discovery_timeout
        if not await _wait(route.resolver, lambda: route.is_known, timeout):
            raise route.resolver.timed_out(timeout)

    async def _attempt(self, send: Send, attempts: Attempts[AsyncWire]) -> Outcome:
        """One attempt: its response or its error stays with *attempts*."""
        began = monotonic()
        pool = attempts.route.wire.pool(find_loop(), send.endpoint)
        try:
            extensions = attempts.begin(send)
            connection = await pool.take(extensions["timeout"].get("pool"))
            is_warm = connection.is_idle()
            try:
                request = pool.origin.aim(attempts.request, extensions)
                answer = await connection.handle_async_request(request)
            except BaseException:
                await pool.give(connection)
                raise
        except (
            Exception
        ) as error:  # every kind: the flow decides, and what it won't retry is raised as it was
            outcome = classify(error, monotonic() - began)
            attempts.failed(send, as_httpx(error))
            return outcome
        assert isinstance(answer.stream, AsyncIterable)
        stream = AsyncTrackedStream(answer.stream, connection, pool, send.ticket)
        attempts.answered(send, make_response(answer, stream))
        return Outcome(OutcomeKind.RESPONSE, monotonic() - began, answer.status, is_warm)


class AsyncTrackedStream(httpx.AsyncByteStream):
    """A response's body. When it is closed, read or not, the request is over: once, and also if it is only forgotten."""

    def __init__(
        self,
        stream: AsyncIterable[bytes],
        connection: httpcore.AsyncHTTPConnection,
        pool: AsyncPool,
        ticket: Ticket,
    ) -> None:
        self._stream: Any = stream
        self._connection = connection
        self._pool = pool
        self._ticket = ticket
        self._is_open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with wire_errors():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            with wire_errors():
                await self._stream.aclose()
        finally:
            self._ticket.close()
            await self._pool.give(self._connection)

    def __del__(self) -> None:
        if self._is_open:
            self._ticket.close()
            self._pool.lose(self._connection)


async def _wait(resolver: Resolver, is_enough: Callable[[], bool], timeout: float) -> bool:
    """Wait for the resolver as its own `wait` does, without blocking the loop."""
    if is_enough():
        return True
    home, changed = Home(find_loop()), anyio.Event()

    def wake() -> None:
        home.call_soon(lambda: changed.set())  # noqa: PLW0108 - which event that is changes

    unsubscribe = resolver.subscribe(wake)
    try:
        with anyio.move_on_after(timeout):
            while not is_enough():
                await changed.wait()
                changed = anyio.Event()
        return is_enough()
    finally:
        unsubscribe()
