"""Responses out of an instance's bytes, by llhttp, and what is passed on of them: no byte that was not understood."""

from __future__ import annotations

import httptools

from .fields import response_line

__all__ = ["AnswerReader", "BadAnswer"]

MOST_FIELDS = 200
MOST_BYTES = 65536
"""Of a response's fields; nginx and HAProxy give them 4 to 16 KiB."""
MOST_INTERIM = 20
"""Interim responses (1xx) before the one that counts."""

_NO_BODY = frozenset({204, 304})


class BadAnswer(Exception):
    """What came is no response that may be passed on."""


class AnswerReader:
    """The response that one connection gives next. `expect` before each request; then `feed`, and look.

    ``status`` is 0 until the head is there. ``lines``: the fields to pass on, without the framing. ``length``: the
    ``Content-Length``; ``None`` with ``is_chunked``, or if only the connection's end ends the body. ``pieces``: what
    came of the body and was not taken yet. ``interim``: heads of interim responses, ready to be sent. ``rest``: after an
    upgrade, what followed the head.
    """

    __slots__ = (
        "_bypassed",
        "_interim_seen",
        "_is_head",
        "_parser",
        "_size",
        "_status",
        "_trailing",
        "codings",
        "instance",
        "interim",
        "is_chunked",
        "is_complete",
        "is_persistent",
        "is_upgraded",
        "length",
        "lines",
        "options",
        "pieces",
        "reason",
        "rest",
        "retry_after",
        "status",
        "trailers",
        "upgrade",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self.expect(is_head=False)

    def expect(self, *, is_head: bool) -> None:
        """A request was sent; *is_head*: whose answer has no body, whatever it says."""
        self._is_head = is_head
        self._bypassed = 0
        self._interim_seen = 0
        self.interim: list[bytes] = []
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.is_upgraded = False
        self.is_persistent = False
        self.rest = b""
        self.status = 0
        self._clear()

    def _clear(self) -> None:
        self.reason = b""
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.is_chunked = False
        self.codings = b""
        self.options = b""
        self.instance = b""
        self.retry_after = b""
        self.upgrade = b""
        self.trailers: list[bytes] = []
        self._size = 0

    @property
    def is_begun(self) -> bool:
        """Whether anything of the answer is here."""
        return self._size > 0 or self.status > 0

    def feed(self, data: bytes) -> None:
        """Read *data*. Raises `BadAnswer`."""
        left = self._bypassed
        if left:  # the long rest of a body whose length is known needs no parser
            size = len(data)
            if size > left:
                raise BadAnswer("it sent more than it said")
            self.pieces.append(data)
            self._bypassed = left - size
            if size == left:
                self.is_complete = True
            return
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        self._size += 1
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = None
            self.rest = data[upgrade.args[0] :]
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error.__cause__
            raise cause if isinstance(cause, BadAnswer) else BadAnswer(str(cause or error)) from None
        except httptools.HttpParserError as error:
            raise BadAnswer(str(error)) from None
        if self.length is not None and self.status and not self.is_complete:
            self._bypassed = self.length - sum(map(len, self.pieces))
            self._parser = None

    def feed_eof(self) -> bool:
        """The instance has closed; whether that ends a body that nothing else would have ended."""
        if self.status and self.length is None and not self.is_chunked and not self.is_complete:
            self.is_complete = True
            return True
        return False

    # ---- what the parser finds

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > MOST_BYTES:
            raise BadAnswer("its head is too large")
        if self.status:
            line = response_line(name.lower(), name, value)
            if line is not None:
                self.trailers.append(line)
            return
        lower = name.lower()
        line = response_line(lower, name, value)
        if line is not None:
            self.lines.append(line)
            if lower == b"retry-after":
                self.retry_after = value
        elif lower == b"content-length":
            self.length = int(value)
        elif lower == b"transfer-encoding":
            self.codings = value.lower()
        elif lower == b"connection":
            self.options = self.options + b"," + value.lower() if self.options else value.lower()
        elif lower == b"x-disco-instance":
            self.instance = value
        elif lower == b"upgrade":
            self.upgrade = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if len(self.lines) > MOST_FIELDS:
            raise BadAnswer("it has too many header fields")
        if self.options:
            self._drop_nominated()
        if status < 200:
            self._note_interim(status)
            return
        if self.codings:
            if self.codings != b"chunked":
                raise BadAnswer("the only Transfer-Encoding that is understood is chunked")
            if self.length is not None:
                raise BadAnswer("it has both Content-Length and Transfer-Encoding")
            self.is_chunked = True
        self.is_persistent = parser.should_keep_alive()
        self.status = status
        if self._is_head or status in _NO_BODY:
            self.is_complete = True
            self._parser = None  # it would wait for the body

    def on_body(self, piece: bytes) -> None:
        if not self.is_complete:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status:
            self.is_complete = True

    def _note_interim(self, status: int) -> None:
        self._interim_seen += 1
        if self._interim_seen > MOST_INTERIM:
            raise BadAnswer("it sends interim responses without end")
        if status == 101:
            self.status, self.is_upgraded, self.is_complete = status, True, True
            return
        self.interim.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, self.reason, b"".join(self.lines)))
        self._clear()
        self._size = 1

    def _drop_nominated(self) -> None:
        options = {option.strip(b" \t") for option in self.options.split(b",")}
        options -= {b"close", b"keep-alive", b"upgrade"}
        if options:
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in options]
