"""Responses out of an instance's bytes, by llhttp, and what is passed on of them: no byte that was not understood."""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeAlias

import httptools

from .fields import NOT_IN_RESPONSES, NOT_IN_TRAILERS

__all__ = ["AnswerReader", "BadAnswer"]

MOST_FIELDS = 200
MOST_BYTES = 65536
"""Of a response's fields; nginx and HAProxy give them 4 to 16 KiB."""
MOST_INTERIM = 20
"""Interim responses (1xx) before the one that counts."""

LONG = 16_384
"""Bytes of a body's first piece from which on it is not copied."""
MOST_KNOWN = 4096
"""Bytes of a head that is remembered."""

_Known: TypeAlias = tuple[int, bytes, int, bool, bytes, bytes]

_NO_BODY = frozenset({204, 304})


class BadAnswer(Exception):
    """What came is no response that may be passed on."""


class _Excess(Exception):
    """More came than the answer."""


class AnswerReader:
    """The response that one connection gives next. `expect` before each request; then `feed`, and look.

    ``status`` is 0 until the head is there. ``opening``: the status line and the fields to pass on, ``Content-Length``
    among them. ``length``: what that says; ``None`` with ``is_chunked``, or if only the end of the connection ends
    the body. ``pieces``: what came of the body and was not taken yet. ``interim``: heads of interim responses, ready to be
    sent. ``rest``: after an upgrade, what followed the head.
    """

    __slots__ = (
        "_codings",
        "_fields",
        "_interim_seen",
        "_is_head",
        "_known",
        "_known_head",
        "_left",
        "_may_switch",
        "_options",
        "_parser",
        "_reason",
        "_size",
        "_unread",
        "instance",
        "interim",
        "is_begun",
        "is_chunked",
        "is_complete",
        "is_persistent",
        "is_upgraded",
        "length",
        "opening",
        "pieces",
        "rest",
        "retry_after",
        "status",
        "trailers",
        "upgrade",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        # Instances repeat themselves: within a second the same head comes again and again, and was understood before.
        self._known_head = b""
        self._known: _Known | None = None
        self.trailers: list[bytes] = []
        self._clear()
        self.expect(is_head=False)

    def expect(self, *, is_head: bool, may_switch: bool = False) -> None:
        """A request was sent; *is_head*: whose answer has no body, whatever it says; *may_switch*: which asks for another
        protocol.
        """
        self._is_head = is_head
        self._may_switch = may_switch
        self._unread = 0  # bytes of a head that is not complete
        self._left = 0  # of a body that needs no parser
        self._interim_seen = 0
        self.interim: list[bytes] = []
        self.pieces: list[bytes | memoryview] = []
        self.is_begun = False
        self.is_complete = False
        self.is_upgraded = False
        self.rest = b""
        self.status = 0

    def _clear(self) -> None:
        """A head is about to be read."""
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._codings = b""
        self._options = b""
        self._size = 0
        self.length: int | None = None
        self.is_chunked = False
        self.is_persistent = False
        self.instance = b""
        self.retry_after = b""
        self.upgrade = b""
        self.opening = b""
        if self.trailers:
            self.trailers = []

    def feed(self, data: bytes) -> None:
        """Read *data*. Raises `BadAnswer`."""
        if self._left:
            self._count(data)
            return
        if not self.is_begun:
            self.is_begun = True
            known = self._known
            if known is not None and not self._is_head and data.startswith(self._known_head):
                self._recall(known, data)
                return
            self._clear()
            self._parse(data)
            if self.status and self.length is not None and not self.is_upgraded:
                self._remember(data)
        else:
            self._parse(data)
        if self.length is not None and self.status and not self.is_complete:
            self._left = self.length - sum(map(len, self.pieces))
            self._parser = None

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = None
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            if self.status and self.is_complete:
                self._note_excess()
                return
            cause = error.__context__ or error.__cause__
            raise cause if isinstance(cause, BadAnswer) else BadAnswer(str(cause or error)) from None
        except httptools.HttpParserError as error:
            if not self.is_complete:
                raise BadAnswer(str(error)) from None
            self._note_excess()
        if not self.status:
            self._unread += len(data)
            if self._unread > MOST_BYTES:
                raise BadAnswer("its head is too large")

    def feed_eof(self) -> bool:
        """The instance has closed; whether that ends a body that nothing else would have ended."""
        if self.status and self.length is None and not self.is_chunked and not self.is_complete:
            self.is_complete = True
            return True
        return False

    # ---- without a parser

    def _count(self, data: bytes) -> None:
        """The long rest of a body whose length is known."""
        left = self._left - len(data)
        if left < 0:
            data, left, self.is_persistent = data[:left], 0, False
        self.pieces.append(data)
        self._left = left
        self.is_complete = not left

    def _remember(self, data: bytes) -> None:
        stop = data.find(b"\r\n\r\n") + 4
        if self._interim_seen or self._is_head or self.status in _NO_BODY or not 4 < stop < MOST_KNOWN:
            return
        if not data.startswith(b"HTTP/"):  # empty lines came first, and it may be their end that was found
            return
        self._known_head = data[:stop]
        self._known = (
            self.status,
            self.opening,
            self.length or 0,
            self.is_persistent,
            self.instance,
            self.retry_after,
        )

    def _recall(self, known: _Known, data: bytes) -> None:
        self.status, self.opening, length, self.is_persistent, self.instance, self.retry_after = known
        self.length = length
        self.is_chunked = False
        start = len(self._known_head)
        size = len(data) - start
        if size > length:
            data, size, self.is_persistent = data[: length - size], length, False
        if size > LONG:
            self.pieces.append(memoryview(data)[start : start + size])
        elif size:
            self.pieces.append(data[start : start + size])
        self._left = length - size
        self.is_complete = size == length

    def _note_excess(self) -> None:
        """More came than it said: whatever that is, nobody asked for it."""
        self.is_persistent = False
        self._parser = None

    # ---- what the parser finds

    def on_message_begin(self) -> None:
        if self.status:
            raise _Excess

    def on_status(self, reason: bytes) -> None:
        if self.is_complete:
            raise BadAnswer("it sent more than it said")
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_complete:
            raise BadAnswer("it sent more than it said")
        self._size += len(name) + len(value)
        if self._size > MOST_BYTES:
            raise BadAnswer("its head is too large")
        lower = name.lower()
        if lower not in NOT_IN_RESPONSES:
            if self.status:
                if lower not in NOT_IN_TRAILERS and b"_" not in lower:
                    self.trailers.append(b"%b: %b\r\n" % (name, value))
            else:
                self._fields.append((lower, b"%b: %b\r\n" % (name, value)))
                if lower == b"retry-after":
                    self.retry_after = value
        elif self.status:  # a trailer has no say in the framing
            return
        elif lower == b"content-length":
            self.length = int(value)
        elif lower == b"transfer-encoding":
            coding = value.strip(b" \t").lower()
            self._codings = self._codings + b"," + coding if self._codings else coding
        elif lower == b"connection":
            self._options = self._options + b"," + value.lower() if self._options else value.lower()
        elif lower == b"x-disco-instance":
            self.instance = value
        elif lower == b"upgrade":
            self.upgrade = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if len(self._fields) > MOST_FIELDS:
            raise BadAnswer("it has too many header fields")
        if status < 100 or parser.get_http_version() not in ("1.0", "1.1"):
            raise BadAnswer("its first line is not one of HTTP/1.1")
        lines = self._lines()
        self.opening = b"HTTP/1.1 %d %b\r\n%b" % (status, self._reason or _phrase(status), lines)
        if status < 200:
            self._note_interim(status)
            return
        if self._codings:
            if self._codings != b"chunked":
                raise BadAnswer("the only Transfer-Encoding that is understood is chunked")
            if self.length is not None:
                raise BadAnswer("it has both Content-Length and Transfer-Encoding")
            self.is_chunked = True
        elif self.length is not None and status != 204:
            self.opening += b"Content-Length: %d\r\n" % self.length
        # llhttp takes an answer to HEAD that has no length for one that only the end ends.
        self.is_persistent = parser.should_keep_alive() or (self._is_head and self._wants_to_go_on(parser))
        self.status = status
        if self._is_head or status in _NO_BODY:
            self.is_complete = True
            self._parser = None  # it would wait for the body

    def on_body(self, piece: bytes) -> None:
        if self.is_complete:
            raise _Excess
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status:
            self.is_complete = True

    def _note_interim(self, status: int) -> None:
        self._interim_seen += 1
        if self._interim_seen > MOST_INTERIM:
            raise BadAnswer("it sends interim responses without end")
        if status == 101:
            if not self._may_switch:
                raise BadAnswer("it changes the protocol, and was not asked to")
            self.status, self.is_upgraded, self.is_complete = status, True, True
            return
        self.interim.append(self.opening + b"\r\n")
        self._clear()

    def _wants_to_go_on(self, parser: httptools.HttpResponseParser) -> bool:
        options = {option.strip(b" \t") for option in self._options.split(b",")}
        return b"close" not in options and (parser.get_http_version() == "1.1" or b"keep-alive" in options)

    def _lines(self) -> bytes:
        """The fields to pass on, without those that a ``Connection`` field names."""
        if self._options:
            nominated = {option.strip(b" \t") for option in self._options.split(b",")}
            return b"".join([line for lower, line in self._fields if lower not in nominated])
        return b"".join([line for _, line in self._fields])


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
