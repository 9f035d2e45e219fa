"""What happens in one call: a generator that says where to send, is told what came of it, and decides what follows.

The conversation, driven by a sync and by an async shell alike::

    flow = caller.flow(call)
    step = next(flow)                    # Send: make this attempt, at step.endpoint; Read: the body; or Sleep: wait
    step = flow.send(outcome)            # what came of it (None after a Sleep); the next step, or ...
    StopIteration.value                  # ... the End: hand over what the last attempt gave, or say why there was none

Feedback can't get lost: the flow opens a `Ticket` before each `Send`, reports each outcome to the endpoint, and closes the
ticket itself, except where a response came: that one belongs to the response's body, which the shell closes if the response is
discarded for another attempt. Closing the generator (a cancelled call) closes an open ticket.

What is tried again stands in `calling.retries`; a `Send` with a ``race`` may be hedged, see `calling.hedging`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from random import Random
from typing import TypeAlias

from ..balancing.view import View
from ..model.events import AttemptEnded, AttemptStarted, BudgetExhausted, Event
from ..model.outcome import UNAVAILABLE, Outcome, OutcomeKind
from ..model.schedule import full_jitter
from .hedging import Race
from .learning import learn
from .ledger import Ledger
from .retries import RETRIES, Cause, cause_of
from .steps import READ, Call, End, Send, Sleep, Step

__all__ = ["DOUBTFUL", "CallFlow", "Caller"]

CallFlow: TypeAlias = Generator[Step, Outcome | None, End]


DOUBTFUL = UNAVAILABLE | {421, 429}
"""Statuses after which another attempt may follow."""


class Caller:
    """Calls one service as one client wants it. *view* gives the newest view each time it is asked."""

    def __init__(
        self,
        view: Callable[[], View],
        ledger: Ledger,
        *,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self.ledger = ledger
        self.emit = emit
        self.clock = clock
        self.rng = rng
        self._view = view

    def begin(self, call: Call, now: float) -> Send | End:
        """The first attempt to make, or why there is none.

        For a shell that can't afford a generator for what nearly always happens: it makes the attempt, and asks `is_done`; if
        that is not so, the rest is told to a `flow` of this attempt. Until then the ticket is the shell's to close.
        """
        ledger = self.ledger
        if ledger.is_guarded:
            refusal = ledger.admit(self._view().endpoints, now, self.rng)
            if refusal is not None:
                ledger.count("throttled")
                self.emit(refusal)
                return End.THROTTLED
        if call.deadline is not None and now >= call.deadline:
            return End.EXPIRED
        send = self.pick(1, now, call, call.exclude)
        if send is None:
            return End.NO_INSTANCES
        ledger.record(now)
        return send

    def is_done(self, send: Send, status: int, latency: float, now: float, *, is_warm: bool) -> bool:
        """Whether a first attempt's answer of *status* ends the call, and was learnt from: as a rule it does.

        Else a flow of the attempt is to be told its outcome. Not for calls with hooks, hedges or a body that is wanted whole.
        """
        ticket = send.ticket
        if status in DOUBTFUL or ticket.is_probe or self.ledger.is_curious:
            return False
        endpoint = ticket.endpoint
        if status >= 500:
            endpoint.note_server_error()
        window = self.ledger.policies.outlier.success_window
        endpoint.learn_success(ticket, latency, now, is_warm=is_warm, window=window)
        return True

    def flow(self, call: Call, send: Send | None = None) -> CallFlow:
        """See the module. *send*: what `begin` has given, which is then the first that is yielded."""
        ledger, clock = self.ledger, self.clock
        if send is None:
            first = self.begin(call, clock())
            if isinstance(first, End):
                return first
            send = first
        now = send.began
        progress: _Progress | None = None
        while True:
            if call.info is not None:
                self.announce(send, call)
            if ledger.hedges is not None and call.is_idempotent and call.is_replayable:
                progress = progress or _Progress(self, call)
                send.race = progress.race(send, now)
            try:
                outcome = yield send
            except BaseException:
                send.ticket.close()
                if send.race is not None:
                    send.race.given_up()
                raise
            assert outcome is not None
            if send.race is not None and progress is not None:
                progress.count_sent(send.race.abandoned)
                send = send.race.winner
            now = clock()
            is_learnt = False
            cause = cause_of(outcome)
            if call.is_whole and cause is None and outcome.kind is OutcomeKind.RESPONSE:
                # Nothing is handed over before all is there: until then it may be tried again, and the verdict waits.
                is_learnt = (
                    send.ticket.is_probe
                )  # for whose verdict others wait, and a body may go on for days
                if is_learnt:
                    learn(send, outcome, ledger, now, self.rng, self.emit)
                else:
                    send.ticket.heard(now)
                broken_off = yield READ
                now = clock()
                if broken_off is not None:
                    outcome, cause, is_learnt = broken_off, cause_of(broken_off), False
            if not is_learnt:
                learn(send, outcome, ledger, now, self.rng, self.emit)
            if not outcome.has_response:
                send.ticket.close()
            wait: float | None = None
            if cause is not None:
                progress = progress or _Progress(self, call)
                wait = progress.wait_before(cause, outcome, send, now)
            if call.info is not None:
                self.report(send, outcome, call, cause if wait is not None else None)
            following = None
            if cause is not None and wait is not None:
                if wait:
                    yield Sleep(wait)
                    now = clock()
                if call.deadline is None or now < call.deadline:
                    following = progress.follow(send, cause, now) if progress is not None else None
            if following is None:
                is_gone = send.endpoint.is_held and outcome.kind in (
                    OutcomeKind.NOT_SENT,
                    OutcomeKind.MISDIRECTED,
                )
                return End.NO_INSTANCES if is_gone and self._is_nobody_left(call) else End.DELIVER
            send = following

    def pick(self, number: int, now: float, call: Call, tried: frozenset[str]) -> Send | None:
        """Pick, count it in flight, and only then look whether it is leaving: so a drain that is seen is never missed."""
        while True:
            current = self._view()
            endpoint = current.pick(now, tried, call.key, call.version)
            if endpoint is None or endpoint.id in tried:  # a balancer of the user's may pay no heed
                return None
            ticket = endpoint.start(now)
            if not endpoint.is_retired:
                return Send(ticket, number, current, now)
            ticket.close()
            tried |= {endpoint.id}

    def has_other(self, now: float, call: Call, tried: frozenset[str]) -> bool:
        """Whether there is anybody that was not tried."""
        endpoint = self._view().pick(now, tried, call.key, call.version)
        return endpoint is not None and endpoint.id not in tried

    def announce(self, send: Send, call: Call, *, is_hedge: bool = False) -> None:
        assert call.info is not None
        headers: dict[str, str] = {}
        self.emit(AttemptStarted(call.info, send.number, send.endpoint.instance, is_hedge, headers))
        send.headers = headers

    def report(self, send: Send, outcome: Outcome, call: Call, retry: Cause | None) -> None:
        assert call.info is not None
        reason = None if retry is None else str(retry)
        self.emit(AttemptEnded(call.info, send.number, send.endpoint.instance, outcome, reason))

    def _is_nobody_left(self, call: Call) -> bool:
        """Whether all there was had vanished from the registry before, and now turned out to be gone."""
        endpoints = self._view().endpoints.values()
        return all(endpoint.is_retired or endpoint.id in call.exclude for endpoint in endpoints)


class _Progress:
    """The state of a call that takes more than one attempt, or may."""

    def __init__(self, caller: Caller, call: Call) -> None:
        self._caller = caller
        self._call = call
        self._tried = call.exclude
        self._made = 1
        """Attempts so far."""
        self._sent = 0
        """Those of them that ended, and may have reached an instance's application."""
        self._backoff: Iterator[float] | None = None
        policy = caller.ledger.policies.retry
        self._most = policy.max_attempts if call.retries is None else call.retries + 1
        self._most_sent = policy.max_attempts_sent

    def count_sent(self, attempts: int) -> None:
        """So many more that ended may have reached an instance's application."""
        self._sent += attempts

    def wait_before(self, cause: Cause, outcome: Outcome, send: Send, now: float) -> float | None:
        """Seconds to wait before the next attempt; ``None`` if there must not be one, or there is nobody to send it to."""
        call, rule = self._call, RETRIES[cause]
        policy = self._caller.ledger.policies.retry
        self._sent += rule.was_sent
        if (
            self._made >= self._most
            or self._sent >= self._most_sent
            or not rule.allows(is_idempotent=call.is_idempotent, is_replayable=call.is_replayable)
        ):
            return None
        wait = 0.0
        if self._made > 1 and not rule.is_same:
            if self._backoff is None:
                self._backoff = full_jitter(
                    self._caller.rng, first=policy.backoff_first, cap=policy.backoff_cap
                )
            wait = next(self._backoff)
        if cause is Cause.OVERLOADED and outcome.retry_after is not None:
            if call.deadline is None and outcome.retry_after > policy.max_retry_after:
                return None
            wait = max(wait, outcome.retry_after)
        if call.deadline is not None and now + wait >= call.deadline:
            return None
        return wait if self._is_affordable(cause, send, now) else None

    def _is_affordable(self, cause: Cause, send: Send, now: float) -> bool:
        """Whether there is somebody to send it to, and the budget allows it."""
        caller, ledger = self._caller, self._caller.ledger
        if not (RETRIES[cause].is_same and not send.endpoint.is_retired):
            self._tried |= {send.endpoint.id}
            if not caller.has_other(now, self._call, self._tried):
                return False
        if ledger.budget.try_spend(now):
            return True
        ledger.count("budget_exhausted")
        caller.emit(BudgetExhausted(ledger.service, str(cause)))
        return False

    def follow(self, send: Send, cause: Cause, now: float) -> Send | None:
        """The next attempt, which was paid for; ``None`` if nobody is left by now."""
        caller, call, ledger = self._caller, self._call, self._caller.ledger
        following = self._again(send, now) if RETRIES[cause].is_same else None
        if following is None:
            self._tried |= {send.endpoint.id}
            following = caller.pick(self._made + 1, now, call, self._tried)
        if following is not None:
            self._made += 1
            ledger.count(f"retries.{cause}")
        return following

    def race(self, send: Send, now: float) -> Race | None:
        """A race for this attempt, if it is known when it is late, and one more may be sent."""
        ledger, caller, call = self._caller.ledger, self._caller, self._call
        policy, latencies, hedges = ledger.policies.hedge, ledger.latencies, ledger.hedges
        assert policy is not None
        assert latencies is not None
        assert hedges is not None
        if self._made >= self._most or self._sent + 2 > self._most_sent:
            return None
        late = latencies.quantile(policy.percentile, now, least=policy.min_samples)
        if late is None:
            return None

        def start() -> Send | None:
            now = caller.clock()
            if call.deadline is not None and now >= call.deadline:
                return None
            self._tried |= {send.endpoint.id}
            if not caller.has_other(now, call, self._tried) or not hedges.try_spend(now):
                return None
            second = caller.pick(self._made + 1, now, call, self._tried)
            if second is None:
                return None
            self._made += 1
            self._tried |= {second.endpoint.id}
            ledger.count("hedges")
            if call.info is not None:
                caller.announce(second, call, is_hedge=True)
            return second

        def judge(loser: Send, outcome: Outcome) -> None:
            learn(loser, outcome, ledger, caller.clock(), caller.rng, caller.emit)
            cause = cause_of(outcome)
            self._sent += cause is None or RETRIES[cause].was_sent
            if not outcome.has_response:
                loser.ticket.close()
            if call.info is not None:
                caller.report(loser, outcome, call, None)

        return Race(send, max(late, policy.min_delay), start=start, judge=judge)

    def _again(self, send: Send, now: float) -> Send | None:
        """To the same endpoint, on a new connection; ``None`` if it is leaving."""
        ticket = send.endpoint.start(now)
        if not send.endpoint.is_retired:
            return Send(ticket, self._made + 1, send.view, now, is_fresh=True)
        ticket.close()
        return None
