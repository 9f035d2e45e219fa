"""The outcome of one attempt, classified once, at the shell's edge."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["UNAVAILABLE", "Outcome", "OutcomeKind"]

UNAVAILABLE = frozenset({502, 503, 504})
"""Statuses by which a server, or a gateway before it, says that it can't serve (RFC 9110, 15.6.3 to 15.6.5)."""


class OutcomeKind(StrEnum):
    """How an attempt ended, as far as the decision about the next one needs to know."""

    RESPONSE = "response"
    """Response headers arrived, whatever the status."""
    NOT_SENT = "not_sent"
    """No byte of the request left: refused, unreachable, connect timeout, TLS handshake."""
    STALE = "stale"
    """A connection that had been used before was closed ahead of the first byte of the answer: the server's keep-alive ended,
    most likely, just when we wrote."""
    NO_ANSWER = "no_answer"
    """The request may have reached the instance, and no response came, or only a part of one that is wanted whole."""
    MISDIRECTED = "misdirected"
    """Somebody else listens there now, and said so before anything was done (421 with its own ``X-Disco-Instance``)."""
    LOCAL = "local"
    """Our own side failed (a bad request, a body that raised, no free connection): no instance is to blame."""
    EXPIRED = "expired"
    """The call's deadline passed during the attempt."""


class Outcome(NamedTuple):
    """``latency`` is in seconds, from the start of the attempt to the response headers or to the failure.

    A named tuple, because one is made for every attempt, and they are made in half the time. ``is_warm`` is false if the
    connection was made for it: then the latency is not the instance's alone. ``retry_after`` is what the response asked for,
    in seconds. ``error`` is the name of the exception's class.
    """

    kind: OutcomeKind
    latency: float
    status: int = 0
    is_warm: bool = True
    retry_after: float | None = None
    error: str | None = None

    @property
    def has_response(self) -> bool:
        """Whether there is a response, which the caller gets if nothing better follows."""
        return self.kind is OutcomeKind.RESPONSE or self.kind is OutcomeKind.MISDIRECTED

    @property
    def is_failure(self) -> bool:
        """Whether the instance is to blame: it did not answer, or says that it can't serve (502, 503, 504)."""
        kind = self.kind
        if kind is OutcomeKind.RESPONSE:
            return self.status in UNAVAILABLE
        return kind is not OutcomeKind.LOCAL and kind is not OutcomeKind.STALE

    @property
    def is_connect_failure(self) -> bool:
        """Whether nothing could be sent: a sure sign, where other failures may be the request's own fault."""
        return self.kind is OutcomeKind.NOT_SENT
