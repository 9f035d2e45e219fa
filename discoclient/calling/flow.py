"""What happens in one call: a generator that says where to send, is told what came of it, and decides what follows.

The conversation, driven by a sync and by an async shell alike::

    flow = call_flow(call, view, policy, ...)
    send = next(flow)                    # Send: make this attempt, at send.ticket.endpoint
    send = flow.send(outcome)            # what came of it; the next Send, or ...
    StopIteration.value                  # ... the End: hand over what the last attempt gave, or say why there was none

Feedback can't get lost: the flow opens a `Ticket` before each `Send`, reports each outcome to the endpoint, and closes the
ticket itself, except the last one's when a response is delivered: that one belongs to the response's body. Closing the
generator (a cancelled call) closes an open ticket.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import TypeAlias

from ..balancing.endpoint import Endpoint, Ticket
from ..balancing.view import View
from ..model.outcome import Outcome, OutcomeKind
from ..model.policy import OutlierPolicy, RetryPolicy

__all__ = ["Call", "CallFlow", "End", "Send", "call_flow"]


@dataclass(frozen=True, slots=True)
class Call:
    """What the decisions need to know of a request."""

    is_idempotent: bool
    is_replayable: bool
    exclude: frozenset[str] = frozenset()
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Make an attempt at this ticket's endpoint. ``number`` is 1 for the first; ``view`` is what it was picked from."""

    ticket: Ticket
    number: int
    view: View

    @property
    def endpoint(self) -> Endpoint:
        return self.ticket.endpoint


class End(Enum):
    DELIVER = auto()
    """The last attempt's response, or its error, is the caller's."""
    NO_INSTANCES = auto()
    """There was nothing to send to."""


CallFlow: TypeAlias = Generator[Send, Outcome, End]


def call_flow(
    call: Call,
    view: Callable[[], View],
    *,
    retry: RetryPolicy,
    outlier: OutlierPolicy,
    clock: Callable[[], float],
    rng: Random,
) -> CallFlow:
    """See the module. *view* gives the newest view each time it is asked."""
    tried: frozenset[str] = call.exclude
    most = retry.max_attempts if call.retries is None else call.retries + 1
    sent = 0
    for number in range(1, most + 1):
        send = _start(view, tried, number, clock)
        if send is None:
            return End.NO_INSTANCES if number == 1 else End.DELIVER
        try:
            outcome = yield send
        except BaseException:
            send.ticket.close()
            raise
        _learn(send, outcome, outlier, clock(), rng)
        if outcome.kind is OutcomeKind.RESPONSE:
            return End.DELIVER
        send.ticket.close()
        sent += outcome.kind is not OutcomeKind.NOT_SENT
        if not _may_retry(call, outcome, sent, retry):
            return End.DELIVER
        tried |= {send.endpoint.id}
    return End.DELIVER


def _start(
    view: Callable[[], View], tried: frozenset[str], number: int, clock: Callable[[], float]
) -> Send | None:
    """Pick, count it in flight, and only then look whether it is leaving: so a drain that is seen is never missed."""
    while True:
        now = clock()
        current = view()
        endpoint = current.pick(now, tried)
        if endpoint is None or endpoint.id in tried:  # a balancer of the user's may pay no heed
            return None
        ticket = endpoint.start(now)
        if not endpoint.is_retired:
            return Send(ticket, number, current)
        ticket.close()
        tried |= {endpoint.id}


def _learn(send: Send, outcome: Outcome, policy: OutlierPolicy, now: float, rng: Random) -> None:
    if outcome.kind is OutcomeKind.LOCAL:
        return
    endpoint, peers = send.endpoint, send.view.endpoints

    def may_eject() -> bool:
        """Whether one more may be ejected. One always may (Envoy's ``max_ejection_percent`` does the same)."""
        able = [peer for peer in peers.values() if not peer.is_retired]
        out = sum(peer.is_ejected(now) for peer in able if peer is not endpoint)
        return (
            len(able) > 1
            and policy.max_ejected > 0
            and out + 1 <= max(1, int(len(able) * policy.max_ejected))
        )

    endpoint.observe(outcome, now)
    endpoint.judge(send.ticket, outcome, now, policy, may_eject, rng)


def _may_retry(call: Call, outcome: Outcome, sent: int, policy: RetryPolicy) -> bool:
    match outcome.kind:
        case OutcomeKind.NOT_SENT:
            return True  # nothing of the body was read either
        case OutcomeKind.NO_ANSWER:
            return call.is_idempotent and call.is_replayable and sent < policy.max_attempts_sent
    return False
