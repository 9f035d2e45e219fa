"""What holds whatever happens, in whatever order: calls, races, cancellations, changes of the fleet, against a model."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.calling import retries
from discoclient.calling.flow import CallFlow
from discoclient.calling.hedging import Race
from discoclient.calling.retries import RETRIES, Cause, Rule
from discoclient.calling.steps import Call, End, Send, Sleep
from discoclient.model.instance import State
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import HedgePolicy, OutlierPolicy, RetryPolicy
from tests.balancing.fleet import BALANCERS, fleet, instance
from tests.calling.scene import GET, NO_ANSWER, NOT_SENT, OK, POST, Scene, answer
from tests.support.properties import thorough

outcomes = st.builds(
    Outcome,
    st.sampled_from(OutcomeKind),
    st.sampled_from([0.0, 0.001, 0.05, 0.4]),
    st.sampled_from([200, 404, 429, 500, 502, 503]),
    st.booleans(),
    st.sampled_from([None, None, 0.0, 0.1, 30.0]),
)


# ---- in flight


@dataclass
class Waiting:
    """A call that was sent, with what of it is out: one attempt, or two in a race."""

    flow: CallFlow
    race: Race | None
    out: list[Send]

    @property
    def may_be_late(self) -> bool:
        return self.race is not None and not self.race.is_asked and len(self.out) == 1


class Calls(RuleBasedStateMachine):
    """Many calls at once, each at any point of its life; bodies are read at any later time."""

    @initialize(seed=st.integers(0, 9), balancer=st.sampled_from(BALANCERS))
    def begin(self, seed: int, balancer: str) -> None:
        self.scene = Scene(
            4,
            balancer=balancer,
            seed=seed,
            latency=0.01,
            hedge=HedgePolicy(budget=1.0, min_samples=1),
            retry=RetryPolicy(max_attempts=4, max_attempts_sent=4),
        )
        for _ in range(5):
            self.scene.call([OK], POST)
        self.scene.now += 1.5
        self.waiting: list[Waiting] = []
        self.sleeping: list[tuple[CallFlow, Send | None]] = []
        self.bodies: list[Ticket] = []
        self.everybody = dict(self.scene.endpoints)

    def go_on(self, flow: CallFlow, give: Outcome | None, response: Send | None) -> None:
        """*response* is open, and its body belongs to us."""
        try:
            step = flow.send(give)
        except StopIteration:
            if response is not None:
                self.bodies.append(response.ticket)
            return
        if isinstance(step, Sleep):
            self.sleeping.append((flow, response))
            return
        if response is not None:
            response.ticket.close()
        self.waiting.append(Waiting(flow, step.race, [step]))

    @rule(call=st.sampled_from([GET, GET, POST]))
    def call(self, call: Call) -> None:
        self.go_on(self.scene.caller.flow(call), None, None)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), outcome=outcomes)
    def an_attempt_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        call = self.waiting.pop(index)
        send = call.out.pop(data.draw(st.integers(0, len(call.out) - 1)))
        if call.race is not None:
            if not call.race.ended(send, outcome):
                if outcome.has_response:
                    send.ticket.close()
                self.waiting.append(call)
                return
            call.race.broken_off(self.scene.now)
        self.go_on(call.flow, outcome, send if outcome.has_response else None)

    @precondition(lambda self: any(call.may_be_late for call in self.waiting))
    @rule(data=st.data())
    def an_attempt_is_late(self, data: st.DataObject) -> None:
        late = [call for call in self.waiting if call.may_be_late]
        call = late[data.draw(st.integers(0, len(late) - 1))]
        assert call.race is not None
        second = call.race.late()
        if second is not None:
            call.out.append(second)

    @precondition(lambda self: self.sleeping)
    @rule()
    def somebody_wakes(self) -> None:
        flow, response = self.sleeping.pop(0)
        self.scene.now += 0.1
        self.go_on(flow, None, response)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), how=st.sampled_from(["close", "throw", "drop"]))
    def a_call_is_given_up(self, data: st.DataObject, how: str) -> None:
        call = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        if how == "close":
            call.flow.close()
        elif how == "throw":
            with pytest.raises(KeyboardInterrupt):
                call.flow.throw(KeyboardInterrupt())

    @precondition(lambda self: self.sleeping)
    @rule()
    def a_sleeping_call_is_given_up(self) -> None:
        flow, response = self.sleeping.pop()
        flow.close()
        if response is not None:
            response.ticket.close()

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def a_body_ends(self, data: st.DataObject) -> None:
        self.bodies.pop(data.draw(st.integers(0, len(self.bodies) - 1))).close()

    @rule(seconds=st.sampled_from([0.1, 2.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene.now += seconds

    @rule(number=st.integers(0, 3))
    def one_leaves_and_another_comes(self, number: int) -> None:
        endpoints = self.scene.endpoints
        gone = endpoints.pop(sorted(endpoints)[number])
        made = Endpoint(instance(len(self.everybody)), now=self.scene.now, latency=0.01)
        endpoints[made.id] = self.everybody[made.id] = made
        self.scene.publish()
        gone.retire()

    @invariant()
    def what_is_in_flight_is_what_is_open(self) -> None:
        if not hasattr(self, "scene"):
            return
        tickets = [send.ticket for call in self.waiting for send in call.out]
        tickets += [response.ticket for _, response in self.sleeping if response is not None]
        tickets += self.bodies
        assert all(ticket.is_open for ticket in tickets)
        for endpoint in self.everybody.values():
            assert endpoint.in_flight == sum(ticket.endpoint is endpoint for ticket in tickets)

    def teardown(self) -> None:
        if not hasattr(self, "scene"):
            return
        for call in self.waiting:
            call.flow.close()
        for flow, response in self.sleeping:
            flow.close()
            if response is not None:
                response.ticket.close()
        for ticket in self.bodies:
            ticket.close()
        assert [endpoint.in_flight for endpoint in self.everybody.values()] == [0] * len(self.everybody)


TestCalls = Calls.TestCase
TestCalls.settings = thorough(60, steps=40)


# ---- retries stay inside the budget, in every window


@thorough(60)
@given(
    share=st.sampled_from([0.0, 0.1, 0.2]),
    reserve=st.sampled_from([0.0, 0.3]),
    script=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.05, 1.0, 9.9, 10.0, 12.0]),
            st.sampled_from([NOT_SENT, NO_ANSWER, OK, answer(503)]),
            st.integers(1, 12),
        ),
        max_size=25,
    ),
)
def test_retries_are_within_the_budget_in_every_window(
    share: float, reserve: float, script: list[tuple[float, Outcome, int]]
) -> None:
    scene = Scene(
        6,
        retry=RetryPolicy(budget=share, budget_reserve=reserve, max_attempts=4, max_attempts_sent=4),
        outlier=OutlierPolicy(max_ejected=0.0),
    )
    requests: list[float] = []
    again: list[float] = []
    for pause, outcome, count in script:
        scene.now += pause
        for _ in range(count):
            requests.append(scene.now)
            trace = scene.call([outcome] * 9)
            again += trace.at[1:]
    for end in again:
        edge = end - 10.0
        used = sum(edge < at <= end for at in again)
        assert used <= share * sum(edge < at <= end for at in requests) + reserve * 10.0
    assert scene.ledger.stats()["retries"] == len(again)


# ---- what might have run is not run again


def attempts_that_may_have_run(outcomes: list[Outcome]) -> int:
    """Those that reached an application, as far as one can know."""
    unsent = (OutcomeKind.NOT_SENT, OutcomeKind.MISDIRECTED)
    return sum(outcome.kind not in unsent for outcome in outcomes)


def random_outcome(rng: Random) -> Outcome:
    return Outcome(
        rng.choice(list(OutcomeKind)),
        rng.choice([0.0, 0.001, 0.05, 0.4]),
        rng.choice([200, 404, 429, 500, 502, 503]),
        retry_after=rng.choice([None, None, 0.0, 0.1, 30.0]),
    )


def never_runs_twice() -> None:
    """Seeded, and not left to hypothesis: the controls fail, and the smallest example is of no interest."""
    for seed in range(600):
        rng = Random(seed)
        is_replayable = rng.random() < 0.7
        scene = Scene(
            rng.randint(1, 8),
            seed=seed,
            hedge=HedgePolicy(budget=1.0, min_samples=1) if seed % 2 else None,
            retry=RetryPolicy(max_attempts=9, max_attempts_sent=9),
        )
        for _ in range(3):
            scene.call([OK])
        scene.now += 1.5
        script = [random_outcome(rng) for _ in range(12)]
        trace = scene.call(script, Call(is_idempotent=False, is_replayable=is_replayable))
        made = [outcome for outcome in trace.outcomes if outcome is not None]
        assert len(made) == len(trace.sends)
        assert attempts_that_may_have_run(made) <= 1
        if not is_replayable:  # its body is gone once a byte of it was sent
            assert sum(outcome.kind is not OutcomeKind.NOT_SENT for outcome in made) <= 1


def test_what_is_not_idempotent_runs_once_at_most() -> None:
    never_runs_twice()


@pytest.mark.parametrize("cause", [Cause.NO_ANSWER, Cause.UNAVAILABLE, Cause.STALE, Cause.OVERLOADED])
def test_a_table_that_is_wrong_in_one_row_is_caught(cause: Cause, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: POST is retried after a read timeout, a 503, ..."""
    rule = RETRIES[cause]
    wrong = Rule(any_method=True, needs_body=rule.needs_body, was_sent=rule.was_sent, is_same=rule.is_same)
    monkeypatch.setattr("discoclient.calling.flow.RETRIES", {**retries.RETRIES, cause: wrong})
    with pytest.raises(AssertionError):
        never_runs_twice()


@thorough(200)
@given(
    seed=st.integers(0, 10_000),
    limits=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    size=st.integers(1, 9),
    deadline=st.sampled_from([None, 0.01, 0.3, 2.0]),
)
def test_the_limits_hold_with_hedging_too(
    seed: int, limits: tuple[int, int], size: int, deadline: float | None
) -> None:
    """A hedge is an attempt, and one that may have arrived; but the first attempt may always have one beside it."""
    scene = Scene(
        size,
        seed=seed,
        hedge=HedgePolicy(budget=1.0, min_samples=1, percentile=0.0),
        retry=RetryPolicy(max_attempts=limits[0], max_attempts_sent=limits[1], backoff_cap=0.0),
        outlier=OutlierPolicy(max_ejected=0.0),
    )
    for _ in range(3):
        scene.call([OK])
    scene.now += 1.5
    until = None if deadline is None else scene.now + deadline
    rng = Random(seed)
    trace = scene.call(lambda send: random_outcome(rng), Call(True, True, deadline=until))
    assert len(trace.sends) <= max(2, limits[0])
    assert len(set(trace.numbers)) == len(trace.numbers)
    counted = [
        outcome for outcome in trace.outcomes if outcome is None or outcome.kind is not OutcomeKind.STALE
    ]
    sent = sum(outcome is None or attempts_that_may_have_run([outcome]) for outcome in counted)
    assert sent <= max(2, limits[1])
    fresh = sum(send.is_fresh for send in trace.sends)
    assert len(set(trace.ids)) == len(trace.ids) - fresh
    assert until is None or all(at < until for at in trace.at)
    assert scene.in_flight == 0


# ---- a failure never looks attractive

moments = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "learn", "learn", "close", "wait"]),
        st.sampled_from([0.0, 0.01, 0.5, 2.0, 8.0, 40.0]),
        outcomes,
        st.integers(0, 5),
    ),
    max_size=25,
)


@thorough(250)
@given(latency=st.sampled_from([0.0, 0.01, 3.0]), script=moments)
@example(
    latency=0.01,
    script=[
        ("start", 0.0, OK, 0),
        ("start", 2.0, OK, 0),
        ("close", 2.0, OK, 0),
        ("learn", 0.5, NO_ANSWER, 0),
    ],
)
@example(latency=0.01, script=[("start", 0.0, OK, 0), ("learn", 40.0, NO_ANSWER._replace(latency=40.0), 0)])
def test_a_failed_outcome_never_lowers_a_cost(
    latency: float, script: list[tuple[str, float, Outcome, int]]
) -> None:
    endpoint = Endpoint(instance(1), now=0.0, latency=latency)
    now = 0.0
    out: list[tuple[Ticket, float]] = []
    for what, pause, outcome, which in script:
        now += pause
        if what == "start":
            out.append((endpoint.start(now), now))
        elif out and what != "wait":
            ticket, began = out.pop(which % len(out))
            if what == "learn" and outcome.kind not in (OutcomeKind.LOCAL, OutcomeKind.STALE):
                took = outcome._replace(latency=now - began)
                before = endpoint.cost(now)
                endpoint.learn(ticket, took, now, OutlierPolicy(), lambda endpoint: "off", Random(1))
                if took.is_failure:
                    assert endpoint.cost(now) >= before * 0.999999
            ticket.close()


@thorough(200)
@given(
    latency=st.sampled_from([0.0, 0.02, 5.0]),
    script=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.01, 7.0, 31.0]),
            st.sampled_from([0.0, 0.001, 0.5, 50.0]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=20,
    ),
)
def test_the_short_way_of_a_good_answer_teaches_what_the_long_one_does(
    latency: float, script: list[tuple[float, float, bool, bool]]
) -> None:
    """`Endpoint.learn_success` against `Endpoint.learn`."""
    short, long = (Endpoint(instance(1), now=0.0, latency=latency) for _ in range(2))
    policy = OutlierPolicy(success_window=10.0, min_success_rate=0.0)
    now = 0.0
    for pause, took, is_warm, is_good in script:
        now += pause
        outcome = Outcome(OutcomeKind.RESPONSE, took, 200 if is_good else 503, is_warm)
        tickets = [short.start(now), long.start(now)]
        if is_good:
            short.learn_success(tickets[0], took, now, is_warm=is_warm, window=10.0)
        else:
            short.learn(tickets[0], outcome, now, policy, lambda endpoint: "off", Random(1))
        long.learn(tickets[1], outcome, now, policy, lambda endpoint: "off", Random(1))
        assert short.cost(now + 0.5) == long.cost(now + 0.5)
        assert short.accrual.success_rate(now, 10.0) == long.accrual.success_rate(now, 10.0)
        assert (short.failures, short.accrual.in_a_row) == (long.failures, long.accrual.in_a_row)
        for ticket in tickets:
            ticket.close()
        assert short.cost(now) == long.cost(now)


# ---- ejection


@thorough(40)
@given(
    size=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
    bad=st.sets(st.integers(0, 7)),
    outcome=st.sampled_from([NOT_SENT, NO_ANSWER, answer(503)]),
    balancer=st.sampled_from(BALANCERS),
    seed=st.integers(0, 9),
)
def test_no_more_than_the_cap_are_ejected_and_everybody_is_back_when_the_faults_end(
    size: int, share: float, bad: set[int], outcome: Outcome, balancer: str, seed: int
) -> None:
    outlier = OutlierPolicy(max_ejected=share, base_ejection=2.0, max_ejection=8.0)
    scene = Scene(size, balancer=balancer, seed=seed, outlier=outlier, latency=0.01)
    ids = {f"instance-{number}" for number in bad}
    cap = 0 if share == 0 or size == 1 else max(1, int(size * share))

    def ejected() -> int:
        return sum(scene.now < endpoint.accrual.until for endpoint in scene.endpoints.values())

    for number in range(250):
        trace = scene.call(
            lambda send: outcome if send.endpoint.id in ids else OK, Call(True, True, key=number)
        )
        assert trace.end is End.DELIVER, "whatever is ejected, somebody is asked"
        assert ejected() <= cap
        scene.now += 0.05
    for number in range(400):
        scene.call([OK], Call(True, True, key=number))
        scene.now += 0.1
    assert ejected() == 0
    assert not any(endpoint.is_ejected(scene.now) for endpoint in scene.endpoints.values())
    assert not any(endpoint.accrual.ejections for endpoint in scene.endpoints.values()), "each passed a probe"


@pytest.mark.parametrize("balancer", BALANCERS)
def test_if_any_instance_exists_a_pick_never_fails(balancer: str) -> None:
    """Whatever was ejected and whatever is in flight."""

    @thorough(40)
    @given(
        weights=st.lists(st.sampled_from([0, 1, 100]), min_size=1, max_size=6),
        out=st.sets(st.integers(0, 5)),
        unready=st.sets(st.integers(0, 5)),
        busy=st.sets(st.integers(0, 5)),
        key=st.none() | st.integers(0, 50),
    )
    @example(weights=[0, 1], out=set(), unready={0, 1}, busy=set(), key=0)
    @example(weights=[0, 1], out={1}, unready={0, 1}, busy=set(), key=0)
    def holds(
        weights: list[float], out: set[int], unready: set[int], busy: set[int], key: int | None
    ) -> None:
        endpoints = fleet(len(weights), weights=weights)
        for number, endpoint in enumerate(endpoints):
            if number in unready:
                endpoint.update(instance(number, weight=weights[number], state=State.UNREADY))
            for _ in range(20 if number in busy else 0):
                endpoint.start(1000.0)
            if number in out:
                ticket = endpoint.start(1000.0)
                endpoint.learn(ticket, NOT_SENT, 1000.0, OutlierPolicy(), lambda endpoint: None, Random(1))
                ticket.close()
        scene = Scene(endpoints=endpoints, balancer=balancer)
        order: list[str] = []
        for _ in weights:
            endpoint = scene.view.pick(1000.0, order, key)  # type: ignore[assignment]
            assert endpoint is not None
            order.append(endpoint.id)
        assert scene.view.pick(1000.0, order, key) is None

    holds()
