"""A simulated client process: it drives the real flow as the shells do.
 What a shell adds to the flow is modelled: connections that are kept and grow old, the time to connect, a timeout for
each attempt, a deadline for the call, and races. The order of what happens to tickets and responses is that of
`AsyncDiscoTransport`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from random import Random

from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.balancing.preferences import Preferences
from discoclient.calling.flow import Caller, CallFlow
from discoclient.calling.ledger import Ledger, Policies
from discoclient.calling.steps import Call, End, Send, Sleep, Step
from discoclient.model.events import Event
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.snapshot import Snapshot

from .known import Known
from .loop import Loop
from .servers import Server

__all__ = ["Client", "Request"]

HEADROOM = 2.0
"""Seconds that a connection is kept idle where the instance does not say how long it does (CONTRACT.md), less one."""


class Request:
    """One request of the application."""

    __slots__ = (
        "attempts",
        "call",
        "due",
        "end",
        "flow",
        "outcome",
        "running",
        "spoilt",
        "unread",
        "work",
    )

    def __init__(self, due: float, work: float, call: Call) -> None:
        self.due = due
        self.work = work
        self.call = call
        self.flow: CallFlow | None = None
        self.running: list[_Attempt] = []
        self.attempts = 0
        self.spoilt: list[Ticket] = []
        """Of responses that did not win their race; they are let go when it is over."""
        self.unread: Ticket | None = None
        """Of the response that the application gets, unless another attempt follows."""
        self.outcome: Outcome | None = None
        """The last."""
        self.end: End | None = None

    @property
    def is_good(self) -> bool:
        """Whether the application has an answer that is none of 500 and above."""
        outcome = self.outcome
        is_answered = self.end is End.DELIVER and outcome is not None and outcome.kind is OutcomeKind.RESPONSE
        return is_answered and outcome is not None and outcome.status < 500

    @property
    def error(self) -> str | None:
        if self.is_good:
            return None
        if self.end is not End.DELIVER or self.outcome is None:
            return self.end.name.lower() if self.end is not None else "open"
        outcome = self.outcome
        return str(outcome.status) if outcome.kind is OutcomeKind.RESPONSE else str(outcome.kind)


class _Attempt:
    __slots__ = ("began", "client", "is_over", "is_warm", "request", "send", "server", "work")

    def __init__(self, client: Client, request: Request, send: Send, server: Server, is_warm: bool) -> None:
        self.client = client
        self.request = request
        self.send = send
        self.server = server
        self.is_warm = is_warm
        self.began = client.loop.now
        self.work = request.work
        self.is_over = False

    def answer(self, status: int) -> None:
        self.client.after_half_trip(self.client.answered, self, status)

    def refuse(self) -> None:
        self.client.after_half_trip(self.client.failed, self, OutcomeKind.NOT_SENT)

    def reset(self) -> None:
        """A used connection that closes ahead of the answer is taken for one whose keep-alive ended."""
        kind = OutcomeKind.STALE if self.is_warm else OutcomeKind.NO_ANSWER
        self.client.after_half_trip(self.client.failed, self, kind)


class Client:
    def __init__(
        self,
        loop: Loop,
        name: str,
        *,
        servers: Mapping[str, Server],
        preferences: Preferences,
        policies: Policies,
        rng: Random,
        over: Callable[[Request], None],
        timeout: float,
        trip: float,
        redraw: Callable[[], float] | None = None,
    ) -> None:
        """*over* is told of each request's end. *timeout*: seconds for an attempt. *trip*: seconds there and back.
        *redraw*: the work of an attempt that is not the first; the same as the first's, if ``None``.
        """
        self.loop = loop
        self.name = name
        self.known = Known(loop, preferences, rng)
        self.events: Counter[str] = Counter()
        self._servers = servers
        self._preferences = preferences
        self._learn: Callable[[Endpoint, Outcome, float], None] | None = getattr(
            preferences.balancer, "learn", None
        )
        """For balancers of `references` that want to know of every outcome; ours learn from the endpoints."""
        self._over = over
        self._timeout = timeout
        self._trip = trip
        self._redraw = redraw
        self._ledger = Ledger("sim", policies)
        self._caller = Caller(self.known.newest, self._ledger, emit=self._note, clock=loop.clock, rng=rng)
        self._early: list[Request] = []
        """Requests that came before anything was known."""
        self._idle: dict[str, list[float]] = {}
        """By instance: until when each idle connection is kept, the youngest last."""

    def learn(self, snapshot: Snapshot) -> None:
        """The registry's news arrive."""
        self.known.learn(snapshot)
        early, self._early = self._early, []
        for request in early:
            self.begin(request)

    # ---- requests

    @property
    def stats(self) -> dict[str, int]:
        return self._ledger.stats()

    def begin(self, request: Request) -> None:
        if self.known.view is None:
            self._early.append(request)
            return
        request.flow = self._caller.flow(request.call)
        self._advance(request, None)

    def after_half_trip(self, function: Callable[..., object], *arguments: object) -> None:
        self.loop.after(self._trip / 2, function, *arguments)

    def answered(self, attempt: _Attempt, status: int) -> None:
        if not attempt.is_over:
            now = self.loop.now
            outcome = Outcome(OutcomeKind.RESPONSE, now - attempt.began, status, attempt.is_warm)
            endpoint = attempt.send.endpoint
            if not endpoint.is_retired:
                keep = (endpoint.instance.http_keepalive or HEADROOM) - 1.0
                self._idle.setdefault(endpoint.id, []).append(now + keep)
            self._end(attempt, outcome)

    def failed(self, attempt: _Attempt, kind: OutcomeKind) -> None:
        if not attempt.is_over:
            self._end(attempt, Outcome(kind, self.loop.now - attempt.began, is_warm=attempt.is_warm))

    def _advance(self, request: Request, outcome: Outcome | None) -> None:
        flow = request.flow
        assert flow is not None
        try:
            step: Step = flow.send(outcome)
        except StopIteration as stop:
            self._finish(request, stop.value)
            return
        if isinstance(step, Sleep):
            self.loop.after(step.seconds, self._advance, request, None)
            return
        if request.unread is not None:  # another attempt follows
            request.unread.close()
            request.unread = None
        self._send(request, step)
        if step.race is not None:
            self.loop.after(step.race.delay, self._late, request, step)

    def _send(self, request: Request, send: Send) -> None:
        loop, id = self.loop, send.endpoint.id
        is_warm = False
        idle = self._idle.get(id)
        if idle and not send.is_fresh:
            is_warm = idle.pop() > loop.now
            if not is_warm:
                idle.clear()  # the youngest is too old
        attempt = _Attempt(self, request, send, self._servers[id], is_warm)
        if self._redraw is not None and request.attempts:
            attempt.work = self._redraw()
        request.attempts += 1
        request.running.append(attempt)
        loop.after(self._trip * (0.5 if is_warm else 1.5), attempt.server.accept, attempt)
        deadline = request.call.deadline
        limit = loop.now + self._timeout
        if deadline is not None and deadline < limit:
            loop.at(max(deadline, loop.now), self._time_out, attempt, OutcomeKind.EXPIRED)
        elif limit < inf:
            loop.at(limit, self._time_out, attempt, OutcomeKind.NO_ANSWER)

    def _time_out(self, attempt: _Attempt, kind: OutcomeKind) -> None:
        if not attempt.is_over:
            self._break_off(attempt)
            self._end(attempt, Outcome(kind, self.loop.now - attempt.began, is_warm=attempt.is_warm))

    def _break_off(self, attempt: _Attempt) -> None:
        attempt.is_over = True
        attempt.server.abandon(attempt)

    def _late(self, request: Request, first: Send) -> None:
        """The race's first attempt is out for longer than usual."""
        assert first.race is not None
        if any(attempt.send is first for attempt in request.running):
            second = first.race.late()
            if second is not None:
                second.race = first.race
                self._send(request, second)

    def _end(self, attempt: _Attempt, outcome: Outcome) -> None:
        """An attempt has ended."""
        request, now = attempt.request, self.loop.now
        attempt.is_over = True
        request.running.remove(attempt)
        race = attempt.send.race
        if race is not None:
            if not race.ended(attempt.send, outcome):
                if outcome.has_response:
                    request.spoilt.append(attempt.send.ticket)
                return
            for other in request.running:
                self._break_off(other)
            race.broken_off(now)
            request.running.clear()
            while request.spoilt:
                request.spoilt.pop().close()
        if outcome.has_response:
            request.unread = attempt.send.ticket
        request.outcome = outcome
        if self._learn is not None:
            self._learn(attempt.send.endpoint, outcome, now)
        self._advance(request, outcome)

    def _finish(self, request: Request, end: End) -> None:
        if request.end is not None:
            raise AssertionError("a request ended twice")
        request.end = end
        if request.unread is not None:  # the body comes with the head
            request.unread.close()
        self._over(request)

    def _note(self, event: Event) -> None:
        self.events[type(event).__name__] += 1
