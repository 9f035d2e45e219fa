"""The async shell, for asyncio and trio: as in `sync_transport`, with another way to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any, Unpack

import anyio
import httpx

from ..balancing.endpoint import Ticket
from ..balancing.explanation import Explanation
from ..calling.flow import CallFlow
from ..calling.steps import Call, End, Read, Send, Sleep, Step
from ..control.resolver import Resolver
from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import check_seconds
from .async_pool import AsyncPool, AsyncWire
from .async_race import run_race
from .attempts import PATIENCE, Attempts, Result, WholeStream, finalize, is_short
from .carrying import Answer, AsyncCarrier
from .home import Home, find_loop
from .http1.failures import WriteExpired
from .options import NO_CALL, read_call
from .router import Route, Router, late
from .settings import Settings, TransportOptions
from .telling import Told
from .wire import as_httpx, is_timeout, wire_errors

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
        began = monotonic()
        call = read_call(request, began, deadline=route.settings.deadline, info=route.info(request))
        attempts = Attempts(route, request, call, began)
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
        if call.info is not None or route.ledger.hedges is not None:
            flow = route.flow(call)
            return await self._converse(attempts, flow, lambda: next(flow))
        # What nearly always happens, and without a generator: the first attempt's answer is the end.
        caller = route.caller
        send = caller.begin(call, caller.clock())
        if isinstance(send, End):
            raise route.refused(send, call)
        try:
            outcome, result = await self._attempt(send, attempts)
            if (
                outcome.kind is OutcomeKind.RESPONSE
                and (not call.is_whole or attempts.is_whole(result))
                and caller.is_done(
                    send, outcome.status, outcome.latency, caller.clock(), is_warm=outcome.is_warm
                )
            ):
                return attempts.hand_over(result)
        except BaseException:
            send.ticket.close()
            raise
        flow = route.flow(call, send)
        next(flow)
        attempts.settle(send, result)
        return await self._converse(attempts, flow, lambda: flow.send(outcome))

    async def _converse(
        self, attempts: Attempts[AsyncWire], flow: CallFlow, begin: Callable[[], Step]
    ) -> httpx.Response:
        """Do what the *flow* says, from its step *begin* on, until it has said how the call ends."""
        route, call = attempts.route, attempts.call
        try:
            step = begin()
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
                    attempts.terms = route.stream_terms  # whose head comes first has won
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
        wire = attempts.route.wire
        if "trace" in attempts.request.extensions:
            wire = wire.tracing()
        pool = wire.pool(find_loop(), send.ticket.endpoint)
        is_warm, carrier = False, None
        try:
            if not send.is_fresh:
                carrier = pool.take_idle()
            if carrier is None:
                carrier = await pool.take(attempts.pool_timeout(), is_fresh=send.is_fresh)
            deadline = attempts.call.deadline
            is_warm, carrier.deadline = carrier.is_used, deadline
            carrying = carrier.carry(
                attempts.request, attempts.headers(send), attempts.terms, send.ticket.heard
            )
            if deadline is None or attempts.call.is_replayable:
                answer = await carrying
            else:
                answer = await _carry_until(deadline, carrying)
        except BaseException as error:
            if carrier is not None:
                await pool.give(carrier)
            if not isinstance(error, Exception):
                raise
            # Every kind: the flow decides, and what it won't retry is raised as it was.
            return attempts.failed(send, error, began, is_warm=is_warm, carrier=carrier)
        if answer.content is None:
            stream: httpx.AsyncByteStream = AsyncTrackedStream(answer.stream, carrier, pool, send.ticket)
        else:
            if not pool.give_idle(carrier):
                await pool.give(carrier)
            stream = WholeStream(answer.content, send.ticket)
        return attempts.answered(send, answer, stream, began, is_warm=is_warm)


async def _carry_until(deadline: float, carrying: Coroutine[Any, Any, Answer]) -> Answer:
    """Reads and writes end with the deadline by themselves; what the caller's own iterator waits for does not."""
    with anyio.move_on_after(max(0.0, deadline - monotonic()) + RESOLUTION):
        return await carrying
    raise WriteExpired("the deadline has passed while the body was sent")


class AsyncTrackedStream(httpx.AsyncByteStream):
    """A response's body. When it is closed, read or not, the request is over: once, and also if it is only forgotten."""

    _is_open = False  # until it is all there: a signal's handler may raise in the middle

    def __init__(
        self,
        stream: Any,
        carrier: AsyncCarrier,
        pool: AsyncPool,
        ticket: Ticket,
    ) -> None:
        self._stream = stream
        self._carrier = carrier
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
        is_read = False
        try:
            async for part in self._stream:
                yield part
            is_read = True
        except Exception as error:
            if self._carrier.is_expired and is_timeout(error):
                raise late("while the body was read") from error
            ours = as_httpx(error)
            if ours is error:
                raise
            raise ours from error
        finally:
            if (
                not is_read
            ):  # broken, or forgotten: the response refers to itself, and waits for the collector
                with suppress(Exception):
                    await self.aclose()

    @property
    def carrier(self) -> AsyncCarrier:
        return self._carrier

    async def read_ahead(self) -> None:
        """Read all of it now. Raises what the engine raises."""
        self._parts = [part async for part in self._stream]

    def hurry(self, seconds: float) -> None:
        """Have what is left come within so many seconds."""
        self._carrier.hurry(monotonic() + seconds)

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
            await self._pool.give(self._carrier, is_broken=is_broken)

    def __del__(self) -> None:
        if self._is_open:
            self._ticket.close()
            self._pool.lose(self._carrier)


async def _read(attempts: Attempts[AsyncWire]) -> Outcome | None:
    """Read the body, of which the caller gets all or nothing."""
    stream = attempts.stream
    if isinstance(stream, WholeStream):
        return None
    assert isinstance(stream, AsyncTrackedStream)
    try:
        await stream.read_ahead()
    except Exception as error:
        with suppress(Exception):
            await stream.aclose()
        return attempts.broken_off(error, stream.carrier)
    return None


async def _discard(response: httpx.Response) -> None:
    """Another attempt follows: a short body is read to its end, so that the connection can be used again."""
    stream = response.stream
    assert isinstance(stream, AsyncTrackedStream | WholeStream)
    try:
        with suppress(Exception):  # it is of no interest any more
            if isinstance(stream, AsyncTrackedStream) and is_short(response):
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
