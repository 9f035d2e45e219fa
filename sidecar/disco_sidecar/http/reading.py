"""Requests out of a client's bytes. Two readers must agree: this one, and llhttp (the parser of Node) beside it.

Strict on purpose. Whatever another server might read differently is an answer of 400 and the end of the connection: that is how
requests are smuggled past a proxy (RFC 9112, 11.2). A request is handed out only when every byte that came with it was checked.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

import httptools

from .chunks import ChunkReader
from .fields import Fields, pass_on, read_fields
from .refusal import Refused

__all__ = ["Limits", "Message", "RequestReader"]

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])\r\n")
_BARE = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")
_BEGINNING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}(?: (?:[\x21-\x7e]+(?: [HTP/0-9.]{0,8}\r?)?)?)?")
_VERSION = re.compile(rb"[!-~]+ [!-~]+ HTTP/([0-9]+\.[0-9]+)\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes that one message may have: ``line``: its first line (8 KiB, as nginx and Apache); ``head``: all of its head
    (32 KiB, as Envoy takes 60 and nginx 32); ``body``: its body, without the framing (default: as much as it likes).
    """

    line: int = 8192
    head: int = 32768
    body: int | None = None


class Message:
    """A request. ``pieces``: what came of its body and was not taken yet. ``trailers``: the lines to pass on behind it."""

    __slots__ = (
        "fields",
        "has_body",
        "is_complete",
        "is_persistent",
        "method",
        "minor",
        "pieces",
        "target",
        "trailers",
        "wants_tunnel",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self.has_body = fields.has_body
        self.is_persistent = not fields.is_closing if minor else fields.is_keeping
        """Whether the client wants to go on with this connection (RFC 9112, 9.3)."""
        self.wants_tunnel = fields.is_switching and minor == 1
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.trailers = b""


class RequestReader:
    """One client connection's requests, in order, in ``messages``. The last one may be incomplete: `feed` adds to it."""

    __slots__ = (
        "_block",
        "_buffer",
        "_checked",
        "_chunks",
        "_current",
        "_fields",
        "_is_over",
        "_left",
        "_limits",
        "_witness",
        "is_held",
        "messages",
    )

    def __init__(self, limits: Limits) -> None:
        self.messages: deque[Message] = deque()
        self._limits = limits
        self._buffer = bytearray()
        self._current: Message | None = None  # whose body is being read
        self._chunks: ChunkReader | None = None
        self._left = 0  # bytes of it that are to come; of one in chunks, those that came
        self._is_over = False
        self.is_held = False
        """What follows waits until it is known which protocol it is of."""
        # Clients repeat themselves: the fields of the last request, which are usually those of the next.
        self._block = b""
        self._fields: Fields | None = None
        self._checked = b"", b""  # the method and version that were found good with them
        self._witness = httptools.HttpRequestParser(_SILENT)

    @property
    def is_between(self) -> bool:
        """Whether nothing of a next request is here."""
        return self._current is None and not self._buffer

    @property
    def held(self) -> int:
        """Bytes that follow a request for another protocol, and are not read."""
        return len(self._buffer) if self.is_held else 0

    def feed(self, data: bytes) -> None:
        """Read *data*. Raises `Refused`; then there is nothing more to be read here."""
        if self._buffer and not self.is_held:
            seen = len(self._buffer)
            self._buffer += data
            if self._buffer.find(b"\r\n\r\n", max(0, seen - 3)) < 0:
                self._wait(bytes(self._buffer), seen)
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        start, end = 0, len(data)
        while start < end:
            if self._is_over:
                self._testify(data[start:])
                return
            if self.is_held:
                self._buffer += data[start:]
                return
            if self._current is not None:
                start = self._read_body(self._current, data, start)
                continue
            stop = data.find(b"\r\n\r\n", start)
            if stop < 0:
                rest = data[start:]
                self._wait(rest, 0)
                self._buffer += rest
                return
            stop += 4
            self._read_head(data if start == 0 and stop == end else data[start:stop])
            start = stop

    def take_rest(self) -> bytes:
        """What came behind a request for another protocol, which is not for us to read."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def go_on(self) -> None:
        """What was held is HTTP, because the instance stays with it. Raises `Refused`."""
        self.is_held = False
        rest = self.take_rest()
        if rest:
            self.feed(rest)

    def _read_head(self, head: bytes) -> None:
        line = _LINE.match(head)
        if line is None:
            raise self._complaint(head)
        after = line.end()
        if after > self._limits.line:
            raise self._too_long()
        block = head[after:-2]
        fields = self._fields
        if fields is None or block != self._block:
            if len(head) > self._limits.head:
                raise self._too_large()
            fields = read_fields(block)
            self._block, self._fields = block, fields
            self._checked = b"", b""
        method, target, version = line.groups()
        message = Message(method, target, 1 if version == b"1" else 0, fields)
        if (method, version) != self._checked:
            _check(message)
            self._checked = method, version
        if not self._testify(head) and (fields.is_chunked or fields.length):
            # The other reader takes what follows for another protocol, and we know better: it was asked for one that is not
            # passed on. (The Java client asks for h2c with its first request, whatever that is.)
            framing = (
                b"Content-Length: %d" % fields.length if fields.length else b"Transfer-Encoding: chunked"
            )
            self._testify(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        most = self._limits.body
        if most is not None and fields.length is not None and fields.length > most:
            raise self._too_big()
        self.messages.append(message)
        if fields.is_chunked:
            self._current, self._chunks, self._left = message, ChunkReader(), 0
        elif fields.length:
            self._current, self._left = message, fields.length
        else:
            self._end(message)

    def _read_body(self, message: Message, data: bytes, start: int) -> int:
        """Where what is left of *data* begins."""
        end = len(data)
        chunks = self._chunks
        if chunks is None:
            stop = min(end, start + self._left)
            piece = data if start == 0 and stop == end else data[start:stop]
            self._testify(piece)
            message.pieces.append(piece)
            self._left -= stop - start
            if not self._left:
                self._end(message)
            return stop
        before = len(message.pieces)
        stop = chunks.feed(data, start, message.pieces) or 0
        if self._limits.body is not None:
            self._left += sum(map(len, message.pieces[before:]))
            if self._left > self._limits.body:
                raise self._too_big()
        self._testify(data[start:stop] if stop else data[start:])
        if not stop:
            return end
        message.trailers = pass_on(chunks.trailers)
        self._chunks = None
        self._end(message)
        return stop

    def _end(self, message: Message) -> None:
        message.is_complete = True
        self._current = None
        self.is_held = message.wants_tunnel
        self._is_over = not message.is_persistent and not self.is_held

    def _testify(self, data: bytes) -> bool:
        """Have the other reader read the same; whether it stays with HTTP."""
        try:
            self._witness.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It takes what follows for another protocol; whether it is one the instance decides.
            self._witness = httptools.HttpRequestParser(_SILENT)
            return False
        except httptools.HttpParserError as error:
            raise Refused.bad(f"the request is malformed ({error})") from None
        return True

    def _wait(self, rest: bytes, seen: int) -> None:
        """*rest* is a head that is not complete; the first *seen* bytes of it were good. Raises `Refused` if it can't become
        a good one. What was looked at once is not looked at again: a head may come byte by byte.
        """
        newline = rest.find(b"\r\n")
        if newline < 0:
            if len(rest) > self._limits.line:
                raise self._too_long()
            if _BEGINNING.fullmatch(rest) is None:
                raise self._complaint(rest)
        elif newline + 2 > seen:
            if _LINE.match(rest) is None:
                raise self._complaint(rest)
            if newline > self._limits.line:
                raise self._too_long()
        if len(rest) > self._limits.head:
            raise self._too_large()
        if _BARE.search(rest, max(0, seen - 1)) is not None:
            raise Refused.bad("a line does not end with CRLF")

    def _complaint(self, head: bytes) -> Refused:
        version = _VERSION.match(head)
        if version is not None and version[1] not in (b"1.0", b"1.1"):
            return Refused(505, "bad_version", "only HTTP/1.0 and HTTP/1.1 are spoken here", is_final=True)
        if len(head) > self._limits.line and head.find(b"\r\n", 0, self._limits.line) < 0:
            return self._too_long()
        return Refused.bad("the request line is malformed")

    def _too_big(self) -> Refused:
        text = f"the body is larger than {self._limits.body} bytes"
        return Refused(413, "body_too_large", text, is_final=True)

    def _too_long(self) -> Refused:
        return Refused(
            414, "line_too_long", f"the request line is longer than {self._limits.line} bytes", is_final=True
        )

    def _too_large(self) -> Refused:
        return Refused(
            431, "head_too_large", f"the head is larger than {self._limits.head} bytes", is_final=True
        )


class _Silent:
    """What the other reader tells its findings to: that it does not object is all we ask."""


_SILENT = _Silent()


def _check(message: Message) -> None:
    """What no line shows by itself."""
    fields = message.fields
    if message.minor:
        if fields.host is None:
            raise Refused.bad("the Host field is missing")
    elif fields.is_chunked:
        raise Refused.bad("HTTP/1.0 has no Transfer-Encoding")
    if message.method == b"CONNECT":
        raise Refused(405, "no_connect", "CONNECT is not offered here", is_final=True)
    if message.method == b"TRACE" and message.has_body:
        raise Refused.bad("a TRACE request has no body")
    if fields.expect is not None and fields.expect.lower() != b"100-continue":
        raise Refused(
            417, "bad_expectation", "the only expectation that is understood is 100-continue", is_final=True
        )
    if message.has_body and message.wants_tunnel:
        raise Refused.bad("a request for another protocol can't have a body")
