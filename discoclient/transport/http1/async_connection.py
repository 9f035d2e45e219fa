"""A connection for whoever awaits: one request at a time, written and read with timeouts."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import ssl
from collections.abc import AsyncIterable, Callable, Container
from contextlib import suppress
from time import monotonic
from typing import Any

from .bounded import Bounded
from .connection import ClosedEarly, Connection
from .failures import (
    ConnectExpired,
    ConnectFailure,
    ReadExpired,
    ReadFailure,
    RemoteProtocolFailure,
    WriteExpired,
)
from .head import Head
from .reader import BadResponse, ResponseReader
from .writer import BodyFrame

__all__ = ["AsyncConnection"]

SLICE = 1_048_576
"""Bytes of a body that are written at once; between two of them is looked whether the response is there already."""
SMALL = 65_536
"""Bytes of a body that goes out with its head."""
HELD = 131_072
"""Bytes of a response's body that may wait for whoever streams it."""
HAPPY_EYEBALLS = 0.25
"""Seconds until the next address of a host name is tried as well (RFC 8305, 5)."""
CONTINUE = 1.0
"""Seconds that a service may take to say that it wants a body, if it is asked (curl's default, too)."""

_WRITING, _WELCOME, _HEAD, _BODY = range(4)


class AsyncConnection(Bounded, Connection):
    """``head_at``: when the response's head was there, by the monotonic clock."""

    __slots__ = (
        "_error",
        "_expires",
        "_loop",
        "_on_head",
        "_streamed",
        "_timeout",
        "_timer",
        "_waiter",
        "_wanted",
        "deadline",
        "head_at",
    )

    def __init__(self) -> None:
        super().__init__(ResponseReader())
        self.deadline = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: float | None = None
        self._expires = 0.0
        self._wanted = _HEAD
        self._streamed: Container[int] | None = None
        self._on_head: Callable[[float], None] | None = None
        self._error: Exception | None = None
        self.head_at = 0.0

    async def open(
        self,
        host: str,
        port: int,
        *,
        timeout: float | None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        """Connect, within *timeout* seconds. Raises `ConnectFailure`."""
        settings: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": server_name}
        loop = self._loop
        if isinstance(loop, asyncio.BaseEventLoop) and not _is_address(host):  # uvloop has no such option
            settings["happy_eyeballs_delay"] = HAPPY_EYEBALLS
        timeout = self.bound(timeout, ConnectExpired)
        try:
            async with asyncio.timeout(timeout):
                await loop.create_connection(lambda: self, host, port, **settings)
        except TimeoutError as error:
            raise ConnectExpired(f"no connection within {timeout:g} s") from error
        except (OSError, ValueError) as error:  # also ssl.SSLError; ValueError: a host that can't be one
            raise ConnectFailure(str(error) or type(error).__name__) from error

    # ---- a request

    def begin(self, *, is_head: bool) -> None:
        """A request follows; *is_head*: whose response has no body."""
        self._error = None
        self._wanted = _WRITING
        self.head_at = 0.0
        self.is_busy = True
        self.reader.expect(is_head=is_head)

    def write(self, data: bytes) -> None:
        """All there is to write, and little."""
        if not self.is_lost:
            self.transport.write(data)

    async def write_body(
        self, head: bytes, body: bytes | AsyncIterable[bytes], frame: BodyFrame, timeout: float | None
    ) -> bool:
        """Write *head* and *body*; *timeout*: seconds that the service may take no more. Whether all was written.

        Ends early, and without an error, if the service refuses the request before it has it, or closes. Raises
        `WriteExpired`, `LocalProtocolFailure`, and whatever *body* raises.
        """
        if isinstance(body, bytes):
            framed = frame.wrap(body)
            framed += frame.end()
            if len(framed) <= SMALL and not frame.is_expecting:
                self.write(head + framed)
                return True
            self.write(head)
            if frame.is_expecting and not await self._is_welcome():
                return False
            return await self._write_slices(framed, timeout)
        self.write(head)
        if frame.is_expecting and not await self._is_welcome():
            return False
        async for piece in body:
            if not await self._write_slices(frame.wrap(piece), timeout):
                return False
        return await self._write_slices(frame.end(), timeout)

    async def _is_welcome(self) -> bool:
        """Wait for ``100 Continue``, but not long: many services don't know it. Whether the body is to be sent."""
        self._wanted = _WELCOME
        with suppress(ReadExpired):
            if not self._is_enough():
                await self._wait(CONTINUE)
        self._wanted = _WRITING
        return not self.reader.status

    async def _write_slices(self, data: bytes, timeout: float | None) -> bool:
        """Whether there is any use in writing more."""
        view = memoryview(data)
        for start in range(0, len(data), SLICE):
            if not self._is_wanted():
                return False
            self.transport.write(view[start : start + SLICE])
            if self.is_full:
                await self._wait(timeout)
        return self._is_wanted()

    def _is_wanted(self) -> bool:
        reader = self.reader
        return not (self.is_lost or self._error or (reader.status >= 400 and reader.is_complete))

    # ---- its response

    async def respond(
        self, streamed: Container[int] | None, timeout: float | None, on_head: Callable[[float], None]
    ) -> Head:
        """Wait for the response's head and body; for the head alone if its status is in *streamed*, or that is ``None``.

        *timeout*: seconds without a byte. *on_head* is told when there is a head whose body has yet to come. Raises
        `ReadExpired`, `ReadFailure`, `RemoteProtocolFailure`.
        """
        self._streamed, self._wanted, self._on_head = streamed, _HEAD, on_head
        if not self._is_enough():
            if self.head_at:  # it came while the request was sent, and with more than was taken then
                on_head(self.head_at)
                self.release()
            await self._wait(timeout)
        self._wanted, self._on_head = _BODY, None
        return self.reader.head

    async def read(self, timeout: float | None) -> bytes:
        """What came of the body since; empty at its end. Raises what `respond` raises."""
        reader = self.reader
        while not reader.pieces:
            if reader.is_complete:
                return b""
            self.release()
            self._wanted = _BODY
            await self._wait(timeout)
        return self.take()

    def take(self) -> bytes:
        """What has come of the body."""
        reader = self.reader
        pieces = reader.pieces
        if not pieces:
            return b""
        reader.pieces = []
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def end(self, *, is_sent: bool, now: float) -> bool:
        """The request is over; whether another may follow: only if all was said on both sides. If not, it is closed."""
        reader = self.reader
        if (
            is_sent
            and reader.is_complete
            and reader.is_persistent
            and self._error is None
            and not (self.is_lost or self.is_full)
        ):
            self.is_busy = False
            self.is_used = True
            self.idle_since = now
            if self.is_held:
                self.release()
            return True
        self.close()
        return False

    def close(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        waiter = self._waiter
        if waiter is not None and not waiter.done():  # another task's
            waiter.set_exception(ReadFailure("the connection was closed while somebody waited for it"))
        self.is_busy = False
        self.is_lost = True
        if hasattr(self, "transport") and not self.is_over:
            self.transport.abort()

    # ---- waiting

    async def _wait(self, timeout: float | None) -> None:
        """Until what is wanted is here. Raises what ended it instead."""
        if self._error is not None:
            raise self._error
        if self.is_lost and self._wanted != _WRITING:
            self._fail(ClosedEarly("closed before the response was complete"))
            assert self._error is not None
            raise self._error
        if self.is_lost:
            return
        if self.deadline is not None:
            self.bound(None, WriteExpired if self._wanted == _WRITING else ReadExpired)
        loop = self._loop
        self._timeout = timeout
        self._put_off()
        if self._expires != math.inf:
            timer = self._timer
            # A timer that is there and early enough stays: it looks again by itself. So most requests set none.
            if timer is None or timer.when() > self._expires:
                if timer is not None:
                    timer.cancel()
                self._timer = loop.call_at(self._expires, self._look_at_clock)
        waiter = self._waiter = loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _put_off(self) -> None:
        """Something has just moved: the timeout begins anew, and the deadline does not."""
        expires = math.inf if self._timeout is None else self._loop.time() + self._timeout
        self._expires = expires if self.deadline is None or expires < self.deadline else self.deadline

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _look_at_clock(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done() or self._expires == math.inf:
            return
        if self._loop.time() < self._expires:
            self._timer = self._loop.call_at(self._expires, self._look_at_clock)
        elif self._wanted == _WRITING:
            waiter.set_exception(WriteExpired("the service took nothing for too long"))
        else:
            waiter.set_exception(ReadExpired("nothing came for too long"))

    def _is_enough(self) -> bool:
        reader = self.reader
        if self._wanted == _HEAD:
            status = reader.status
            if not status:
                return False
            streamed = self._streamed
            return reader.is_complete or streamed is None or status in streamed
        if self._wanted == _BODY:
            return reader.is_complete or bool(reader.pieces)
        if self._wanted == _WELCOME:
            return bool(reader.interim or reader.status)
        return not (self.is_full and self._is_wanted())

    # ---- what the connection tells

    def answered(self) -> None:
        reader = self.reader
        if reader.status and not self.head_at:
            self.head_at = monotonic()  # which uvloop's own clock would say in milliseconds
            if self._wanted == _HEAD and self._on_head is not None and not self._is_enough():
                self._on_head(self.head_at)
        if self._is_enough():
            self._wake()
        elif self._waiter is not None and self._wanted != _WRITING:
            self._put_off()
        if (
            (self._wanted != _HEAD or self._streamed is None)
            and reader.pieces
            and sum(map(len, reader.pieces)) >= HELD
        ):
            self.hold()

    def failed(self, error: Exception) -> None:
        self._fail(error)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._wanted == _WRITING or self._is_enough():
                waiter.set_result(None)
            else:
                assert self._error is not None
                waiter.set_exception(self._error)

    def drained(self) -> None:
        if self._wanted == _WRITING:
            self._wake()

    def _fail(self, error: Exception) -> None:
        if self._error is not None:
            return
        if isinstance(error, ClosedEarly):
            failure: Exception = RemoteProtocolFailure(self.reader.what_is_missing())
        elif isinstance(error, BadResponse):
            failure = RemoteProtocolFailure(f"the service's response can't be understood: {error}")
        else:
            failure = ReadFailure(str(error) or type(error).__name__)
        failure.__cause__ = error
        self._error = failure


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
