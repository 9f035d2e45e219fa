"""Responses in every framing, and what is to be read of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from discoclient.transport.http1.reader import ResponseReader

__all__ = ["FRAMINGS", "HELLO", "OK", "Framed", "facts", "read"]

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"


@dataclass(frozen=True, slots=True)
class Framed:
    """A response and what is to be read of it. *ends*: it is complete by itself, and not only with its connection."""

    data: bytes
    body: bytes = b""
    length: int | None = None
    is_chunked: bool = False
    is_head: bool = False
    ends: bool = True
    goes_on: bool = True
    status: int = 200


FRAMINGS = {
    "a length": Framed(HELLO, b"hello", 5),
    "a length of nothing": Framed(OK + b"Content-Length: 0\r\n\r\n", b"", 0),
    "a name in small letters, no space, a space behind": Framed(
        OK + b"content-length:5 \r\n\r\nhello", b"hello", 5
    ),
    "no reason": Framed(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi", 2),
    "chunks": Framed(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
        b"hello!",
        is_chunked=True,
    ),
    "chunks, cased otherwise": Framed(
        OK + b"TRANSFER-encoding: Chunked \r\n\r\n0\r\n\r\n", b"", is_chunked=True
    ),
    "chunks and trailers": Framed(
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\nConnection: close\r\n\r\n",
        b"hi",
        is_chunked=True,
    ),
    "the end of the connection": Framed(OK + b"\r\nhello", b"hello", ends=False, goes_on=False),
    "HTTP/1.0": Framed(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", 2, goes_on=False
    ),
    "HTTP/1.0 to the end": Framed(b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi", ends=False, goes_on=False),
    "close": Framed(
        OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nhi", b"hi", 2, goes_on=False
    ),
    "204": Framed(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"", 5, status=204),
    "304": Framed(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", 5, status=304),
    "304 with chunks that don't come": Framed(
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"", is_chunked=True, status=304
    ),
    "HEAD with a length": Framed(OK + b"Content-Length: 5\r\n\r\n", b"", 5, is_head=True),
    "HEAD with chunks": Framed(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"", is_chunked=True, is_head=True
    ),
    "HEAD without any": Framed(OK + b"\r\n", is_head=True),
    "interim responses before it": Framed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 103 Early\r\nConnection: close\r\nLink: a\r\n\r\n" + HELLO, b"hello", 5
    ),
    "an error": Framed(
        b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno", b"no", 2, status=503
    ),
    "a long body": Framed(
        OK + b"Content-Length: 40000\r\n\r\n" + b"x" * 40_000, b"x" * 40_000, 40_000
    ),
}  # fmt: skip


def read(*parts: bytes, is_head: bool = False, may_switch: bool = False, by: int = 1 << 30) -> ResponseReader:
    """What a new reader makes of *parts*, each of them fed in pieces of *by* bytes."""
    reader = ResponseReader()
    reader.expect(is_head=is_head, may_switch=may_switch)
    for data in parts:
        for at in range(0, len(data), by):
            reader.feed(data[at : at + by])
    return reader


def facts(reader: ResponseReader) -> dict[str, Any]:
    """All that is to be seen of *reader* but for how its body is cut into pieces."""
    head = reader.head if reader.status else None
    return {
        "status": reader.status,
        "reason": head and head.reason,
        "version": head and head.version,
        "fields": head and head.fields,
        "length": reader.length,
        "is_begun": reader.is_begun,
        "is_chunked": reader.is_chunked,
        "is_complete": reader.is_complete,
        "is_persistent": reader.is_persistent,
        "interim": [(each.status, each.fields) for each in reader.interim],
        "trailers": reader.trailers,
        "body": b"".join(reader.pieces),
        "missing": reader.what_is_missing(),
    }
