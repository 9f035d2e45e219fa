"""What happens in one call: outcomes in, attempts out, and nothing left in flight. Virtual time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Container, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.balancer import Balancer, find_balancer
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import View, build_view
from discoclient.calling.flow import Caller, CallFlow
from discoclient.calling.ledger import Ledger, Policies
from discoclient.calling.steps import Call, End, Send, Sleep
from discoclient.model.events import Event
from discoclient.model.instance import State
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy, RetryPolicy
from discoclient.model.snapshot import Snapshot
from tests.balancing.fleet import BALANCERS, eject, fleet, instance
from tests.support.properties import thorough

GET = Call(is_idempotent=True, is_replayable=True)
POST = Call(is_idempotent=False, is_replayable=True)
STREAMED_PUT = Call(is_idempotent=True, is_replayable=False)
STREAMED_POST = Call(is_idempotent=False, is_replayable=False)

CALLS = {"get": GET, "post": POST, "streamed put": STREAMED_PUT, "streamed post": STREAMED_POST}

NOT_SENT = Outcome(OutcomeKind.NOT_SENT, 0.001)
NO_ANSWER = Outcome(OutcomeKind.NO_ANSWER, 0.1)
LOCAL = Outcome(OutcomeKind.LOCAL, 0.0)
OK = Outcome(OutcomeKind.RESPONSE, 0.01, 200)
BUSY = Outcome(OutcomeKind.RESPONSE, 0.01, 503)

ERROR = Outcome(OutcomeKind.RESPONSE, 0.01, 500)
STALE = Outcome(OutcomeKind.STALE, 0.001)
MISDIRECTED = Outcome(OutcomeKind.MISDIRECTED, 0.001, 421)
EXPIRED = Outcome(OutcomeKind.EXPIRED, 0.5)

LETTERS = {
    "R": NOT_SENT,
    "N": NO_ANSWER,
    "L": LOCAL,
    "+": OK,
    "5": BUSY,
    "e": ERROR,
    "S": STALE,
    "M": MISDIRECTED,
    "X": EXPIRED,
}
"""Refused, no answer, local, answered, answered with 503, with 500, stale, misdirected, deadline passed."""

ANSWERED = "+5eM"


class World:
    """A fleet, a clock, and calls through them."""

    def __init__(self, size: int = 5, *, balancer: str | Balancer = "random", seed: int = 1) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.balancer = find_balancer(balancer)
        self.endpoints = {endpoint.id: endpoint for endpoint in fleet(size)}
        self.events: list[Event] = []
        self.publish()

    def publish(self) -> None:
        instances = {id: endpoint.instance for id, endpoint in self.endpoints.items()}
        self.view = build_view(
            Snapshot("web", 1, instances), self.endpoints, Preferences(balancer=self.balancer), self.rng
        )

    def call(
        self,
        call: Call = GET,
        *,
        retry: RetryPolicy | None = None,
        outlier: OutlierPolicy | None = None,
        view: Callable[[], View] | None = None,
    ) -> CallFlow:
        policies = Policies(retry=retry or RetryPolicy(), outlier=outlier or OutlierPolicy())
        caller = Caller(
            view or (lambda: self.view),
            Ledger("web", policies),
            emit=self.events.append,
            clock=lambda: self.now,
            rng=self.rng,
        )
        return caller.flow(call)

    @property
    def in_flight(self) -> int:
        return sum(endpoint.in_flight for endpoint in self.endpoints.values())


def drive(flow: CallFlow, outcomes: Sequence[Outcome]) -> tuple[list[Send], End]:
    """Play *outcomes*; the attempts that were made and how it ended. Says so if it wanted more."""
    sends: list[Send] = []
    script = iter(outcomes)
    try:
        step = next(flow)
        while True:
            if isinstance(step, Sleep):
                step = flow.send(None)
                continue
            assert step.ticket.is_open
            assert step.endpoint.in_flight >= 1
            if sends:
                sends[-1].ticket.close()  # as the shell discards a response for another attempt
            sends.append(step)
            step = flow.send(next(script))
    except StopIteration as end:
        return sends, end.value


# ---- which outcomes lead to which attempts


@pytest.mark.parametrize(
    ("call", "script", "attempts"),
    [
        # an answer ends it, unless it says that it can't serve
        ("get", "+", 1),
        ("get", "e", 1),
        ("post", "5", 1),
        ("get", "5+", 2),
        ("get", "55", 2),
        ("streamed put", "5", 1),
        # somebody else lives there now, and did nothing: any method, if the body can be sent again
        ("get", "M+", 2),
        ("post", "M+", 2),
        ("post", "MM+", 3),
        ("streamed put", "M", 1),
        ("streamed post", "M", 1),
        # a connection that was used before is closed unanswered: the same instance again, once
        ("get", "S+", 2),
        ("get", "SR+", 3),
        ("post", "S", 1),
        ("streamed put", "S", 1),
        # nothing was sent: any method, any body, another instance
        ("get", "R+", 2),
        ("get", "RR+", 3),
        ("get", "RRR", 3),
        ("post", "R+", 2),
        ("post", "RRR", 3),
        ("streamed put", "R+", 2),
        ("streamed post", "RR+", 3),
        # sent and no answer: only what may run twice and can be sent again
        ("get", "N+", 2),
        ("get", "NN", 2),
        ("post", "N", 1),
        ("streamed put", "N", 1),
        ("streamed post", "N", 1),
        # one after the other
        ("get", "RN+", 3),
        ("get", "NR+", 3),
        ("get", "RNN", 3),
        ("get", "NRN", 3),
        ("get", "NRR", 3),
        ("post", "RN", 2),
        ("streamed post", "RN", 2),
        ("get", "R5+", 3),
        ("get", "N5", 2),
        # our own side failed: nobody else can do better
        ("get", "L", 1),
        ("post", "L", 1),
        ("get", "RL", 2),
        ("get", "NL", 2),
    ],
)
def test_what_follows_from_what(call: str, script: str, attempts: int) -> None:
    world = World()
    sends, end = drive(world.call(CALLS[call]), [LETTERS[letter] for letter in script])
    assert len(sends) == len(script) == attempts
    assert end is End.DELIVER
    assert [send.number for send in sends] == list(range(1, attempts + 1))
    assert len({send.endpoint.id for send in sends}) == attempts - script[:-1].count("S")
    answered = script[-1] in ANSWERED
    assert [send.ticket.is_open for send in sends] == [False] * (attempts - 1) + [answered]
    assert world.in_flight == answered
    sends[-1].ticket.close()
    assert world.in_flight == 0


@thorough(300)
@given(
    kinds=st.lists(st.sampled_from("RNL+5eMX"), min_size=10, max_size=10),
    call=st.sampled_from(list(CALLS.values())),
    limits=st.tuples(st.integers(1, 6), st.integers(1, 4)),
    retries=st.none() | st.integers(0, 6),
    size=st.integers(0, 6),
    excluded=st.sets(st.integers(0, 6)),
    balancer=st.sampled_from(BALANCERS),
)
def test_the_rules_hold_for_every_script(
    kinds: list[str],
    call: Call,
    limits: tuple[int, int],
    retries: int | None,
    size: int,
    excluded: set[int],
    balancer: str,
) -> None:
    """A second telling of the rules, to compare with."""
    world = World(size, balancer=balancer)
    exclude = frozenset(f"instance-{number}" for number in excluded)
    call = Call(call.is_idempotent, call.is_replayable, exclude, retries)
    retry = RetryPolicy(max_attempts=limits[0], max_attempts_sent=limits[1])
    sends, end = drive(world.call(call, retry=retry), [LETTERS[kind] for kind in kinds])

    available = len(world.endpoints.keys() - exclude)
    most = min(limits[0] if retries is None else retries + 1, available)
    expected = 0
    while expected < most:
        kind = kinds[expected]
        expected += 1
        sent = sum(earlier in "N5" for earlier in kinds[:expected])
        is_harmless = kind == "R" or (kind == "M" and call.is_replayable)
        may_repeat = is_harmless or (kind in "N5" and call.is_idempotent and call.is_replayable)
        if not may_repeat or sent >= limits[1]:
            break
    assert len(sends) == expected
    assert end is (End.DELIVER if available else End.NO_INSTANCES)
    ids = [send.endpoint.id for send in sends]
    assert len(set(ids)) == len(ids)
    assert not exclude & set(ids)
    is_answered = bool(sends) and kinds[len(sends) - 1] in ANSWERED
    assert world.in_flight == is_answered


# ---- knobs


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_max_attempts_bounds_all_of_them(limit: int) -> None:
    sends, _ = drive(World(9).call(retry=RetryPolicy(max_attempts=limit)), [NOT_SENT] * 9)
    assert len(sends) == limit


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_max_attempts_sent_bounds_those_that_may_have_arrived(limit: int) -> None:
    retry = RetryPolicy(max_attempts=9, max_attempts_sent=limit)
    sends, _ = drive(World(9).call(retry=retry), [NO_ANSWER] * 9)
    assert len(sends) == limit
    sends, _ = drive(World(9).call(retry=retry), [NOT_SENT] * 3 + [NO_ANSWER] * 9)
    assert len(sends) == 3 + limit


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3), (7, 8)])
def test_retries_of_one_call_stand_in_place_of_max_attempts(retries: int, attempts: int) -> None:
    call = Call(True, True, retries=retries)
    assert len(drive(World(9).call(call, retry=RetryPolicy(max_attempts=2)), [NOT_SENT] * 9)[0]) == attempts


def test_retries_of_one_call_do_not_lift_the_bound_of_what_may_have_arrived() -> None:
    assert len(drive(World(9).call(Call(True, True, retries=7)), [NO_ANSWER] * 9)[0]) == 2


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_consecutive_failures_is_when_an_endpoint_is_ejected(limit: int) -> None:
    world = World(2)
    outlier = OutlierPolicy(consecutive_failures=limit)
    for number in range(1, limit + 1):
        call = Call(False, False, exclude=frozenset({"instance-1"}))
        drive(world.call(call, outlier=outlier), [NO_ANSWER])
        assert world.endpoints["instance-0"].is_ejected(world.now) == (number == limit)


def ejection(**settings: float) -> float:
    """How long at most an endpoint is ejected that refuses a connection."""
    longest = 0.0
    for seed in range(100):
        world = World(2, seed=seed)
        call = Call(False, False, exclude=frozenset({"instance-1"}), retries=0)
        drive(world.call(call, outlier=OutlierPolicy(**settings)), [NOT_SENT])
        longest = max(longest, world.endpoints["instance-0"].accrual.until)
    return longest


@pytest.mark.parametrize("base", [1.0, 5.0, 30.0])
def test_base_ejection_is_how_long_it_is_left_alone_first(base: float) -> None:
    assert 0.95 * base < ejection(base_ejection=base) <= base


@pytest.mark.parametrize("longest", [1.0, 4.0, 16.0])
def test_max_ejection_is_how_long_it_is_left_alone_at_most(longest: float) -> None:
    world = World(2)
    outlier = OutlierPolicy(base_ejection=1.0, max_ejection=longest)
    call = Call(False, False, exclude=frozenset({"instance-1"}), retries=0)
    spans = []
    for _ in range(40):
        drive(world.call(call, outlier=outlier), [NOT_SENT])
        spans.append(world.endpoints["instance-0"].accrual.until - world.now)
        world.now = world.endpoints["instance-0"].accrual.until
    assert 0.8 * longest < max(spans) <= longest


def ejected(size: int, **settings: float) -> int:
    """How many are ejected after all of them refused."""
    world = World(size)
    outlier = OutlierPolicy(**settings)
    for _ in range(3):
        for endpoint in world.endpoints.values():
            others = frozenset(world.endpoints) - {endpoint.id}
            drive(world.call(Call(False, False, exclude=others, retries=0), outlier=outlier), [NOT_SENT])
    return sum(endpoint.is_ejected(world.now) for endpoint in world.endpoints.values())


@pytest.mark.parametrize(
    ("size", "share", "most"),
    [
        (10, 0.5, 5),
        (10, 0.25, 2),
        (10, 1.0, 10),
        (10, 0.01, 1),
        (10, 0.0, 0),
        (3, 0.5, 1),
        (2, 0.5, 1),
        (5, 0.5, 2),
    ],
)
def test_max_ejected_is_the_share_that_may_be_left_alone_at_once(size: int, share: float, most: int) -> None:
    assert ejected(size, max_ejected=share) == most


def test_the_only_one_is_never_ejected() -> None:
    assert ejected(1, max_ejected=1.0) == 0


def test_who_leaves_does_not_count_among_those_who_are_left() -> None:
    """Of four of which two drain, one may be ejected, not two."""
    world = World(4)
    for number in (2, 3):
        world.endpoints[f"instance-{number}"].update(instance(number, state=State.DRAINING))
    world.publish()
    for number in (0, 1):
        others = frozenset(world.endpoints) - {f"instance-{number}"}
        drive(world.call(Call(False, False, exclude=others, retries=0)), [NOT_SENT])
    assert sum(endpoint.is_ejected(world.now) for endpoint in world.endpoints.values()) == 1


# ---- whom it goes to


def test_with_nobody_there_it_says_so_at_once() -> None:
    sends, end = drive(World(0).call(), [])
    assert (sends, end) == ([], End.NO_INSTANCES)


def test_with_everybody_excluded_it_says_so_at_once() -> None:
    world = World(2)
    sends, end = drive(world.call(Call(True, True, exclude=frozenset(world.endpoints))), [])
    assert (sends, end) == ([], End.NO_INSTANCES)


def test_when_nobody_else_is_left_the_last_outcome_is_the_callers() -> None:
    sends, end = drive(World(2).call(), [NOT_SENT, NOT_SENT])
    assert len(sends) == 2
    assert end is End.DELIVER


def test_who_is_excluded_is_not_sent_to_by_retries_either() -> None:
    world = World(3)
    sends, _ = drive(world.call(Call(True, True, exclude=frozenset({"instance-1"}))), [NOT_SENT] * 3)
    assert {send.endpoint.id for send in sends} == {"instance-0", "instance-2"}


class Retiring:
    """A balancer under whose hand an endpoint retires, between being picked and being started."""

    def __init__(self, victims: Sequence[str]) -> None:
        self.victims = list(victims)

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return _RetiringPicker(self, endpoints)


class _RetiringPicker:
    def __init__(self, balancer: Retiring, endpoints: Sequence[Endpoint]) -> None:
        self.balancer = balancer
        self.endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        for endpoint in self.endpoints:
            if endpoint.id not in tried:
                if endpoint.id in self.balancer.victims:
                    endpoint.retire()
                return endpoint
        return None


def test_who_retires_between_the_pick_and_the_start_is_not_sent_to() -> None:
    world = World(4, balancer=Retiring(["instance-0", "instance-1"]))
    sends, end = drive(world.call(), [OK])
    assert [send.endpoint.id for send in sends] == ["instance-2"]
    assert sends[0].number == 1
    assert end is End.DELIVER
    assert world.in_flight == 1
    assert world.endpoints["instance-0"].in_flight == 0


def test_when_everybody_retires_there_is_nobody() -> None:
    world = World(3, balancer=Retiring([f"instance-{number}" for number in range(3)]))
    sends, end = drive(world.call(), [])
    assert (sends, end) == ([], End.NO_INSTANCES)
    assert world.in_flight == 0


def test_who_retires_while_a_retry_is_picked_is_not_sent_to() -> None:
    world = World(3, balancer=Retiring(["instance-1"]))
    sends, _ = drive(world.call(), [NOT_SENT, OK])
    assert [send.endpoint.id for send in sends] == ["instance-0", "instance-2"]
    assert [send.number for send in sends] == [1, 2]


def test_every_attempt_is_picked_from_the_newest_view() -> None:
    world = World(1)
    flow = world.call()
    first = next(flow)
    world.endpoints = {**world.endpoints, "instance-7": fleet(8)[7]}
    world.publish()
    second = flow.send(NOT_SENT)
    assert second.endpoint.id == "instance-7"
    assert second.view is world.view
    assert first.view is not second.view
    flow.close()


class Stubborn:
    """A balancer that knows only one and does not care who was tried."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return _StubbornPicker(endpoints[0])


class _StubbornPicker:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self.endpoint


@pytest.mark.timeout(10)
def test_a_balancer_that_picks_the_same_one_again_and_again_does_not_hang_the_call() -> None:
    world = World(2, balancer=Stubborn())
    sends, end = drive(world.call(), [NOT_SENT] * 3)
    assert len(sends) == 1
    assert end is End.DELIVER
    world.endpoints["instance-0"].retire()
    sends, end = drive(world.call(), [])
    assert (sends, end) == ([], End.NO_INSTANCES)


# ---- what is learnt


def test_every_outcome_is_learnt_by_whom_it_is_about() -> None:
    world = World(3)
    sends, _ = drive(world.call(), [NOT_SENT, NO_ANSWER, OK])
    refused, silent = (send.endpoint for send in sends[:2])
    assert refused.is_ejected(world.now)
    assert refused.latency(world.now) == silent.latency(world.now) == 1.0


def test_our_own_failure_is_nobodys_fault_and_nobodys_merit() -> None:
    world = World(2)
    endpoint = world.endpoints["instance-0"]
    only = Call(True, False, exclude=frozenset({"instance-1"}))
    for _ in range(50):
        drive(world.call(only), [Outcome(OutcomeKind.LOCAL, 7.0)])
    assert not endpoint.is_ejected(world.now)
    assert endpoint.latency(world.now) == 0.0
    for outcome in (NO_ANSWER, NO_ANSWER, LOCAL, NO_ANSWER, NO_ANSWER, LOCAL, NO_ANSWER):
        drive(world.call(only), [outcome])
    assert endpoint.is_ejected(
        world.now
    )  # five in a row: what failed on our side does not count between them


def test_latency_is_learnt_at_the_headers_and_in_flight_falls_at_the_end_of_the_body() -> None:
    world = World(1)
    sends, _ = drive(world.call(), [OK])
    (endpoint,) = world.endpoints.values()
    assert endpoint.latency(0.0) == 0.01
    assert endpoint.in_flight == 1
    sends[0].ticket.close()
    assert endpoint.in_flight == 0


# ---- nothing is left in flight


@pytest.mark.parametrize("before", ["", "R", "N", "RR", "RN", "NR"])
@pytest.mark.parametrize("how", ["close", "cancel", "throw"])
def test_a_call_that_is_given_up_leaves_nothing_in_flight(before: str, how: str) -> None:
    world = World()
    flow = world.call()
    send = next(flow)
    for letter in before:
        send = flow.send(LETTERS[letter])
        if isinstance(send, Sleep):
            send = flow.send(None)
    assert isinstance(send, Send)
    assert world.in_flight == 1
    if how == "close":
        flow.close()
    else:
        error = KeyboardInterrupt() if how == "cancel" else RuntimeError("bug")
        with pytest.raises(type(error)):
            flow.throw(error)
    assert world.in_flight == 0
    assert not send.ticket.is_open


def test_a_call_that_is_dropped_leaves_nothing_in_flight() -> None:
    world = World()
    flow = world.call()
    next(flow)
    assert world.in_flight == 1
    del flow
    assert world.in_flight == 0


def test_a_call_that_never_began_has_nothing_in_flight() -> None:
    world = World()
    world.call().close()
    assert world.in_flight == 0


def test_a_cancelled_probe_gives_its_place_to_the_next() -> None:
    world = World(2)
    probed = world.endpoints["instance-0"]
    eject(probed)
    world.now = 1000.0
    only = Call(True, True, exclude=frozenset({"instance-1"}))
    for _ in range(3):
        flow = world.call(only)
        assert next(flow).ticket.is_probe
        assert probed.is_ejected(world.now)
        flow.close()
        assert not probed.is_ejected(world.now)


def test_a_probe_that_failed_on_our_side_gives_its_place_to_the_next() -> None:
    world = World(2)
    eject(world.endpoints["instance-0"])
    world.now = 1000.0
    only = Call(True, True, exclude=frozenset({"instance-1"}))
    drive(world.call(only), [LOCAL])
    assert not world.endpoints["instance-0"].is_ejected(world.now)
    assert next(world.call(only)).ticket.is_probe  # it has still to prove itself


def test_ten_thousand_calls_given_up_anywhere_leave_nothing_in_flight() -> None:
    world = World(8, balancer="peak_ewma")
    chance = Random(7)
    bodies = []
    ends = Counter[str]()
    for _ in range(10_000):
        world.now += 0.01
        flow = world.call(chance.choice(list(CALLS.values())))
        send: Send | None = None
        try:
            step = next(flow)
            for _ in itertools.count():
                if chance.random() < 0.2:
                    flow.close()
                    ends["given up"] += 1
                    break
                if isinstance(step, Sleep):
                    step = flow.send(None)
                    continue
                if send is not None:
                    send.ticket.close()
                send = step
                step = flow.send(chance.choice(list(LETTERS.values())))
        except StopIteration as end:
            ends[end.value.name] += 1
        if send is not None and send.ticket.is_open:
            bodies.append(send.ticket)
        if bodies and chance.random() < 0.5:
            bodies.pop(chance.randrange(len(bodies))).close()
    assert world.in_flight == len(bodies)
    for ticket in bodies:
        ticket.close()
    assert [endpoint.in_flight for endpoint in world.endpoints.values()] == [0] * 8
    assert ends["given up"] > 1000
    assert ends["DELIVER"] > 1000
