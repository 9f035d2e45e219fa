"""A scene: a fleet, one client with its ledger, and a shell in virtual time that also runs races."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeAlias

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import View, build_view
from discoclient.calling.flow import Caller
from discoclient.calling.hedging import Race
from discoclient.calling.ledger import Ledger, Policies
from discoclient.calling.steps import Call, End, Send, Sleep
from discoclient.model.events import CallInfo, Event
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.snapshot import Snapshot
from tests.balancing.building import preferring
from tests.balancing.fleet import fleet

__all__ = [
    "BUSY",
    "EXPIRED",
    "FAILED",
    "GET",
    "LOCAL",
    "MISDIRECTED",
    "NOT_SENT",
    "NO_ANSWER",
    "OK",
    "POST",
    "STALE",
    "STREAMED_POST",
    "STREAMED_PUT",
    "Answers",
    "Scene",
    "Trace",
    "answer",
    "told",
]

GET = Call(is_idempotent=True, is_replayable=True)
POST = Call(is_idempotent=False, is_replayable=True)
STREAMED_PUT = Call(is_idempotent=True, is_replayable=False)
STREAMED_POST = Call(is_idempotent=False, is_replayable=False)

OK = Outcome(OutcomeKind.RESPONSE, 0.01, 200)
FAILED = Outcome(OutcomeKind.RESPONSE, 0.01, 500)
BUSY = Outcome(OutcomeKind.RESPONSE, 0.01, 503)
NOT_SENT = Outcome(OutcomeKind.NOT_SENT, 0.001)
NO_ANSWER = Outcome(OutcomeKind.NO_ANSWER, 0.1)
STALE = Outcome(OutcomeKind.STALE, 0.001)
MISDIRECTED = Outcome(OutcomeKind.MISDIRECTED, 0.001, 421)
LOCAL = Outcome(OutcomeKind.LOCAL, 0.0)
EXPIRED = Outcome(OutcomeKind.EXPIRED, 0.5)

Answers: TypeAlias = Callable[[Send], Outcome] | Sequence[Outcome]
"""What becomes of each attempt, in the order in which they are sent."""


def answer(status: int = 200, latency: float = 0.01, retry_after: float | None = None) -> Outcome:
    return Outcome(OutcomeKind.RESPONSE, latency, status, retry_after=retry_after)


def told(call: Call) -> Call:
    """The same, for a client with hooks."""
    return replace(call, info=CallInfo("web", "GET", "http://web/"))


@dataclass
class Trace:
    """What a call did. ``sends`` has the hedges too, in the order of their start; ``at`` when each was sent."""

    sends: list[Send] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    """By attempt; ``None`` for one that was broken off."""
    sleeps: list[float] = field(default_factory=list)
    hedges: list[Send] = field(default_factory=list)
    end: End | None = None

    @property
    def ids(self) -> list[str]:
        return [send.endpoint.id for send in self.sends]

    @property
    def numbers(self) -> list[int]:
        return [send.number for send in self.sends]

    @property
    def last(self) -> Outcome | None:
        return self.outcomes[-1]


class Scene:
    def __init__(
        self,
        size: int = 5,
        *,
        preferences: Preferences | None = None,
        balancer: str = "random",
        seed: int = 1,
        now: float = 1000.0,
        latency: float = 0.0,
        endpoints: Iterable[Endpoint] | None = None,
        **policies: Any,
    ) -> None:
        self.now = now
        self.rng = Random(seed)
        self.preferences = preferences or preferring(balancer)
        found = list(endpoints) if endpoints is not None else fleet(size, latency=latency)
        self.endpoints = {endpoint.id: endpoint for endpoint in found}
        self.events: list[Event] = []
        self.policies = Policies(**policies)
        self.ledger = Ledger("web", self.policies)
        self.view: View
        self.publish()
        self.caller = Caller(
            lambda: self.view, self.ledger, emit=self.hear, clock=lambda: self.now, rng=self.rng
        )

    def hear(self, event: Event) -> None:
        self.events.append(event)

    def publish(self) -> None:
        snapshot = Snapshot("web", 1, {id: endpoint.instance for id, endpoint in self.endpoints.items()})
        self.view = build_view(snapshot, self.endpoints, self.preferences, self.rng, self.now)

    @property
    def in_flight(self) -> int:
        return sum(endpoint.in_flight for endpoint in self.endpoints.values())

    def heard(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def call(self, answers: Answers, call: Call = GET, *, keep: bool = False) -> Trace:
        """One call from its beginning to its end; the body of its response is closed, unless it is to be kept."""
        trace = Trace()
        script = iter(answers) if isinstance(answers, Sequence) else None
        flow = self.caller.flow(call)
        open_response: Send | None = None
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    trace.sleeps.append(step.seconds)
                    self.now += step.seconds
                    step = flow.send(None)
                    continue
                if open_response is not None:
                    open_response.ticket.close()
                    open_response = None
                if step.race is None:
                    winner, outcome = step, self._begin(trace, step, script, answers)
                    self.now += outcome.latency
                else:
                    winner, outcome = self._race(trace, step.race, step, script, answers)
                if outcome.has_response:
                    open_response = winner
                step = flow.send(outcome)
        except StopIteration as stop:
            trace.end = stop.value
        if open_response is not None and not keep:
            open_response.ticket.close()
        return trace

    def _begin(self, trace: Trace, send: Send, script: Iterator[Outcome] | None, answers: Answers) -> Outcome:
        assert send.ticket.is_open
        assert send.endpoint.in_flight >= 1
        assert not send.endpoint.is_retired
        outcome = next(script, None) if script is not None else answers(send)  # type: ignore[operator]
        assert outcome is not None, "more is sent than the script has answers for"
        trace.sends.append(send)
        trace.at.append(self.now)
        trace.outcomes.append(outcome)
        return outcome

    def _race(
        self, trace: Trace, race: Race, first: Send, script: Iterator[Outcome] | None, answers: Answers
    ) -> tuple[Send, Outcome]:
        """As the shells do it."""
        began = self.now
        ends = [(began + (outcome := self._begin(trace, first, script, answers)).latency, first, outcome)]
        if ends[0][0] > began + race.delay:
            self.now = began + race.delay
            second = race.late()
            if second is not None:
                trace.hedges.append(second)
                outcome = self._begin(trace, second, script, answers)
                ends.append((self.now + outcome.latency, second, outcome))
        try:
            for at, send, outcome in sorted(ends, key=lambda end: end[0]):
                self.now = max(self.now, at)
                if race.ended(send, outcome):
                    for index, other in enumerate(trace.sends):
                        if other is not send and any(other is each for _, each, _ in ends[:2]):
                            is_ended = next(end for end, each, _ in ends if each is other) <= at
                            trace.outcomes[index] = trace.outcomes[index] if is_ended else None
                    return send, outcome
                if outcome.has_response:
                    send.ticket.close()
        finally:
            race.broken_off(self.now)
        raise AssertionError("a race that nobody won")
