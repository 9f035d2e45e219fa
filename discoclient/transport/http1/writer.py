"""Requests as bytes: the head, checked, and how the body is framed."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def head_of(method: str, target: bytes, fields: Sequence[Field]) -> bytes:
    """The head of a request. Raises `LocalProtocolFailure` for what can't be said, or would be read as something else."""
    block = b"".join([b"%b: %b\r\n" % field for field in fields])
    if len(block.translate(None, _IN_FIELDS)) != 2 * len(fields):
        bad = next(name for name, value in fields if (name + value).translate(None, _IN_FIELDS))
        raise LocalProtocolFailure(f"the header {bad!r} has a control character in it")
    if b":  " in block or b" \r\n" in block or b"\t\r\n" in block or b": \t" in block:  # perhaps
        for name, value in fields:
            if value != value.strip(b" \t"):
                raise LocalProtocolFailure(f"the header {name!r} begins or ends with a space")
    for name, _ in fields:
        if name not in _names:
            _check_name(name)
    if not _TARGET.fullmatch(target):
        raise LocalProtocolFailure("the target has a character in it that can't be sent as it is")
    verb = method.encode("ascii", "replace")
    if not _TOKEN.fullmatch(verb) or not method.isascii():
        raise LocalProtocolFailure(f"{method!r} can't be a method")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (verb, target, block)


def _check_name(name: bytes) -> None:
    if not _TOKEN.fullmatch(name):
        raise LocalProtocolFailure(f"{name!r} can't be the name of a header")
    if len(_names) < MOST_NAMES:
        _names.add(name)


def _with_host_first(fields: Sequence[Field]) -> Sequence[Field]:
    """Where a caller has a ``Host`` of its own, httpx puts it last; it belongs first (RFC 9112, 3.2)."""
    hosts = [field for field in fields if field[0].lower() == b"host"]
    return [*hosts, *(field for field in fields if field[0].lower() != b"host")]


class BodyFrame:
    """Puts the pieces of a body into the frame that the head announces, and sees that they fill it.

    ``fields``: the head's, with one framing: httpx says ``Content-Length`` also where the caller said ``Transfer-Encoding``,
    and both in one request are an invitation to smuggling (RFC 9112, 6.1). ``is_empty``: no body is announced.
    ``is_expecting``: the service is asked first whether it wants it. ``is_last``: nothing follows on the connection.
    """

    __slots__ = ("_left", "fields", "is_chunked", "is_empty", "is_expecting", "is_last")

    def __init__(self, fields: Sequence[Field]) -> None:
        """Raises `LocalProtocolFailure` for a framing that can't be kept to."""
        self.fields = fields
        self.is_chunked = self.is_expecting = self.is_last = False
        self._left = 0
        lengths = codings = 0
        is_list = False
        for name, value in fields:
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                lengths += 1
                self._left = self._length(value, lengths)
                is_list |= not value.isdigit()
            elif size == 17 and name.lower() == b"transfer-encoding":
                codings += 1
                if value.lower() != b"chunked" or codings > 1:
                    raise LocalProtocolFailure("the only Transfer-Encoding that can be sent is chunked, once")
                self.is_chunked = True
            elif size == 10 and name.lower() == b"connection":
                self.is_last = b"close" in value.lower()
            elif size == 6 and name.lower() == b"expect":
                self.is_expecting = value.lower() == b"100-continue"
        if lengths + codings > 1 or is_list:
            self.fields = self._with_one_framing()
        if fields and fields[0][0] != b"Host":
            self.fields = _with_host_first(self.fields)
        self.is_empty = not (self.is_chunked or self._left)

    def _length(self, value: bytes, count: int) -> int:
        said = {part.strip(b" \t") for part in value.split(b",")}
        if len(said) != 1 or not (only := said.pop()).isdigit():
            raise LocalProtocolFailure(f"{value!r} can't be the length of a body")
        if count > 1 and int(only) != self._left:
            raise LocalProtocolFailure("there are two Content-Length headers, and they differ")
        return int(only)

    def _with_one_framing(self) -> Sequence[Field]:
        kept, is_framed = [], False
        for name, value in self.fields:
            lower = name.lower()
            if lower == b"content-length" and (self.is_chunked or is_framed):
                continue
            is_framed |= lower == b"content-length"
            kept.append((name, b"%d" % self._left if lower == b"content-length" else value))
        return kept

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
