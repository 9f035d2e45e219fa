"""The chunked coding (RFC 9112, 7.1), read strictly: what two readers might understand differently is an error."""

from __future__ import annotations

import re

from .refusal import Refused

__all__ = ["ChunkReader"]

MOST_SIZE_LINE = 256
"""Bytes of a chunk's first line: nobody uses extensions."""
MOST_TRAILERS = 8192

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e]*)?\r\n")
_BARE = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")


class ChunkReader:
    """The body of one message. ``trailers`` holds the lines behind the last chunk once `feed` has said that it was the last."""

    __slots__ = ("_left", "_rest", "_state", "trailers")

    def __init__(self) -> None:
        self._state = _SIZE_LINE
        self._left = 0
        self._rest = b""
        self.trailers = b""

    def feed(self, data: bytes, start: int, pieces: list[bytes]) -> int | None:
        """Read *data* from *start*, and add what is body to *pieces*.

        Where the next message begins, or ``None`` if more is to come. Raises `Refused`.
        """
        if self._rest:
            # What is left over is short, so that a position in *data* is found again.
            data, start, shift = self._rest + data[start:], 0, start - len(self._rest)
            self._rest = b""
        else:
            shift = 0
        end = len(data)
        while True:
            if self._state is _DATA:
                if end - start < self._left:
                    if start < end:
                        pieces.append(data[start:])
                        self._left -= end - start
                    return None
                stop = start + self._left
                if stop > start:
                    pieces.append(data[start:stop])
                self._state, start = _DATA_END, stop
            elif self._state is _DATA_END:
                if end - start < 2:
                    if data[start:end] not in (b"", b"\r"):
                        raise Refused.bad("a chunk is longer than its size")
                    self._rest = data[start:]
                    return None
                if data[start : start + 2] != b"\r\n":
                    raise Refused.bad("a chunk is longer than its size")
                self._state, start = _SIZE_LINE, start + 2
            elif self._state is _SIZE_LINE:
                found = _SIZE.match(data, start)
                if found is None:
                    self._rest = _unfinished(data[start:], MOST_SIZE_LINE, "a chunk's size is malformed")
                    return None
                if found.end() - start > MOST_SIZE_LINE:
                    raise Refused.bad("a chunk's size is malformed")
                self._left = int(found[1], 16)
                self._state, start = (_DATA if self._left else _TRAILERS), found.end()
            else:
                if data.startswith(b"\r\n", start):
                    return start + 2 + shift
                stop = data.find(b"\r\n\r\n", start)
                if stop < 0 or stop - start > MOST_TRAILERS:
                    self._rest = _unfinished(data[start:], MOST_TRAILERS, "the trailers are malformed")
                    return None
                self.trailers = data[start : stop + 2]
                return stop + 4 + shift


_SIZE_LINE, _DATA, _DATA_END, _TRAILERS = "size", "data", "data end", "trailers"

_MAYBE_SIZE = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e]*)?\r?)?")


def _unfinished(rest: bytes, most: int, complaint: str) -> bytes:
    """*rest*, if it can become right."""
    is_size = most == MOST_SIZE_LINE
    if (
        len(rest) > most
        or _BARE.search(rest) is not None
        or (is_size and _MAYBE_SIZE.fullmatch(rest) is None)
    ):
        raise Refused.bad(complaint)
    return rest
