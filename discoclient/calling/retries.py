"""What is tried again, and where: one table.

===========  ========================================  ==========  =============  ========  ===================
cause        what happened                             idempotent  POST, PATCH    body      where, and when
===========  ========================================  ==========  =============  ========  ===================
connect      refused, unreachable, connect timeout,    yes         yes            any       elsewhere, at once
             TLS handshake: nothing was sent
misdirected  421 by the middleware of another          yes         yes            again     elsewhere, at once
             instance: nothing was done
stale        a used connection closed before the       yes         no             again     once, same instance,
             first byte of the answer                                                       new connection
no_answer    sent, and no answer, or only a part of    yes         no             again     elsewhere, at once
             one: closed, reset, read timeout
unavailable  502, 503, 504                             yes         no             again     elsewhere, at once
overloaded   429, 503 with ``Retry-After``             yes         no             again     elsewhere, then
===========  ========================================  ==========  =============  ========  ===================

Everything else is the caller's: any other response, an error on our own side (a full pool, a body that raised), a deadline that
passed. A part of an answer counts as none while the caller holds nothing of it (`Call.is_whole`). *body: again* means that it
must be bytes, which can be sent twice. Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, 9.2.2). Beside the
table stand the limits: `RetryPolicy`, the budget, the deadline, and (but for *stale*) never the
same instance twice.

Sources: RFC 9110, 9.2.2, 10.2.3 and 15.5.20; Google SRE book, "Addressing cascading failures"; gRPC A6 (transparent retries);
urllib3's distinction of *connect* and *read*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ..model.outcome import UNAVAILABLE, Outcome, OutcomeKind

__all__ = ["RETRIES", "Cause", "Rule", "cause_of"]


class Cause(StrEnum):
    """Why one might try again."""

    CONNECT = "connect"
    MISDIRECTED = "misdirected"
    STALE = "stale"
    NO_ANSWER = "no_answer"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Rule:
    """``any_method``: also one that is not idempotent. ``needs_body``: the body must be there to be sent again. ``was_sent``:
    the request may well have reached an instance's application, and counts for `RetryPolicy.max_attempts_sent`. ``is_same``: to
    the same instance, on a new connection.
    """

    any_method: bool
    needs_body: bool
    was_sent: bool
    is_same: bool = False

    def allows(self, *, is_idempotent: bool, is_replayable: bool) -> bool:
        return (is_idempotent or self.any_method) and (is_replayable or not self.needs_body)


RETRIES: Mapping[Cause, Rule] = MappingProxyType(
    {
        Cause.CONNECT: Rule(any_method=True, needs_body=False, was_sent=False),
        Cause.MISDIRECTED: Rule(any_method=True, needs_body=True, was_sent=False),
        # Most likely closed before it was read (RFC 9112, 9.3.1). Counted, a GET would fail because an instance was killed: the
        # second attempt may find the same process, dying.
        Cause.STALE: Rule(any_method=False, needs_body=True, was_sent=False, is_same=True),
        Cause.NO_ANSWER: Rule(any_method=False, needs_body=True, was_sent=True),
        Cause.UNAVAILABLE: Rule(any_method=False, needs_body=True, was_sent=True),
        Cause.OVERLOADED: Rule(any_method=False, needs_body=True, was_sent=True),
    }
)

_KINDS: Mapping[OutcomeKind, Cause] = MappingProxyType(
    {
        OutcomeKind.NOT_SENT: Cause.CONNECT,
        OutcomeKind.MISDIRECTED: Cause.MISDIRECTED,
        OutcomeKind.STALE: Cause.STALE,
        OutcomeKind.NO_ANSWER: Cause.NO_ANSWER,
    }
)

_ASK_TO_WAIT = frozenset({429, 503})


def cause_of(outcome: Outcome) -> Cause | None:
    """The row of the table that *outcome* stands in; ``None`` if it stands in none."""
    if outcome.kind is not OutcomeKind.RESPONSE:
        return _KINDS.get(outcome.kind)
    if outcome.retry_after is not None and outcome.status in _ASK_TO_WAIT:
        return Cause.OVERLOADED
    return Cause.UNAVAILABLE if outcome.status in UNAVAILABLE else None
