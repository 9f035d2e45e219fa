"""The sync shell: it does what the flow of a call says, and tells it what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Unpack

import httpx

from ..balancing.endpoint import Ticket
from ..balancing.explanation import Explanation
from ..calling.flow import CallFlow
from ..calling.steps import Call, End, Read, Send, Sleep, Step
from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import check_seconds
from .attempts import PATIENCE, Attempts, Result, WholeStream, finalize, is_short
from .carrying import Carrier
from .options import NO_CALL, read_call
from .router import Route, Router, late
from .settings import Settings, TransportOptions
from .sync_pool import SyncPool, SyncWire
from .sync_race import Lanes, run_race
from .telling import Told
from .wire import as_httpx, is_timeout, wire_errors

__all__ = ["DiscoTransport"]


class DiscoTransport(httpx.BaseTransport):
    """Routes requests to live instances of services. Mount it: ``httpx.Client(mounts={"disco://": DiscoTransport()})``.

    The host of a request is the service's name. With *service* only requests to that one are carried; others raise
    `RoutingError`. For the other arguments see `DiscoClient`.
    """

    def __init__(
        self, service: str | None = None, *, registry: str | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        self._router = Router(SyncWire, "sync", service, registry, Settings.of(options))
        finalize(self, self._router)

    def __repr__(self) -> str:
        return f"<DiscoTransport {self._router.service or 'any service'}>"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        route = self._router.find(request) or self._router.route_for(request)
        began = monotonic()
        call = read_call(request, began, deadline=route.settings.deadline, info=route.info(request))
        attempts = Attempts(route, request, call, began)
        if call.info is None:
            return self._call(attempts)
        with Told(attempts, call.info) as told:
            told.response = self._call(attempts)
            return told.response

    def wait_ready(self, timeout: float | None = None) -> None:
        """See `DiscoClient.wait_ready`."""
        route = self._router.route(self._router.service or "")
        limit = route.settings.discovery_timeout
        if timeout is not None:
            limit = check_seconds("timeout", timeout, zero=True)
        route.resolver.wait(lambda: route.is_callable or (route.is_decided and not route.is_known), limit)
        if not route.is_callable:
            raise route.no_instances() if route.is_known else route.resolver.timed_out(limit)

    def explain(self) -> Explanation:
        """See `DiscoClient.explain`."""
        route = self._router.route(self._router.service or "")
        if not route.is_known:
            self._await_view(route, NO_CALL)
        return route.explain()

    def stats(self) -> dict[str, int]:
        """See `DiscoClient.stats`."""
        return self._router.stats()

    def close(self) -> None:
        for route in self._router.routes():
            if route.resolver.users <= 1:
                route.wire.leave()
        self._router.release()

    def _call(self, attempts: Attempts[SyncWire]) -> httpx.Response:
        route, call = attempts.route, attempts.call
        if not route.is_known:
            self._await_view(route, call)
        if call.info is not None or route.ledger.hedges is not None:
            flow = route.flow(call)
            return self._converse(attempts, flow, lambda: next(flow))
        # What nearly always happens, and without a generator: the first attempt's answer is the end.
        caller = route.caller
        send = caller.begin(call, caller.clock())
        if isinstance(send, End):
            raise route.refused(send, call)
        try:
            outcome, result = self._attempt(send, attempts)
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
        return self._converse(attempts, flow, lambda: flow.send(outcome))

    def _converse(
        self, attempts: Attempts[SyncWire], flow: CallFlow, begin: Callable[[], Step]
    ) -> httpx.Response:
        """Do what the *flow* says, from its step *begin* on, until it has said how the call ends."""
        route, call = attempts.route, attempts.call
        try:
            step = begin()
            while True:
                if isinstance(step, Read):
                    step = flow.send(_read(attempts))
                    continue
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                discarded = attempts.take_response()
                if discarded is not None:
                    _discard(discarded)
                if step.race is None:
                    outcome, result = self._attempt(step, attempts)
                else:
                    attempts.terms = route.stream_terms  # whose head comes first has won
                    step, outcome, result = run_race(step.race, step, attempts, self._attempt)
                attempts.settle(step, result)
                step = flow.send(outcome)
        except StopIteration as stop:
            if stop.value is not End.DELIVER:
                refusal, cause = route.refused(stop.value, call), attempts.error
                discarded = attempts.take_response()
                if discarded is not None:
                    _discard(discarded)
                raise refusal from cause
        except BaseException:
            flow.close()
            discarded = attempts.take_response()
            if discarded is not None:
                discarded.close()
            raise
        return attempts.deliver()

    def _await_view(self, route: Route[SyncWire], call: Call) -> None:
        timeout = route.discovery_timeout(call)
        route.resolver.wait(lambda: route.is_decided, timeout)
        if not route.is_known:
            raise route.unknown(call, timeout)

    def _attempt(
        self, send: Send, attempts: Attempts[SyncWire], lanes: Lanes | None = None
    ) -> tuple[Outcome, Result]:
        """One attempt. In a race, *lanes* know what carries it."""
        began = monotonic()
        wire = attempts.route.wire
        if "trace" in attempts.request.extensions:
            wire = wire.tracing()
        pool = wire.pool(send.ticket.endpoint)
        is_warm, carrier = False, None
        try:
            carrier = pool.take(attempts.pool_timeout(), is_fresh=send.is_fresh)
            is_warm, carrier.deadline = carrier.is_used, attempts.call.deadline
            if lanes is not None:
                lanes.enter(send.number, carrier)
            answer = carrier.carry(
                attempts.request, attempts.headers(send), attempts.terms, send.ticket.heard
            )
        except BaseException as error:
            if lanes is not None:
                lanes.leave(send.number)
            if carrier is not None:
                pool.give(carrier)
            if not isinstance(error, Exception):
                raise
            # Every kind: the flow decides, and what it won't retry is raised as it was.
            return attempts.failed(send, error, began, is_warm=is_warm, carrier=carrier)
        if lanes is not None:
            lanes.leave(send.number)
        if answer.content is None:
            stream: httpx.SyncByteStream = TrackedStream(answer.stream, carrier, pool, send.ticket)
        else:
            pool.give(carrier)
            stream = WholeStream(answer.content, send.ticket)
        return attempts.answered(send, answer, stream, began, is_warm=is_warm)


class TrackedStream(httpx.SyncByteStream):
    """A response's body. When it is closed, read or not, the request is over: once, and also if it is only forgotten."""

    _is_open = False  # until it is all there: a signal's handler may raise in the middle

    def __init__(self, stream: Any, carrier: Carrier, pool: SyncPool, ticket: Ticket) -> None:
        self._stream = stream
        self._carrier = carrier
        self._pool = pool
        self._ticket = ticket
        self._is_open = True
        self._parts: list[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self._parts is None:
            return self._stream_out()
        # Once, so that they are not kept beside what the response makes of them.
        parts, self._parts = self._parts, []
        return iter(parts)

    def _stream_out(self) -> Iterator[bytes]:
        is_read = False
        try:
            yield from self._stream
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
                    self.close()

    @property
    def carrier(self) -> Carrier:
        return self._carrier

    def read_ahead(self) -> None:
        """Read all of it now. Raises what the engine raises."""
        self._parts = list(self._stream)

    def hurry(self, seconds: float) -> None:
        """Have what is left come within so many seconds."""
        self._carrier.hurry(monotonic() + seconds)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        is_broken = True
        try:
            with wire_errors():
                self._stream.close()
            is_broken = False
        finally:
            self._ticket.close()
            self._pool.give(self._carrier, is_broken=is_broken)

    def __del__(self) -> None:
        if self._is_open:
            self.close()


def _read(attempts: Attempts[SyncWire]) -> Outcome | None:
    """Read the body, of which the caller gets all or nothing."""
    stream = attempts.stream
    if isinstance(stream, WholeStream):
        return None
    assert isinstance(stream, TrackedStream)
    try:
        stream.read_ahead()
    except Exception as error:
        with suppress(Exception):
            stream.close()
        return attempts.broken_off(error, stream.carrier)
    return None


def _discard(response: httpx.Response) -> None:
    """Another attempt follows: a short body is read to its end, so that the connection can be used again."""
    stream = response.stream
    assert isinstance(stream, TrackedStream | WholeStream)
    with suppress(Exception):  # it is of no interest any more
        if isinstance(stream, TrackedStream) and is_short(response):
            stream.hurry(PATIENCE)
            for _ in stream:
                pass
    with suppress(Exception):
        stream.close()
