"""Requests as bytes: the head, checked, and how the body is framed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .failures import LocalProtocolFailure
from .head import Field

__all__ = ["BodyFrame", "head_of"]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_IN_FIELDS = bytes([*range(0x20, 0x7F), 0x09, *range(0x80, 0x100)])
"""What may stand in a field (RFC 9110, 5.5): anything but control characters."""

MOST_NAMES = 1000

_names: set[bytes] = set()
"""Names of fields that were looked at before: there are few, and they come with every request."""


def head_of(method: bytes, target: bytes, fields: Sequence[Field]) -> bytes:
    """The head of a request. Raises `LocalProtocolFailure` for what can't be said, or would be read as something else."""
    lines = [b"%b: %b" % field for field in fields]
    block = b"\r\n".join(lines)
    if len(block.translate(None, _IN_FIELDS)) != 2 * max(0, len(lines) - 1):
        bad = next(name for name, value in fields if (name + value).translate(None, _IN_FIELDS))
        raise LocalProtocolFailure(f"the header {bad!r} has a control character in it")
    for name, _ in fields:
        if name not in _names:
            _check_name(name)
    if not _TARGET.fullmatch(target):
        raise LocalProtocolFailure("the target has a character in it that can't be sent as it is")
    if not _TOKEN.fullmatch(method):
        raise LocalProtocolFailure(f"{method!r} can't be a method")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, block)


def _check_name(name: bytes) -> None:
    if not _TOKEN.fullmatch(name):
        raise LocalProtocolFailure(f"{name!r} can't be the name of a header")
    if len(_names) < MOST_NAMES:
        _names.add(name)


class BodyFrame:
    """Puts the pieces of a body into the frame that the head has announced, and sees that they fill it.

    ``is_empty``: no body is announced. ``is_expecting``: the service is asked first whether it wants it.
    """

    __slots__ = ("_left", "is_chunked", "is_empty", "is_expecting")

    def __init__(self, fields: Iterable[Field]) -> None:
        """Raises `LocalProtocolFailure` for a ``Content-Length`` that is no number, or beside a ``Transfer-Encoding``."""
        self.is_chunked = self.is_expecting = False
        self._left = 0
        length = None
        for name, value in fields:
            size = len(name)
            if size == 17 and name.lower() == b"transfer-encoding":
                self.is_chunked = True
            elif size == 14 and name.lower() == b"content-length":
                if not value.isdigit():
                    raise LocalProtocolFailure(f"{value!r} can't be the length of a body")
                if length is not None and length != value:
                    raise LocalProtocolFailure("there are two Content-Length headers, and they differ")
                length, self._left = value, int(value)
            elif size == 6 and name.lower() == b"expect":
                self.is_expecting = value.lower() == b"100-continue"
        if self.is_chunked and length is not None:
            raise LocalProtocolFailure("Content-Length and Transfer-Encoding must not stand in one request")
        self.is_empty = not (self.is_chunked or self._left)

    def wrap(self, piece: bytes) -> bytes:
        """*piece* as it is written. Raises `LocalProtocolFailure` if it is more than was announced."""
        if self.is_chunked:
            return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        self._left -= len(piece)
        if self._left < 0:
            raise LocalProtocolFailure("the body is longer than its Content-Length")
        return piece

    def end(self) -> bytes:
        """What is written behind the last piece. Raises `LocalProtocolFailure` if less came than was announced."""
        if self._left > 0 and not self.is_chunked:
            raise LocalProtocolFailure("the body is shorter than its Content-Length")
        return b"0\r\n\r\n" if self.is_chunked else b""
