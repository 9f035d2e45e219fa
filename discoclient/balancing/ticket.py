"""A ticket: one request in flight, and the only way to say that it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Ticket"]


class Ticket:
    """One request in flight. Close it when the response body is closed, or when no response came. Closing twice is once."""

    __slots__ = ("endpoint", "is_open", "is_probe", "is_waiting")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_open = True
        self.is_waiting = True
        """Whether there is no outcome yet."""
        self.is_probe = False
        """Whether it tries an ejected endpoint out."""

    def heard(self, now: float) -> None:
        """It has begun to answer: how long the rest takes is no silence of its."""
        self.endpoint.heard(self, now)

    def close(self) -> None:
        self.endpoint.finish(self)
