"""The sync shell: it does what the flow of a call says, and tells it what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

import httpcore
import httpx

from ..balancing.balancer import Balancer
from ..balancing.endpoint import Ticket
from ..calling.flow import End, Send
from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import OutlierPolicy, RetryPolicy, check_seconds
from .attempts import Attempts, finalize, make_response
from .options import read_call
from .router import Route, Router
from .sync_pool import SyncPool, SyncWire
from .wire import WireOptions, as_httpx, classify, wire_errors

__all__ = ["DiscoTransport"]


class DiscoTransport(httpx.BaseTransport):
    """Routes requests to live instances of services. Mount it: ``httpx.Client(mounts={"disco://": DiscoTransport()})``.

    The host of a request is the service's name. With *service* there is only that one, whatever the host says.
    For the other arguments see `DiscoClient`.
    """

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
            SyncWire,
            "sync",
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
        return f"<DiscoTransport {self._router.service or 'any service'}>"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        call = read_call(request)
        route = self._router.route(self._router.service or request.url.host)
        if not route.is_known:
            self._await_view(route)
        flow = route.flow(call)
        attempts = Attempts(route, request)
        try:
            send = next(flow)
            while True:
                send = flow.send(self._attempt(send, attempts))
        except StopIteration as stop:
            if stop.value is End.NO_INSTANCES:
                raise route.no_instances() from None
        except BaseException:
            flow.close()
            raise
        return attempts.deliver()

    def wait_ready(self, timeout: float | None = None) -> None:
        """See `DiscoClient.wait_ready`."""
        route = self._router.route(self._router.service or "")
        limit = route.settings.discovery_timeout
        if timeout is not None:
            limit = check_seconds("timeout", timeout, zero=True)
        if not route.resolver.wait(lambda: route.is_callable, limit):
            raise route.no_instances() if route.is_known else route.resolver.timed_out(limit)

    def close(self) -> None:
        self._router.release()

    def _await_view(self, route: Route[SyncWire]) -> None:
        timeout = route.settings.discovery_timeout
        if not route.resolver.wait(lambda: route.is_known, timeout):
            raise route.resolver.timed_out(timeout)

    def _attempt(self, send: Send, attempts: Attempts[SyncWire]) -> Outcome:
        """One attempt: its response or its error stays with *attempts*."""
        began = monotonic()
        pool = attempts.route.wire.pool(send.endpoint)
        try:
            extensions = attempts.begin(send)
            connection = pool.take(extensions["timeout"].get("pool"))
            is_warm = connection.is_idle()
            try:
                request = pool.origin.aim(attempts.request, extensions)
                answer = connection.handle_request(request)
            except BaseException:
                pool.give(connection)
                raise
        except (
            Exception
        ) as error:  # every kind: the flow decides, and what it won't retry is raised as it was
            outcome = classify(error, monotonic() - began)
            attempts.failed(send, as_httpx(error))
            return outcome
        assert isinstance(answer.stream, Iterable)
        stream = TrackedStream(answer.stream, connection, pool, send.ticket)
        attempts.answered(send, make_response(answer, stream))
        return Outcome(OutcomeKind.RESPONSE, monotonic() - began, answer.status, is_warm)


class TrackedStream(httpx.SyncByteStream):
    """A response's body. When it is closed, read or not, the request is over: once, and also if it is only forgotten."""

    def __init__(
        self, stream: Iterable[bytes], connection: httpcore.HTTPConnection, pool: SyncPool, ticket: Ticket
    ) -> None:
        self._stream: Any = stream
        self._connection = connection
        self._pool = pool
        self._ticket = ticket
        self._is_open = True

    def __iter__(self) -> Iterator[bytes]:
        with wire_errors():
            yield from self._stream

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            with wire_errors():
                self._stream.close()
        finally:
            self._ticket.close()
            self._pool.give(self._connection)

    def __del__(self) -> None:
        if self._is_open:
            self.close()
