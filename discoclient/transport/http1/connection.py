"""A connection on asyncio's loop: it reads what arrives, and tells whoever uses it."""

from __future__ import annotations

import asyncio
import os
import select
from typing import cast

from .reader import BadResponse, ResponseReader

__all__ = ["ClosedEarly", "Connection"]

PIECE = 65_536


class ClosedEarly(ConnectionResetError):
    """The service closed the connection before its response was complete."""


class Connection(asyncio.Protocol):
    """What both have in common that use it: `AsyncConnection`, and the sidecar's, which has no tasks.

    ``is_busy``: a request is under way. ``is_used``: it has served one before. ``is_lost``: there is no use in writing to it.
    ``is_full``: it takes no more for now. ``is_held``: it is not read, for whoever uses it can't keep up. ``is_over``: its
    transport has told its end, and is not to be touched again.
    """

    __slots__ = (
        "_poll",
        "idle_since",
        "is_busy",
        "is_full",
        "is_held",
        "is_lost",
        "is_over",
        "is_used",
        "reader",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, reader: ResponseReader) -> None:
        self.reader = reader
        self.idle_since = 0.0
        self.is_busy = False
        self.is_used = False
        self.is_lost = False
        self.is_full = False
        self.is_held = False
        self.is_over = False
        self._poll: select.poll | None = None

    # ---- for whoever uses it

    def answered(self) -> None:
        """More of the response is here, and was understood."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """It broke, ended too early (`ClosedEarly`), or what came is no response (`BadResponse`)."""
        raise NotImplementedError

    def filled(self) -> None:
        """It takes no more for now."""

    def drained(self) -> None:
        """It takes more again; or never will, and whoever waits for that should not."""

    def left(self) -> None:
        """The service closed it while it was idle."""

    def close(self) -> None:
        """At once: nothing that matters is on its way."""
        self.is_busy = False
        self.is_lost = True
        if not self.is_over:  # asyncio's fails at that, if it had closed itself once all was written
            self.transport.abort()

    def has_news(self) -> bool:
        """Whether something has arrived that nobody waits for: as a rule the end of the connection."""
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    def hold(self) -> None:
        """Read no more for now."""
        if not self.is_held and not self.is_lost:
            self.is_held = True
            self.transport.pause_reading()

    def release(self) -> None:
        if self.is_held and not self.is_lost:
            self.is_held = False
            self.transport.resume_reading()

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.is_busy:  # it says something unasked
            self.left()
            self.close()
            return
        try:
            self.reader.feed(data)
        except BadResponse as error:
            self.failed(error)
            return
        self.answered()

    def eof_received(self) -> None:
        if not self.is_busy:  # not to be used any more, though its end is told only later
            self.is_lost = True
        elif self.reader.feed_eof():
            self.is_lost = True
            self.answered()
        elif self.reader.is_complete:
            self.is_lost = True
            self.drained()
        else:  # left to itself, the transport would wait until all is sent, perhaps for ever
            self.failed(ClosedEarly("closed before the response was complete"))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        if error is not None and self.is_busy and not self.reader.is_complete:
            self._read_last_words()
        is_busy, self.is_busy, self.is_lost = self.is_busy, False, True
        if not is_busy:
            self.left()
        elif not self.reader.is_complete:
            self.failed(error or ClosedEarly("closed before the response was complete"))
        else:
            self.drained()

    def pause_writing(self) -> None:
        self.is_full = True
        self.filled()

    def resume_writing(self) -> None:
        self.is_full = False
        self.drained()

    def _read_last_words(self) -> None:
        """A service that refuses a body answers, closes, and breaks what we still write: its answer may lie unread.

        Only with asyncio's own transport, which closes its socket after it told us; another's may be somebody else's by now.
        """
        if type(self.transport).__module__ != "asyncio.selector_events":
            return
        reader = self.reader
        try:
            number = self.transport.get_extra_info("socket").fileno()
            while number >= 0 and (data := os.read(number, PIECE)):
                reader.feed(data)  # its end says nothing: an error was told before, and is told once
        except (OSError, BadResponse):
            pass
        if reader.is_complete:
            reader.is_persistent = False
            self.answered()
