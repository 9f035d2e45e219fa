"""What is passed on of an instance's responses, which discoclient's wire has read: its strict reader, and our own rules."""

from __future__ import annotations

from http import HTTPStatus

from discoclient.transport.http1.head import Head
from discoclient.transport.http1.reader import BadResponse, ResponseReader

from .fields import NOT_IN_RESPONSES, NOT_IN_TRAILERS

__all__ = ["AnswerReader", "BadResponse", "opening_of"]

MOST_FIELDS = 200
MOST_BYTES = 65536
"""Of a response's fields; nginx and HAProxy give them 4 to 16 KiB."""


class AnswerReader(ResponseReader):
    """``opening``: the status line and the fields to pass on, ``Content-Length`` among them. ``instance``, ``retry_after``,
    ``upgrade``: what the fields of these names said.
    """

    __slots__ = ("_seen", "instance", "opening", "retry_after", "upgrade")

    def __init__(self) -> None:
        self._seen: Head | None = None
        self.opening = self.instance = self.retry_after = self.upgrade = b""
        super().__init__(most_bytes=MOST_BYTES, most_fields=MOST_FIELDS)

    def begin(self, head: Head) -> None:
        super().begin(head)
        if head is self._seen:  # as a rule: it came before, and is worked out
            return
        self._seen = head
        self.opening = opening_of(head)
        self.instance = self.retry_after = self.upgrade = b""
        for name, value in head.fields:
            match name.lower():
                case b"x-disco-instance":
                    self.instance = value
                case b"retry-after":
                    self.retry_after = value
                case b"upgrade":
                    self.upgrade = value

    @property
    def passed_trailers(self) -> list[bytes]:
        """The lines of the trailers to pass on."""
        return [
            b"%b: %b\r\n" % (name, value)
            for name, value in self.trailers
            if _is_passed(lower := name.lower()) and lower not in NOT_IN_TRAILERS and b"_" not in lower
        ]


def opening_of(head: Head) -> bytes:
    """The status line and the fields to pass on, without those that a ``Connection`` field names."""
    nominated = {
        option.strip(b" \t").lower()
        for name, value in head.fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    lines = b"".join(
        [
            b"%b: %b\r\n" % (name, value)
            for name, value in head.fields
            if _is_passed(lower := name.lower()) and lower not in nominated
        ]
    )
    status = head.status
    opening = b"HTTP/1.1 %d %b\r\n%b" % (status, head.reason or _phrase(status), lines)
    if head.length is not None and status >= 200 and status != 204:
        opening += b"Content-Length: %d\r\n" % head.length
    return opening


def _is_passed(lower: bytes) -> bool:
    return lower not in NOT_IN_RESPONSES


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
