"""What the admin address puts up with."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are seconds, sizes bytes.

    Args:
        head: size of a request's head. Beyond it: 431. Default 16 KiB.
        head_timeout: from a head's first byte to its last. Default 5.
        idle: a connection without a request is closed after so long. Default 30.
        connections: at once. One more closes the one that has been idle longest; if none is idle, it gets a 503. Default 64.
        streams: of them, how many may listen to ``/api/events``, so that there is always room for a scrape or a probe. One more
            gets a 503. Default 32.
        stall: a client that reads nothing for so long is dropped. Default 10.
        linger: after a refusal, what still comes is read and thrown away for so long, so that the client sees the
            answer and not a reset. Default 1.
        period: between two states in ``/api/events``. Default 1.
        unread: what may wait to be read by one client before it counts as one that reads nothing. Default 64 KiB.
    """

    head: int = 16 * 1024
    head_timeout: float = 5.0
    idle: float = 30.0
    connections: int = 64
    streams: int = 32
    stall: float = 10.0
    linger: float = 1.0
    period: float = 1.0
    unread: int = 64 * 1024
