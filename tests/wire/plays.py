"""What a raw server does with a connection, as a value: bytes to send, and what to do between and after them."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = [
    "AFTER",
    "Act",
    "Play",
    "bytewise",
    "chunked",
    "early",
    "ok",
    "response",
    "split_at",
    "whole",
]


class Act(enum.Enum):
    """What is no sending. A play that ends without one of the last four leaves the connection open for the next request."""

    READ = "read what is left of the request"
    SHUT = "say that no more comes (FIN), and listen until the caller closes"
    CLOSE = "close at once; with something left unread the kernel makes a reset of it"
    RESET = "close with a reset"
    STALL = "do nothing until the caller goes"


@dataclass(frozen=True, slots=True)
class Play:
    """What follows when a request's head has come. Of bytes that stand side by side each piece is read by itself."""

    acts: tuple[bytes | Act, ...]

    def then(self, *acts: bytes | Act) -> Play:
        return Play((*self.acts, *acts))


def whole(*acts: bytes | Act) -> Play:
    """Read the whole request, and then do *acts*."""
    return Play((Act.READ, *acts))


def early(*acts: bytes | Act) -> Play:
    """Do *acts* as soon as the request's head is there."""
    return Play(acts)


def split_at(raw: bytes, *places: int) -> tuple[bytes, ...]:
    """*raw* in pieces that begin at *places*."""
    edges = sorted({0, *(place for place in places if 0 < place < len(raw)), len(raw)})
    return tuple(raw[start:stop] for start, stop in itertools.pairwise(edges))


def bytewise(raw: bytes) -> tuple[bytes, ...]:
    return split_at(raw, *range(len(raw)))


def response(
    body: bytes = b"",
    *headers: bytes,
    status: bytes = b"200 OK",
    version: bytes = b"HTTP/1.1",
    length: bool = True,
) -> bytes:
    """A response as it should be, with a ``Content-Length`` unless *length* is false."""
    fields = [*headers, *([b"Content-Length: %d" % len(body)] if length else [])]
    return b"\r\n".join([version + b" " + status, *fields, b"", body])


def chunked(*parts: bytes) -> bytes:
    """*parts* as the chunks of a whole body."""
    return b"".join(_chunks(parts)) + b"0\r\n\r\n"


def ok(body: bytes = b"fine") -> Play:
    return whole(response(body))


def _chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield b"%x\r\n%b\r\n" % (len(part), part)


AFTER = b"the answer to what was asked after"
"""The body of every answer that no play was set for: what a client must get that asks for it, and nobody else may."""
