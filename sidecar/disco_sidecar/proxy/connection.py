"""A connection to an instance: discoclient's own, which gives what arrives to the exchange that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discoclient.transport.http1.connection import Connection as Wire

from ..http.answer import AnswerReader

if TYPE_CHECKING:
    from .carrier import Carrier
    from .pool import Pool

__all__ = ["Connection"]


class Connection(Wire):
    """``exchange``: what uses it. ``pool``: where it waits for one."""

    __slots__ = ("answer", "exchange", "pool")

    def __init__(self) -> None:
        self.answer = AnswerReader()
        self.exchange: Carrier | None = None
        self.pool: Pool | None = None
        super().__init__(self.answer)

    def serve(self, exchange: Carrier | None) -> None:
        """For *exchange* from now on; for ``None``: it has ended."""
        self.exchange = exchange
        self.is_busy = exchange is not None

    def close(self) -> None:
        self.exchange = None
        super().close()

    # ---- what the wire tells

    def answered(self) -> None:
        if self.exchange is not None:
            self.exchange.answered()

    def failed(self, error: Exception) -> None:
        if self.exchange is not None:
            self.exchange.failed(error)

    def filled(self) -> None:
        if self.exchange is not None:
            self.exchange.hold_client()

    def drained(self) -> None:
        if self.exchange is not None:
            self.exchange.release_client()

    def left(self) -> None:
        if self.pool is not None:
            self.pool.forget(self)
