"""The async shell, for asyncio and trio: as in `sync_transport`, with another way to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Unpack

import anyio
import httpcore
import httpx

from ..balancing.endpoint import Ticket
from ..balancing.explanation import Explanation
from ..calling.steps import Call, End, Read, Send, Sleep
from ..control.resolver import Resolver
from ..model.outcome import Outcome
from ..model.policy import check_seconds
from .async_pool import AsyncPool, AsyncWire
from .async_race import run_race
from .attempts import PATIENCE, Attempts, Result, finalize, is_short
from .home import Home, find_loop
from .link import AsyncConnection, Link
from .options import NO_CALL, read_call
from .router import Route, Router, late
from .settings import Settings, TransportOptions
from .telling import Told
from .wire import as_httpx, wire_errors

__all__ = ["AsyncDiscoTransport"]


RESOLUTION = 0.001
"""Seconds that loops' timers may be early."""


class AsyncDiscoTransport(httpx.AsyncBaseTransport):
    """The async twin of `DiscoTransport`: ``httpx.AsyncClient(mounts={"disco://": AsyncDiscoTransport()})``."""

    def __init__(
        self, service: str | None = None, *, registry: str | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        self._router = Router(AsyncWire, "async", service, registry, Settings.of(options))
        finalize(self, self._router)

    def __repr__(self) -> str:
        return f"<AsyncDiscoTransport {self._router.service or 'any service'}>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        route = self._router.find(request)
        if route is None:
            route = await anyio.to_thread.run_sync(self._router.route_for, request)
        call = read_call(request, monotonic(), deadline=route.settings.deadline, info=route.info(request))
        attempts = Attempts(route, request, call)
        if call.info is None:
            return await self._call(attempts)
        with Told(attempts, call.info) as told:
            told.response = await self._call(attempts)
            return told.response

    async def wait_ready(self, timeout: float | None = None) -> None:
        """See `DiscoClient.wait_ready`."""
        route = self._router.route(self._router.service or "")
        limit = route.settings.discovery_timeout
        if timeout is not None:
            limit = check_seconds("timeout", timeout, zero=True)
        await _wait(
            route.resolver, lambda: route.is_callable or (route.is_decided and not route.is_known), limit
        )
        if not route.is_callable:
            raise route.no_instances() if route.is_known else route.resolver.timed_out(limit)

    async def explain(self) -> Explanation:
        """See `DiscoClient.explain`."""
        route = self._router.route(self._router.service or "")
        if not route.is_known:
            await self._await_view(route, NO_CALL)
        return route.explain()

    def stats(self) -> dict[str, int]:
        """See `DiscoClient.stats`."""
        return self._router.stats()

    async def aclose(self) -> None:
        loop = find_loop()
        for route in self._router.routes():
            if route.resolver.users <= 1:
                await route.wire.leave(loop)
        self._router.release()

    async def _call(self, attempts: Attempts[AsyncWire]) -> httpx.Response:
        route, call = attempts.route, attempts.call
        if not route.is_known:
            await self._await_view(route, call)
        flow = route.flow(call)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Read):
                    step = flow.send(await _read(attempts))
                    continue
                if isinstance(step, Sleep):
                    await anyio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                discarded = attempts.take_response()
                if discarded is not None:
                    await _discard(discarded)
                if step.race is None:
                    outcome, result = await self._attempt(step, attempts)
                else:
                    step, outcome, result = await run_race(step.race, step, attempts, self._attempt)
                attempts.settle(step, result)
                step = flow.send(outcome)
        except StopIteration as stop:
            if stop.value is not End.DELIVER:
                refusal, cause = route.refused(stop.value, call), attempts.error
                discarded = attempts.take_response()
                if discarded is not None:
                    await _discard(discarded)
                raise refusal from cause
        except BaseException:
            flow.close()
            discarded = attempts.take_response()
            if discarded is not None:
                with anyio.CancelScope(shield=True):
                    await discarded.aclose()
            raise
        return attempts.deliver()

    async def _await_view(self, route: Route[AsyncWire], call: Call) -> None:
        timeout = route.discovery_timeout(call)
        await _wait(route.resolver, lambda: route.is_decided, timeout)
        if not route.is_known:
            raise route.unknown(call, timeout)

    async def _attempt(self, send: Send, attempts: Attempts[AsyncWire]) -> tuple[Outcome, Result]:
        """One attempt."""
        began = monotonic()
        pool = attempts.route.wire.pool(find_loop(), send.endpoint)
        is_warm, link, connection = False, None, None
        try:
            extensions = attempts.extensions(send)
            connection = await pool.take(attempts.pool_timeout(extensions), is_fresh=send.is_fresh)
            is_warm, link = connection.is_idle(), connection.link
            link.begin(attempts.call.deadline)
            request = pool.origin.aim(attempts.request, attempts.headers(send), extensions)
            deadline = attempts.call.deadline
            if deadline is None or attempts.call.is_replayable:
                answer = await connection.handle_async_request(request)
            else:
                answer = await _carry_until(deadline, connection, request)
        except BaseException as error:
            if connection is not None:
                await pool.give(connection)
            if not isinstance(error, Exception):
                raise
            # Every kind: the flow decides, and what it won't retry is raised as it was.
            return attempts.failed(send, error, began, is_warm=is_warm, link=link)
        stream = AsyncTrackedStream(answer.stream, connection, pool, send.ticket)
        return attempts.answered(send, answer, stream, began, is_warm=is_warm)


async def _carry_until(
    deadline: float, connection: AsyncConnection, request: httpcore.Request
) -> httpcore.Response:
    """Reads and writes end with the deadline by themselves; what the caller's own iterator waits for does not."""
    with anyio.move_on_after(max(0.0, deadline - monotonic()) + RESOLUTION):
        return await connection.handle_async_request(request)
    raise httpcore.WriteTimeout("the deadline has passed while the body was sent")


class AsyncTrackedStream(httpx.AsyncByteStream):
    """A response's body. When it is closed, read or not, the request is over: once, and also if it is only forgotten."""

    _is_open = False  # until it is all there: a signal's handler may raise in the middle

    def __init__(
        self,
        stream: Any,
        connection: AsyncConnection,
        pool: AsyncPool,
        ticket: Ticket,
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._pool = pool
        self._ticket = ticket
        self._is_open = True
        self._parts: list[bytes] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._parts is not None:
            parts, self._parts = self._parts, []  # once, as in the sync one
            for part in parts:
                yield part
            return
        try:
            async for part in self._stream:
                yield part
        except httpcore.TimeoutException as error:
            if self._connection.link.is_expired:
                raise late("while the body was read") from error
            raise as_httpx(error) from error
        except Exception as error:
            ours = as_httpx(error)
            if ours is error:
                raise
            raise ours from error

    @property
    def link(self) -> Link:
        return self._connection.link

    async def read_ahead(self) -> None:
        """Read all of it now. Raises what httpcore raises."""
        self._parts = [part async for part in self._stream]

    def hurry(self, seconds: float) -> None:
        """Have what is left come within so many seconds."""
        self._connection.link.hurry(monotonic() + seconds)

    async def aclose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        is_broken = True
        try:
            with wire_errors():
                await self._stream.aclose()
            is_broken = False
        finally:
            self._ticket.close()
            await self._pool.give(self._connection, is_broken=is_broken)

    def __del__(self) -> None:
        if self._is_open:
            self._ticket.close()
            self._pool.lose(self._connection)


async def _read(attempts: Attempts[AsyncWire]) -> Outcome | None:
    """Read the body, of which the caller gets all or nothing."""
    stream = attempts.stream
    assert isinstance(stream, AsyncTrackedStream)
    try:
        await stream.read_ahead()
    except Exception as error:
        with suppress(Exception):
            await stream.aclose()
        return attempts.broken_off(error, stream.link)
    return None


async def _discard(response: httpx.Response) -> None:
    """Another attempt follows: a short body is read to its end, so that the connection can be used again."""
    stream = response.stream
    assert isinstance(stream, AsyncTrackedStream)
    try:
        with suppress(Exception):  # it is of no interest any more
            if is_short(response):
                stream.hurry(PATIENCE)
                async for _ in stream:
                    pass
    finally:
        with suppress(Exception):
            await stream.aclose()


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
