"""One connection to the admin address: h11 reads and writes HTTP, this keeps the limits.

A request is answered at once (or when a thread has made the answer), or its answer is a stream that goes on until one of both
ends it. Nothing waits in here: a client that does not read is not written to, and is dropped after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol, cast

import h11

from .guard import Head, Refusal
from .limits import Limits
from .replies import Later, Reply, refuse

__all__ = ["Connection", "House"]


class House(Protocol):
    """What a connection belongs to."""

    limits: Limits

    def joined(self, connection: Connection) -> Refusal | None: ...
    def left(self, connection: Connection) -> None: ...
    def answer(self, head: Head, *, is_unix: bool) -> Reply | Later: ...
    def work(self, later: Later) -> asyncio.Future[Reply]: ...


class Connection(asyncio.Protocol):
    """Made by the server's factory, once for each client."""

    def __init__(self, house: House, *, is_unix: bool) -> None:
        self._house = house
        self._limits = house.limits
        self._is_unix = is_unix
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._is_over = False  # the last answer is written; what still comes is thrown away
        self.is_stream = False
        self.idle_since: float | None = None
        """The loop's time since when there is no request; ``None`` while there is one."""

    # ---- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        made.set_write_buffer_limits(high=self._limits.unread)
        refusal = self._house.joined(self)
        if refusal is not None:
            self._give_up(refusal)
        else:
            self._rest()

    def connection_lost(self, error: Exception | None) -> None:
        self._disarm()
        if self._stalled is not None:
            self._stalled.cancel()
        self._transport = None
        self.is_stream = False
        self._house.left(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self.is_stream:
            self.abort()  # one who listens has nothing to say
            return
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Whoever has said all gets what was asked for before, and that is the end, of a stream too."""
        if not self._is_over and not self.is_stream:
            self._http.receive_data(b"")
            self._advance()

    def pause_writing(self) -> None:
        """Whoever does not read is not listened to either: what it says would have to be kept."""
        self._listen(False)
        self._watch(self.unsent)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._listen(True)
        if not self._is_over and not self.is_stream:
            self._advance()

    # ---- for the server

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, data: bytes) -> None:
        """More of the stream. Left out while the client has not read what it got before: the next state says it all."""
        if self._transport is not None and self.is_stream and self._stalled is None:
            self._write(self._http.send(h11.Data(data=data)))

    def close(self) -> None:
        """As politely as it can be done now."""
        if self._transport is None:
            return
        if self.is_stream and self._stalled is None:
            self.is_stream = False
            self._write(self._http.send(h11.EndOfMessage()))
        self._is_over = True
        self._arm(self._limits.linger, self.abort)  # in case what was written is never read
        self._transport.close()

    def abort(self) -> None:
        """Now, whatever is still unwritten."""
        if self._transport is not None:
            self._is_over = True
            self._transport.abort()

    # ---- inside

    def _advance(self) -> None:
        """Answer what is complete, one after the other, for as long as the client reads."""
        while self._stalled is None and self._transport is not None and not self._is_over:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                self._give_up(
                    Refusal(status, "the head is too large" if status == 431 else "not HTTP as it should be")
                )
                return
            if isinstance(event, h11.Request):
                self._is_in_head = False
                self.idle_since = None
                self._answer(event)
            elif event is h11.NEED_DATA:
                self._await_more()
                return
            elif isinstance(event, h11.ConnectionClosed):
                self.close()
                return
            elif event is h11.PAUSED:
                return  # it speaks before the stream is over
            else:
                self._rest_if_done()

    def _answer(self, request: h11.Request) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in request.headers) + len(request.target)
        if size > self._limits.head:  # it came in one piece, so that h11 had no cause to complain
            self._give_up(Refusal(431, "the head is too large"))
            return
        head = Head(
            request.method.decode("ascii"),
            request.target.decode("latin-1"),
            tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers),
            request.http_version.decode("ascii"),
        )
        self._disarm()
        reply = self._house.answer(head, is_unix=self._is_unix)
        if isinstance(reply, Later):
            self._listen(False)
            self._house.work(reply).add_done_callback(lambda made: self._made(head, made))
        else:
            self._reply(head, reply)

    def _made(self, head: Head, made: asyncio.Future[Reply]) -> None:
        self._listen(True)
        if not made.cancelled() and self._transport is not None and not self._is_over:
            self._reply(head, made.result())
            self._rest_if_done()
            self._advance()

    def _reply(self, head: Head, reply: Reply) -> None:
        is_stream = reply.is_stream and head.method == "GET"
        headers = [("Date", formatdate(usegmt=True)), *reply.all_headers()]
        if not reply.is_stream:
            headers.append(("Content-Length", str(len(reply.body))))
        if reply.closes or reply.is_stream:
            headers.append(("Connection", "close"))
        data = self._http.send(h11.Response(status_code=reply.status, headers=headers))
        if head.method != "HEAD":
            data = (data or b"") + (self._http.send(h11.Data(data=reply.body)) or b"")
        self.is_stream = is_stream
        if not is_stream:
            data = (data or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        self._write(data)
        if not is_stream and self._http.our_state is h11.MUST_CLOSE:
            self._linger(self._limits.idle)

    def _give_up(self, refusal: Refusal) -> None:
        """What the client means is not to be known any more: say why, and end it."""
        reply = refuse(refusal)
        headers = [*reply.all_headers(), ("Content-Length", str(len(reply.body))), ("Connection", "close")]
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            data = self._http.send(h11.Response(status_code=reply.status, headers=headers)) or b""
            self._write(data + (self._http.send(h11.Data(data=reply.body)) or b""))
        self._linger(self._limits.linger)

    def _linger(self, seconds: float) -> None:
        """The last word is said, and the client has *seconds* to take it (or longer, while it reads).

        A socket closed with something unread in it is reset, and the client might never see what we said."""
        if self._transport is None:
            return
        self._is_over = True
        self.idle_since = None

        def end() -> None:
            if self._stalled is None:
                self.close()
            else:
                self._arm(seconds, end)

        self._arm(seconds, end)
        try:
            self._transport.write_eof()
        except OSError:  # it is gone already
            self.abort()

    def _rest_if_done(self) -> None:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._rest()

    def _rest(self) -> None:
        self.idle_since = asyncio.get_running_loop().time()
        self._is_in_head = False
        self._arm(self._limits.idle, self.close)

    def _await_more(self) -> None:
        """From a head's first byte on the time runs, and is not set back by its second."""
        if not self._is_in_head and self._http.trailing_data[0]:
            self._is_in_head = True
            self.idle_since = None
            self._arm(
                self._limits.head_timeout, lambda: self._give_up(Refusal(408, "the head took too long"))
            )

    def _listen(self, is_listening: bool) -> None:
        """Take no more than there is; or go on."""
        if self._transport is not None and not self._transport.is_closing():
            if is_listening:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _watch(self, before: int) -> None:
        """Drop the client if there is still as much unread as *before* after a while; slow ones may be slow."""

        def look() -> None:
            unsent = self.unsent
            if unsent < before:
                self._watch(unsent)
            else:
                self.abort()

        self._stalled = asyncio.get_running_loop().call_later(self._limits.stall, look)

    def _write(self, data: bytes | None) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
