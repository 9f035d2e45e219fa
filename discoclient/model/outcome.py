"""The outcome of one attempt, classified once, at the shell's edge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Outcome", "OutcomeKind"]


class OutcomeKind(Enum):
    """How an attempt ended, as far as the decision about the next one needs to know."""

    RESPONSE = auto()
    """Response headers arrived, whatever the status."""
    NOT_SENT = auto()
    """No byte of the request left: refused, unreachable, connect timeout, TLS handshake."""
    NO_ANSWER = auto()
    """The request may have reached the instance, and no response came."""
    LOCAL = auto()
    """Our own side failed (a bad request, a body that raised): no instance is to blame, and trying again won't help."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``latency`` is in seconds, from the start of the attempt to the response headers or to the failure.

    ``is_warm`` is false if the connection was made for it: then the latency is not the instance's alone.
    """

    kind: OutcomeKind
    latency: float
    status: int = 0
    is_warm: bool = True

    @property
    def is_failure(self) -> bool:
        """Whether the instance is to blame: it did not answer, or says that it can't serve (502, 503, 504)."""
        if self.kind is OutcomeKind.RESPONSE:
            return self.status in (502, 503, 504)
        return self.kind is not OutcomeKind.LOCAL

    @property
    def is_connect_failure(self) -> bool:
        """Whether nothing could be sent: a sure sign, where other failures may be the request's own fault."""
        return self.kind is OutcomeKind.NOT_SENT
