"""An endpoint's counters against a model: whatever is started, judged, closed and closed again, in any order."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.balancing.endpoint import MAX_LATENCY, Endpoint, Ticket
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy
from tests.balancing.fleet import instance
from tests.support.properties import thorough

outcomes = st.builds(
    Outcome,
    st.sampled_from([OutcomeKind.RESPONSE, OutcomeKind.NOT_SENT, OutcomeKind.NO_ANSWER]),
    st.sampled_from([0.0, 0.001, 0.5, 60.0]),
    st.sampled_from([200, 404, 500, 503]),
)


class Accounting(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 9))
    def begin(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.endpoint = Endpoint(instance(1), now=0.0)
        self.open: list[Ticket] = []
        self.closed: list[Ticket] = []
        self.judged: list[Ticket] = []

    @rule()
    def start(self) -> None:
        was_on_probation = (
            self.endpoint.accrual.ejections > 0
            and not self.endpoint.is_ejected(self.now)
            and not any(ticket.is_probe for ticket in self.open)
        )
        ticket = self.endpoint.start(self.now)
        self.open.append(ticket)
        assert ticket.is_probe == was_on_probation

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        ticket.close()
        self.closed.append(ticket)

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def close_again(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.closed)).close()

    @precondition(lambda self: any(ticket not in self.judged for ticket in self.open))
    @rule(data=st.data(), outcome=outcomes, may=st.booleans())
    def learn(self, data: st.DataObject, outcome: Outcome, may: bool) -> None:
        left = [ticket for ticket in self.open if ticket not in self.judged]
        ticket = left[data.draw(st.integers(0, len(left) - 1))]
        self.judged.append(ticket)
        before = self.endpoint.cost(self.now)
        was_ejected = self.now < self.endpoint.accrual.until
        verdict = self.endpoint.learn(
            ticket,
            outcome,
            self.now,
            OutlierPolicy(),
            lambda endpoint: None if may else "max_ejected",
            self.rng,
        )
        is_new = verdict is not None and verdict.is_ejected
        if outcome.is_failure:
            assert self.endpoint.cost(self.now) >= before
        assert not (is_new and (was_ejected or not may or not outcome.is_failure))
        if is_new:
            assert self.endpoint.is_ejected(self.now)
            assert 2.5 <= self.endpoint.accrual.until - self.now <= 300.0

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_in_flight_is_what_is_open(self) -> None:
        assert self.endpoint.in_flight == len(self.open)

    @invariant()
    def latency_is_a_sane_number(self) -> None:
        assert 0.0 <= self.endpoint.latency(self.now) <= MAX_LATENCY

    @invariant()
    def one_probe_at_a_time(self) -> None:
        assert sum(ticket.is_probe for ticket in self.open) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "endpoint"):
            return
        for ticket in self.open:
            ticket.close()
        assert self.endpoint.in_flight == 0
        assert not self.endpoint.is_ejected(self.now + 300.0)  # nothing holds it for ever


TestAccounting = Accounting.TestCase
TestAccounting.settings = thorough(60, steps=40)
