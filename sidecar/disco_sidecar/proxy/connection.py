"""A connection to an instance: it gives what arrives to the request that uses it."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, cast

from ..http.answer import AnswerReader, BadAnswer

if TYPE_CHECKING:
    from .carrier import Carrier
    from .pool import Pool

__all__ = ["Connection"]


class Connection(asyncio.Protocol):
    """``is_used``: whether it has served a request before. ``is_lost``: whether there is no use in writing to it.

    ``is_full``: it takes no more for now. ``is_held``: the client does not, so that this is not read.
    """

    __slots__ = (
        "_poll",
        "answer",
        "exchange",
        "idle_since",
        "is_full",
        "is_held",
        "is_lost",
        "is_used",
        "pool",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.answer = AnswerReader()
        self._poll: select.poll | None = None
        self.exchange: Carrier | None = None
        self.pool: Pool | None = None
        self.idle_since = 0.0
        self.is_used = False
        self.is_lost = False
        self.is_full = False
        self.is_held = False

    def close(self) -> None:
        """At once: nothing that matters is on its way."""
        self.exchange = None
        self.is_lost = True
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
        exchange = self.exchange
        if exchange is None:  # it says something unasked
            self._retire()
            return
        try:
            self.answer.feed(data)
        except BadAnswer as error:
            exchange.failed(error)
            return
        exchange.answered()

    def eof_received(self) -> None:
        exchange = self.exchange
        if exchange is None:  # not to be used any more, though its end is told only later
            self.is_lost = True
        elif self.answer.feed_eof():
            self.is_lost = True
            exchange.answered()
        else:  # left to itself, the transport would wait until all is sent, perhaps for ever
            exchange.failed(ConnectionResetError("closed before the answer was complete"))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.failed(error or ConnectionResetError("closed before the answer was complete"))
        elif self.pool is not None:
            self.pool.forget(self)

    def pause_writing(self) -> None:
        self.is_full = True
        if self.exchange is not None:
            self.exchange.hold_client()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.exchange is not None:
            self.exchange.release_client()

    def _retire(self) -> None:
        if self.pool is not None:
            self.pool.forget(self)
        self.close()
