"""The native engine on asyncio: httpx's requests over our own connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar

import httpx

from .carrying import Answer, Raises, Terms
from .http1.async_connection import AsyncConnection
from .http1.failures import ConnectFailure, Failure, ReadFailure
from .http1.head import Field, Head
from .http1.writer import BodyFrame, head_of
from .wire import Place

__all__ = ["AsyncNativeCarrier"]

_NO_TIMEOUTS: Mapping[str, float | None] = {}


class AsyncNativeCarrier(AsyncConnection):
    """An `AsyncCarrier`."""

    raises: ClassVar[Raises] = Failure

    __slots__ = ("_head", "_headers", "_is_sent", "_place")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._is_sent = False
        self._head: Head | None = None
        self._headers = httpx.Headers()

    @property
    def has_answer(self) -> bool:
        return self.reader.is_begun

    def is_idle(self) -> bool:
        return self.is_used and not self.is_lost and self._place.expiry > 0 and not self.is_busy

    def is_overdue(self, now: float) -> bool:
        return now - self.idle_since >= self._place.expiry

    def has_ended(self) -> bool:
        return self.is_overdue(monotonic()) or self.has_news()

    async def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        method = request.method
        extensions = request.extensions
        target = extensions.get("target", request.url.raw_path)
        frame = BodyFrame(fields)
        head = head_of(method, target, frame.fields)
        timeouts = extensions.get("timeout") or _NO_TIMEOUTS
        self.begin(is_head=method == "HEAD")
        try:
            if not self.is_used:
                place, connect = self._place, timeouts.get("connect")
                await self.open(
                    place.host,
                    place.port,
                    timeout=terms.connect_timeout if connect is None else min(connect, terms.connect_timeout),
                    tls=place.tls,
                    server_name=extensions.get("sni_hostname") or terms.server_name,
                )
                if self.reader.is_begun:
                    raise ConnectFailure("the service spoke before it was asked")
            self._is_sent = False
            stream = request.stream
            body = b"".join(stream) if isinstance(stream, httpx.ByteStream) else stream
            assert isinstance(body, bytes | httpx.AsyncByteStream)
            if frame.is_empty and body == b"":
                self.write(head)
                self._is_sent = True
            else:
                self._is_sent = await self.write_body(head, body, frame, timeouts.get("write"))
            answer_head = await self.respond(terms.streamed, timeouts.get("read"), on_head)
            if frame.is_last or method == "CONNECT":
                self._is_sent = False  # nothing that we have to say may follow
            if answer_head is not self._head:
                self._head, self._headers = answer_head, httpx.Headers(answer_head.fields)
        except BaseException:
            self.close()
            raise
        content, stream_out = None, None
        if terms.streamed is not None and self.reader.is_complete:
            content = self.take()
            self.finish()
        else:
            stream_out = AsyncNativeStream(self, timeouts.get("read"))
        return Answer(
            answer_head.status,
            self._headers,
            {
                "http_version": answer_head.version,
                "reason_phrase": answer_head.reason,
                "network_stream": self,
            },
            stream_out,
            content,
            self.head_at,
        )

    def finish(self) -> None:
        """The request is over, and its response read or not."""
        self.end(is_sent=self._is_sent, now=monotonic())

    async def aclose(self) -> None:
        self.close()

    def get_extra_info(self, info: str) -> Any:
        """As httpcore's network streams have it: ``socket``, ``ssl_object``, ``client_addr``, ``server_addr``."""
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return self.transport.get_extra_info(name)


class AsyncNativeStream:
    """A response's body."""

    __slots__ = ("_carrier", "_is_cut", "_is_open", "_timeout")

    def __init__(self, carrier: AsyncNativeCarrier, timeout: float | None) -> None:
        self._carrier = carrier
        self._timeout = timeout
        self._is_open = True
        self._is_cut = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        carrier, timeout = self._carrier, self._timeout
        try:
            while self._is_open:
                piece = await carrier.read(timeout)
                if not piece:
                    return
                yield piece
            if self._is_cut:
                raise ReadFailure("the response was closed before it was read to its end")
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            reader = self._carrier.reader  # whose next response may be another request's
            self._is_cut = bool(reader.pieces) or not reader.is_complete
            self._carrier.finish()
