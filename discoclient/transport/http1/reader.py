"""Responses out of a connection's bytes, by llhttp: no byte counts that was not understood."""

from __future__ import annotations

import httptools

from .head import Field, Head

__all__ = ["BadResponse", "ProtocolChange", "ResponseReader"]

MOST_BYTES = 100 * 1024
"""Of a head, or of trailers; what httpcore takes."""
MOST_DIGITS = 20
"""Of a ``Content-Length``: 2 ** 64 has so many."""
MOST_INTERIM = 100
"""Interim responses (1xx) before the one that counts."""

LONG = 16_384
"""Bytes of a body's first piece from which on it is not copied."""
MOST_KNOWN = 4096
"""Bytes of a head that is remembered."""

_NO_BODY = frozenset({204, 304})
_IN_REASON = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])


class BadResponse(Exception):
    """What came is no response that may be used."""


class ProtocolChange(BadResponse):
    """It changes to another protocol, and nobody here would speak that."""


class _Excess(Exception):
    """More came than the response."""


class ResponseReader:
    """The response that one connection gives next. `expect` before each request; then `feed`, and look.

    ``status`` is 0 until the ``head`` is there. ``length``: of the body; ``None`` with ``is_chunked``, or if only the end of
    the connection ends it. ``pieces``: what came of the body and was not taken yet. ``interim``: heads of interim responses.
    ``is_persistent``: whether another request may follow. ``rest``: after a change of the protocol, what followed the head.

    Stricter than h11, on purpose: both ``Content-Length`` and ``Transfer-Encoding``, lines that end in a bare LF, and folded
    fields are errors, for each of them has been read in two ways before (RFC 9112, 11.2).
    """

    __slots__ = (
        "_codings", "_early", "_fields", "_interim_seen", "_is_head", "_known", "_known_bytes", "_left", "_may_switch",
        "_most_bytes", "_most_fields", "_options", "_parser", "_reason", "_size", "_unread", "head", "interim", "is_begun",
        "is_chunked", "is_complete", "is_persistent", "is_switched", "length", "pieces", "rest", "status", "trailers",
    )  # fmt: skip

    head: Head

    def __init__(self, *, most_bytes: int = MOST_BYTES, most_fields: int | None = None) -> None:
        """*most_bytes*, *most_fields*: of a head."""
        self._most_bytes = most_bytes
        self._most_fields = most_bytes if most_fields is None else most_fields
        self._parser: httptools.HttpResponseParser | None = None
        # Services repeat themselves: within a second the same head comes again and again, and was understood before.
        self._known_bytes = b""
        self._known: Head | None = None
        self.trailers: list[Field] = []
        self._clear()
        self.expect(is_head=False)

    def expect(self, *, is_head: bool, may_switch: bool = False) -> None:
        """A request was sent; *is_head*: whose response has no body, whatever it says; *may_switch*: which asks for another
        protocol.
        """
        self._is_head = is_head
        self._may_switch = may_switch
        self._unread = 0  # bytes of a head that is not complete
        self._early = b""  # of a head that may be an interim one
        self._parser = None
        self._left = 0  # of a body that needs no parser
        self._interim_seen = 0
        self.interim: list[Head] = []
        self.pieces: list[bytes | memoryview] = []
        self.is_begun = False
        self.is_complete = False
        self.is_switched = False
        self.rest = b""
        self.status = 0

    def _clear(self) -> None:
        """A head is about to be read."""
        self._reason = b""
        self._fields: list[Field] = []
        self._codings = b""
        self._options = b""
        self._size = 0
        self.length: int | None = None
        self.is_chunked = False
        self.is_persistent = False
        if self.trailers:
            self.trailers = []

    def feed(self, data: bytes) -> None:
        """Read *data*. Raises `BadResponse`."""
        if self._left:
            self._count(data)
            return
        if not self.is_begun:
            self.is_begun = True
            known = self._known
            if known is not None and not self._is_head and data.startswith(self._known_bytes):
                self._recall(known, data)
                return
            self._clear()
            self._parse(data)
            if self.status and self.length is not None and not self.is_switched:
                self._remember(data)
        elif self.is_complete:
            self._note_excess()
        else:
            self._parse(data)
        if self.is_complete:
            self.is_persistent &= not (data[-1:] == b"\n" and self._has_empty_lines(data))
        elif self.length is not None and self.status:
            self._left = self.length - sum(map(len, self.pieces))
            self._parser = None

    def feed_eof(self) -> bool:
        """The connection has ended; whether that ends a body that nothing else would have ended."""
        if self.status and self.length is None and not self.is_chunked and not self.is_complete:
            self.is_complete = True
            return True
        return False

    def what_is_missing(self) -> str:
        """What to say if the connection ends here; in the words that users of httpx know."""
        if not self.status:
            return "server disconnected " + (
                "in the middle of a response's head" if self.is_begun else "without sending a response"
            )
        missing = "server disconnected without sending the complete message body "
        if self.length is None:
            return missing + "(incomplete chunked read)"
        return missing + f"(received {self.length - self._left} bytes, expected {self.length})"

    def _parse(self, data: bytes) -> None:
        if self._parser is None and not self.status:
            data = self._begin_head(data)
            if not data:
                return
        self._parse_on(data)
        if not self.status:
            self._unread += len(data)
            if self._unread > self._most_bytes:
                raise BadResponse("its head is too large")

    def _begin_head(self, data: bytes) -> bytes:
        """What of *data* is the beginning of the head that counts; nothing, as long as that can't be told.

        Interim heads are taken off one by one, each with a parser of its own: after one that says ``close``, or is of HTTP/1.0,
        llhttp would take no more.
        """
        if self._early:
            data, self._early = self._early + data, b""
        while data:
            if data[:7] != b"HTTP/1."[: len(data)]:
                raise BadResponse("it does not begin with HTTP/1.")
            if len(data) > 9 and data[9:10] != b"1":  # behind "HTTP/1.1 "
                return data
            stop = data.find(b"\r\n\r\n") + 4
            if stop < 4:
                self._early = data
                if len(data) > self._most_bytes:
                    raise BadResponse("its head is too large")
                return b""
            self._parse_on(data[:stop])
            self._parser = None
            if self.status:  # another protocol follows
                self.rest = data[stop:]
                return b""
            data = data[stop:]
        return b""

    def _parse_on(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error.__cause__
            if cause is not None and not isinstance(cause, Exception):
                raise cause from None  # a signal's handler, in a callback of ours
            if self.status and self.is_complete:
                self._note_excess()
                return
            raise cause if isinstance(cause, BadResponse) else BadResponse(str(cause or error)) from None
        except httptools.HttpParserError as error:
            if not self.is_complete:
                raise BadResponse(str(error)) from None
            self._note_excess()

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
        self._known_bytes = data[:stop]
        self._known = self.head

    def _recall(self, known: Head, data: bytes) -> None:
        length = known.length or 0
        self.length = length
        self.is_chunked = False
        if self.trailers:
            self.trailers = []
        start = len(self._known_bytes)
        size = len(data) - start
        self.begin(known)
        if size > length:
            data, size, self.is_persistent = data[: length - size], length, False
        if size > LONG:
            self.pieces.append(memoryview(data)[start : start + size])
        elif size:
            self.pieces.append(data[start : start + size])
        self._left = length - size
        self.is_complete = size == length

    def _has_empty_lines(self, data: bytes) -> bool:
        """Whether there are some behind the response that ended with *data*; llhttp passes them over."""
        if self.length and self.pieces:
            return not data.endswith(self.pieces[-1])
        return data.endswith(b"\r\n\r\n\r\n")

    def _note_excess(self) -> None:
        """More came than it said: whatever that is, nobody asked for it."""
        self.is_persistent = False
        self._parser = None

    def begin(self, head: Head) -> None:
        """The response that counts begins with *head*."""
        self.head = head
        self.status = head.status
        self.is_persistent = head.is_persistent

    # ---- what the parser finds

    def on_message_begin(self) -> None:
        if self.status:
            raise _Excess

    def on_status(self, reason: bytes) -> None:
        if self.is_complete:
            raise BadResponse("it sent more than it said")
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_complete:
            raise BadResponse("it sent more than it said")
        self._size += len(name) + len(value)
        if self._size > self._most_bytes:
            raise BadResponse("its head is too large")
        if self.status:  # a trailer, which has no say in the framing
            self.trailers.append((name, value))
            return
        value = value.rstrip(b" \t")
        self._fields.append((name, value))
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            if len(value) > MOST_DIGITS:
                raise BadResponse("its Content-Length has too many digits")
            self.length = int(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            coding = value.lower()
            self._codings = self._codings + b"," + coding if self._codings else coding
        elif size == 10 and name.lower() == b"connection":
            self._options = self._options + b"," + value.lower() if self._options else value.lower()

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status, version = parser.get_status_code(), parser.get_http_version()
        if len(self._fields) > self._most_fields:
            raise BadResponse("it has too many header fields")
        if status < 100 or version not in ("1.0", "1.1"):
            raise BadResponse("its first line is not one of HTTP/1.1")
        if self._reason.translate(None, _IN_REASON):
            raise BadResponse("there is a control character in its first line")
        if status >= 200 and self._codings:
            if self._codings != b"chunked":
                raise BadResponse("the only Transfer-Encoding that is understood is chunked")
            if self.length is not None:
                raise BadResponse("it has both Content-Length and Transfer-Encoding")
            self.is_chunked = True
        has_end = self.length is not None or self.is_chunked or self._is_head or status in _NO_BODY
        head = Head(
            status,
            self._reason,
            b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0",
            tuple(self._fields),
            self.length,
            self.is_chunked,
            has_end and version == "1.1" and self._wants_to_go_on(),
        )
        if status < 200:
            self._note_interim(head)
            return
        self.begin(head)
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

    def _note_interim(self, head: Head) -> None:
        self._interim_seen += 1
        if self._interim_seen > MOST_INTERIM:
            raise BadResponse("it sends interim responses without end")
        if head.status == 101:
            if not self._may_switch:
                raise ProtocolChange("it changes the protocol (101)")
            self.begin(head)
            self.is_switched = self.is_complete = True
            return
        self.interim.append(head)
        self._clear()

    def _wants_to_go_on(self) -> bool:
        if not self._options:
            return True
        return b"close" not in {option.strip(b" \t") for option in self._options.split(b",")}
