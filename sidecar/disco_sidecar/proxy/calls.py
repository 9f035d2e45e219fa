"""What discoclient's decisions need to know: of a request, and of what came of an attempt."""

from __future__ import annotations

from discoclient.calling.steps import Call, Send
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.transport.attempts import seconds_to_wait

from ..http.answer import AnswerReader
from ..http.reading import Message

__all__ = ["call_of", "outcome_of"]

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110, 9.2.2."""

_CALLS = {
    (is_idempotent, is_replayable): Call(is_idempotent, is_replayable)
    for is_idempotent in (False, True)
    for is_replayable in (False, True)
}


def call_of(message: Message, replay: int, now: float) -> Call:
    """*replay*: bytes of a body that are kept for another attempt. Of a chunked body we know only what is here."""
    fields = message.fields
    if fields.is_chunked:
        is_replayable = message.is_complete and sum(map(len, message.pieces)) <= replay
    else:
        is_replayable = not fields.length or fields.length <= replay
    is_idempotent = message.method in IDEMPOTENT
    if fields.deadline is None and fields.attempt == 1:
        return _CALLS[is_idempotent, is_replayable]
    return Call(
        is_idempotent,
        is_replayable,
        retries=0 if fields.attempt > 1 else None,  # one layer retries
        deadline=None if fields.deadline is None else now + fields.deadline / 1000,
    )


def outcome_of(answer: AnswerReader, send: Send, latency: float, *, is_warm: bool) -> Outcome:
    """What an answer's head means."""
    status, kind, retry_after = answer.status, OutcomeKind.RESPONSE, None
    if status == 429 or status == 503:
        retry_after = seconds_to_wait(answer.retry_after.decode("ascii", "replace") or None)
    elif status == 421 and send.endpoint.expectation is not None:
        said = answer.instance.decode("ascii", "replace")
        if said and said != send.endpoint.id:  # somebody else listens there now, and has done nothing
            kind = OutcomeKind.MISDIRECTED
    return Outcome(kind, latency, status, is_warm, retry_after)
