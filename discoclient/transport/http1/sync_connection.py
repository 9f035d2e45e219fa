"""A connection for whoever can block: one request at a time, over a socket."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from time import monotonic

from .bounded import Bounded
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

__all__ = ["SyncConnection"]

SLICE = 262_144
"""Bytes of a body that are written at once; between two of them is looked whether the response is there already."""
CONTINUE = 1.0
"""Seconds that a service may take to say that it wants a body, if it is asked (curl's default, too)."""
SMALL = 65_536
"""Bytes of a body that goes out with its head, and of a response that are read at once while its length is not known."""


class SyncConnection(Bounded):
    """``is_busy``: a request is under way. ``is_used``: it has served one before. ``is_lost``: there is no use in it.

    A *timeout* is in seconds, for each wait; ``deadline`` bounds it.
    """

    __slots__ = (
        "_failure",
        "_has_write_failed",
        "_is_reset",
        "_poll",
        "_socket",
        "_timeout",
        "deadline",
        "head_at",
        "idle_since",
        "is_busy",
        "is_lost",
        "is_used",
        "reader",
    )

    def __init__(self) -> None:
        self.deadline = None
        self.head_at = 0.0
        self.reader = ResponseReader()
        self.idle_since = 0.0
        self.is_busy = False
        self.is_used = False
        self.is_lost = False
        self._has_write_failed = False
        self._is_reset = False
        self._failure: RemoteProtocolFailure | None = None
        self._socket: socket.socket | None = None
        self._timeout: float | None = None
        self._poll: select.poll | None = None

    @property
    def carrier(self) -> socket.socket | None:
        """What it goes over, once it is open."""
        return self._socket

    def open(
        self,
        host: str,
        port: int,
        *,
        timeout: float | None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        """Connect. Raises `ConnectFailure`."""
        plain = None
        try:
            plain = self._socket = socket.create_connection(
                (host, port), timeout=self.bound(timeout, ConnectExpired)
            )
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                plain.settimeout(self.bound(timeout, ConnectExpired))
                self._socket = tls.wrap_socket(plain, server_hostname=server_name)
        except BaseException as error:
            if plain is not None:
                plain.close()
            self._socket = None
            self.is_lost = True
            if isinstance(error, TimeoutError):
                raise ConnectExpired("no connection in time") from error
            if isinstance(
                error, OSError | ValueError
            ):  # ssl.SSLError among them; ValueError: a host that can't be one
                raise ConnectFailure(str(error) or type(error).__name__) from error
            raise
        self._timeout = self._socket.gettimeout()

    def has_news(self) -> bool:
        """Whether something has arrived that nobody waits for: as a rule the end of the connection."""
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            assert self._socket is not None
            poll.register(self._socket.fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    # ---- a request

    def begin(self, *, is_head: bool) -> None:
        """A request follows; *is_head*: whose response has no body."""
        self.is_busy = True
        self._has_write_failed = False
        self._is_reset = False
        self._failure = None
        self.head_at = 0.0
        self.reader.expect(is_head=is_head)

    def write(self, data: bytes | memoryview, timeout: float | None) -> None:
        """Write *data*; that the service has closed shows when the response is read. Raises `WriteExpired`."""
        if self._has_write_failed:
            return
        carrier = self._socket
        assert carrier is not None
        view = memoryview(data)
        try:
            while view:
                self._set_timeout(self.bound(timeout, WriteExpired))
                view = view[carrier.send(view) :]
        except TimeoutError as error:
            raise WriteExpired("the service took nothing for too long") from error
        except OSError as error:
            self._note_broken(error)

    def write_body(
        self, head: bytes, body: bytes | Iterable[bytes], frame: BodyFrame, timeout: float | None
    ) -> bool:
        """Write *head* and *body*; *timeout*: seconds that the service may take no more. Whether all was written.

        Ends early, and without an error, if the service refuses the request before it has it, or closes. Raises
        `WriteExpired`, `LocalProtocolFailure`, and whatever *body* raises.
        """
        if isinstance(body, bytes):
            framed = frame.wrap(body)
            framed += frame.end()
            if len(framed) <= SMALL and not frame.is_expecting:
                self.write(head + framed, timeout)
                return True
            self.write(head, timeout)
            if frame.is_expecting and not self._is_welcome():
                return False
            return self._write_slices(framed, timeout)
        self.write(head, timeout)
        if frame.is_expecting and not self._is_welcome():
            return False
        for piece in body:
            if not self._write_slices(frame.wrap(piece), timeout):
                return False
        return self._write_slices(frame.end(), timeout)

    def _is_welcome(self) -> bool:
        """Wait for ``100 Continue``, but not long: many services don't know it. Whether the body is to be sent."""
        reader = self.reader
        with suppress(ReadExpired):
            while not reader.interim and not reader.status:
                self._read_more(CONTINUE)
        return not reader.status

    def _write_slices(self, data: bytes, timeout: float | None) -> bool:
        """Whether there is any use in writing more."""
        view = memoryview(data)
        for start in range(0, len(data), SLICE):
            if self._has_write_failed or self._is_refused():
                return False
            self.write(view[start : start + SLICE], timeout)
        return not self._has_write_failed

    def _is_refused(self) -> bool:
        """Whether the response is here already, and is an error: looked at without waiting."""
        if isinstance(self._socket, ssl.SSLSocket) or not self.has_news():
            return False
        assert self._socket is not None
        try:
            self._set_timeout(0.0)
            data = self._socket.recv(SMALL)
        except BlockingIOError:
            return False
        except OSError as error:
            self._note_broken(error)
            return True
        if not data:
            return False  # it has said all it will say, and may read on
        self._feed(data)
        return self.reader.status >= 400 and self.reader.is_complete

    def _note_broken(self, error: OSError) -> None:
        """What it said before may still be read. The system tells of a reset once; after that it looks like an end."""
        self._has_write_failed = True
        self._is_reset |= isinstance(error, ConnectionResetError)

    # ---- its response

    def respond(
        self, streamed: Container[int] | None, timeout: float | None, on_head: Callable[[float], None]
    ) -> Head:
        """Wait for the response's head and body; for the head alone if its status is in *streamed*, or that is ``None``.

        *on_head* is told when there is a head whose body has yet to come. Raises `ReadExpired`, `ReadFailure`,
        `RemoteProtocolFailure`.
        """
        reader = self.reader
        while not reader.status:
            self._read_more(timeout)
        self.head_at = monotonic()
        if reader.interim:
            reader.interim.clear()
        if streamed is not None and reader.status not in streamed:
            if not reader.is_complete:
                on_head(self.head_at)
            while not reader.is_complete:
                self._read_more(timeout)
        return reader.head

    def read(self, timeout: float | None) -> bytes:
        """What comes of the body next; empty at its end. Raises what `respond` raises."""
        reader = self.reader
        while not reader.pieces:
            if reader.is_complete:
                return b""
            self._read_more(timeout)
        return self.take()

    def take(self) -> bytes:
        """What has come of the body."""
        reader = self.reader
        pieces = reader.pieces
        if not pieces:
            return b""
        reader.pieces = []
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _read_more(self, timeout: float | None) -> None:
        carrier, reader = self._socket, self.reader
        assert carrier is not None
        if self._failure is not None:
            raise self._failure
        try:
            self._set_timeout(self.bound(timeout, ReadExpired))
            data = carrier.recv(SMALL)
        except TimeoutError as error:
            raise ReadExpired("nothing came for too long") from error
        except (OSError, ValueError) as error:  # ValueError: closed by somebody else
            raise ReadFailure(str(error) or type(error).__name__) from error
        if data:
            self._feed(data)
            return
        self.is_lost = True
        if self._is_reset and reader.status:
            raise ReadFailure("the service reset the connection")
        if not reader.feed_eof():
            raise RemoteProtocolFailure(reader.what_is_missing())

    def _feed(self, data: bytes) -> None:
        try:
            self.reader.feed(data)
        except BadResponse as error:
            failure = RemoteProtocolFailure(f"the service's response can't be understood: {error}")
            failure.__cause__ = error
            if not self.reader.status:
                raise failure from error
            self._failure = failure  # of the body: for whoever reads it

    def end(self, *, is_sent: bool, now: float) -> bool:
        """The request is over; whether another may follow: only if all was said on both sides. If not, it is closed."""
        reader = self.reader
        if (
            is_sent
            and reader.is_complete
            and reader.is_persistent
            and not (self.is_lost or self._has_write_failed or self._failure)
        ):
            self.is_busy = False
            self.is_used = True
            self.idle_since = now
            return True
        self.close()
        return False

    def close(self) -> None:
        self.is_lost = True
        carrier, self._socket = self._socket, None
        if carrier is not None:
            carrier.close()

    def _set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            assert self._socket is not None
            self._socket.settimeout(timeout)
            self._timeout = timeout
