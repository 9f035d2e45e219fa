"""An engine of the user's making: an httpx transport for each instance, such as one with a proxy, or over a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any, ClassVar

import httpx

from .carrying import Answer, Raises, Terms
from .http1 import failures
from .http1.bounded import Bounded
from .http1.head import Field
from .options import without_ours
from .wire import Place

__all__ = ["AsyncLentCarrier", "LentCarrier"]

_FAILURES: dict[type[httpx.TransportError], type[failures.Failure]] = {
    httpx.ConnectTimeout: failures.ConnectExpired,
    httpx.ConnectError: failures.ConnectFailure,
    httpx.ReadTimeout: failures.ReadExpired,
    httpx.ReadError: failures.ReadFailure,
    httpx.WriteTimeout: failures.WriteExpired,
    httpx.WriteError: failures.WriteFailure,
    httpx.ProxyError: failures.ConnectFailure,
    httpx.RemoteProtocolError: failures.RemoteProtocolFailure,
    httpx.LocalProtocolError: failures.LocalProtocolFailure,
}


class _Lent(Bounded):
    """One request over the transport, which has connections of its own: so there is nothing to keep."""

    raises: ClassVar[Raises] = failures.Failure

    def __init__(self, place: Place) -> None:
        self._place = place
        self.deadline = None
        self.has_answer = False

    @property
    def is_used(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return False

    def is_overdue(self, now: float) -> bool:
        return False

    def has_ended(self) -> bool:
        return True

    def break_off(self) -> None:
        """It can't be; it ends by its timeouts."""

    def _aim(
        self, request: httpx.Request, fields: Sequence[Field], terms: Terms, stream: Any
    ) -> httpx.Request:
        place, extensions = self._place, without_ours(request.extensions)
        timeouts = dict(extensions.get("timeout") or {"read": None, "write": None, "pool": None})
        connect = timeouts.get("connect")
        timeouts["connect"] = (
            terms.connect_timeout if connect is None else min(connect, terms.connect_timeout)
        )
        for name, error in (("connect", failures.ConnectExpired), ("read", failures.ReadExpired)):
            timeouts[name] = self.bound(timeouts[name], error)
        extensions["timeout"] = timeouts
        if place.scheme == "https":
            extensions.setdefault("sni_hostname", terms.server_name)
        url = request.url.copy_with(scheme=place.scheme, host=place.host, port=place.port)
        return httpx.Request(request.method, url, headers=list(fields), stream=stream, extensions=extensions)

    def _translate(self, error: httpx.TransportError) -> Exception:
        kind = _FAILURES.get(type(error))
        return error if kind is None else kind(str(error))


class LentCarrier(_Lent):
    """A `Carrier`."""

    def __init__(self, transport: httpx.BaseTransport, place: Place) -> None:
        super().__init__(place)
        self._transport = transport

    def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        body = _Body(request.stream)
        try:
            response = self._transport.handle_request(self._aim(request, fields, terms, body))
        except httpx.TransportError as error:
            if error is body.error:
                raise
            raise self._translate(error) from error
        self.has_answer = True
        return Answer(
            response.status_code, response.headers.raw, response.extensions, _Stream(self, response.stream)
        )

    def close(self) -> None:
        """There is nothing of its own."""


class AsyncLentCarrier(_Lent):
    """An `AsyncCarrier`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, place: Place) -> None:
        super().__init__(place)
        self._transport = transport

    async def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        body = _AsyncBody(request.stream)
        try:
            response = await self._transport.handle_async_request(self._aim(request, fields, terms, body))
        except httpx.TransportError as error:
            if error is body.error:
                raise
            raise self._translate(error) from error
        self.has_answer = True
        return Answer(
            response.status_code,
            response.headers.raw,
            response.extensions,
            _AsyncStream(self, response.stream),
        )

    async def aclose(self) -> None:
        """There is nothing of its own."""


class _Body(httpx.SyncByteStream):
    """The request's, whose errors are not the transport's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self.error = error
            raise


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            self.error = error
            raise


class _Stream:
    """The response's."""

    def __init__(self, carrier: LentCarrier, stream: Any) -> None:
        self._carrier = carrier
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._stream:
                yield part
                self._carrier.bound(None, failures.ReadExpired)
        except httpx.TransportError as error:
            raise self._carrier._translate(error) from error

    def close(self) -> None:
        self._stream.close()


class _AsyncStream:
    def __init__(self, carrier: AsyncLentCarrier, stream: Any) -> None:
        self._carrier = carrier
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._stream)
        try:
            async for part in parts:
                yield part
                self._carrier.bound(None, failures.ReadExpired)
        except httpx.TransportError as error:
            raise self._carrier._translate(error) from error
        finally:
            if isinstance(
                parts, AsyncGenerator
            ):  # the deadline ends it in the middle, and trio wants it to be closed
                await parts.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()
