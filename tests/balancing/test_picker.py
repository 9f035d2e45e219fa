"""The pickers: what every one of them keeps to, and what each is for. Seeded."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.balancer import find_balancer
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker, TwoChoicesPicker
from discoclient.balancing.round_robin import RoundRobinPicker
from discoclient.balancing.weights import WeightClasses
from discoclient.model.outcome import Outcome, OutcomeKind
from tests.balancing.fleet import BALANCERS, SILENT, eject, fleet, observe, play, view
from tests.support.properties import thorough

every_balancer = pytest.mark.parametrize("balancer", BALANCERS)


def picker(balancer: str, endpoints: list[Endpoint], seed: int = 1) -> Picker:
    return find_balancer(balancer).picker(endpoints, Random(seed))


# ---- what every picker keeps to


@every_balancer
def test_of_nobody_nobody_is_picked(balancer: str) -> None:
    assert picker(balancer, []).pick(0.0) is None
    assert picker(balancer, []).pick(0.0, {"instance-1"}) is None


@every_balancer
def test_the_only_one_is_picked_whatever_is_wrong_with_it(balancer: str) -> None:
    (only,) = fleet(1)
    chosen = picker(balancer, [only])
    assert chosen.pick(0.0) is only
    eject(only)
    assert chosen.pick(0.0) is only


@every_balancer
def test_who_was_tried_is_not_picked_again(balancer: str) -> None:
    endpoints = fleet(5)
    chosen = picker(balancer, endpoints)
    tried = {"instance-0", "instance-3"}
    found = {chosen.pick(0.0, tried) for _ in range(200)}
    assert found == {endpoints[1], endpoints[2], endpoints[4]}
    assert chosen.pick(0.0, {endpoint.id for endpoint in endpoints}) is None


@every_balancer
def test_who_is_ejected_is_not_picked_while_others_live(balancer: str) -> None:
    endpoints = fleet(10)
    for endpoint in endpoints[:9]:
        eject(endpoint)
    chosen = picker(balancer, endpoints)
    assert {chosen.pick(1.0) for _ in range(500)} == {endpoints[9]}


@every_balancer
def test_when_all_are_ejected_all_are_picked(balancer: str) -> None:
    endpoints = fleet(4)
    for endpoint in endpoints:
        eject(endpoint)
    chosen = picker(balancer, endpoints)
    assert {chosen.pick(1.0) for _ in range(200)} == set(endpoints)


@every_balancer
def test_when_all_that_is_left_is_ejected_that_is_picked(balancer: str) -> None:
    endpoints = fleet(4)
    eject(endpoints[0])
    chosen = picker(balancer, endpoints)
    assert {chosen.pick(1.0, {f"instance-{n}" for n in (1, 2, 3)}) for _ in range(20)} == {endpoints[0]}


@every_balancer
def test_on_probation_one_at_a_time_is_sent_there(balancer: str) -> None:
    endpoints = fleet(3, latency=0.01)
    eject(endpoints[0])
    chosen = view(endpoints, balancer)
    now, probes, most = 1000.0, 0, 0
    for _ in range(200):
        endpoint = chosen.pick(now)
        assert endpoint is not None
        ticket = endpoint.start(now)  # and nobody answers
        probes += ticket.is_probe
        most = max(most, endpoints[0].in_flight)
    assert probes == most == 1


@every_balancer
@thorough(40)
@given(data=st.data())
def test_nobody_is_picked_who_should_not_be(balancer: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    endpoints = fleet(size, weights=[data.draw(st.sampled_from([1, 100, 10_000])) for _ in range(size)])
    ids = [endpoint.id for endpoint in endpoints]
    out = data.draw(st.sets(st.sampled_from(ids)))
    tried = data.draw(st.sets(st.sampled_from(ids)))
    for endpoint in endpoints:
        if endpoint.id in out:
            eject(endpoint)
    left = set(ids) - tried
    allowed = (left - out) or left
    chosen = view(endpoints, balancer, seed=data.draw(st.integers(0, 99)))
    for _ in range(30):
        endpoint = chosen.pick(1.0, tried)
        assert (endpoint.id in allowed) if endpoint else not left


@every_balancer
def test_a_pick_looks_at_few_of_many(balancer: str) -> None:
    """The hot path must not grow with the fleet."""
    looked = Counter[str]()

    class Counted(Endpoint):
        __slots__ = ()

        def is_ejected(self, now: float) -> bool:
            looked[self.id] += 1
            return Endpoint.is_ejected(self, now)

    endpoints = [Counted(endpoint.instance, now=0.0) for endpoint in fleet(1000)]
    chosen = picker(balancer, list(endpoints))
    for _ in range(100):
        chosen.pick(0.0)
    assert looked.total() <= 100 * 5


@every_balancer
def test_many_threads_can_pick_at_once(balancer: str) -> None:
    endpoints = fleet(7, latency=0.01)
    chosen = view(endpoints, balancer)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(500):
                endpoint = chosen.pick(0.0, ("instance-0",) if number % 3 == 0 else ())
                assert endpoint is not None
                endpoint.start(0.0).close()
        except BaseException as error:
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
    assert [endpoint.in_flight for endpoint in endpoints] == [0] * 7


# ---- two choices


@pytest.mark.parametrize("tried", [(), ("nobody",)])
def test_the_two_candidates_are_always_two(tried: tuple[str, ...]) -> None:
    """With a pair there is but one choice: the worse of them never wins, not even against itself."""
    good, bad = fleet(2)
    chosen = TwoChoicesPicker(
        WeightClasses([good, bad]), lambda endpoint, now: float(endpoint is bad), Random(1)
    )
    assert {chosen.pick(0.0, tried) for _ in range(1000)} == {good}


def test_every_pair_is_drawn_equally_often() -> None:
    endpoints = fleet(6)
    pairs = Counter[frozenset[str]]()
    drawn: list[str] = []

    def cost(endpoint: Endpoint, now: float) -> float:
        drawn.append(endpoint.id)
        return 1.0

    chosen = TwoChoicesPicker(WeightClasses(endpoints), cost, Random(3))
    for _ in range(15_000):
        drawn.clear()
        chosen.pick(0.0)
        pairs[frozenset(drawn)] += 1
    assert all(len(pair) == 2 for pair in pairs)
    assert len(pairs) == 15
    assert max(pairs.values()) < 1.15 * min(pairs.values())


def test_of_equals_neither_is_preferred() -> None:
    endpoints = fleet(4, latency=0.01)
    found = Counter(
        endpoint.id for endpoint in map(picker("peak_ewma", endpoints).pick, [0.0] * 8000) if endpoint
    )
    assert max(found.values()) < 1.1 * min(found.values())


def test_least_request_prefers_whoever_has_less_to_do() -> None:
    idle, busy = fleet(2)
    busy.start(0.0)
    assert {picker("least_request", [idle, busy]).pick(0.0) for _ in range(100)} == {idle}


def test_peak_ewma_prefers_whoever_is_expected_to_answer_first() -> None:
    quick, slow = fleet(2)
    observe(quick, Outcome(OutcomeKind.RESPONSE, 0.010, 200), 0.0)
    observe(slow, Outcome(OutcomeKind.RESPONSE, 0.035, 200), 0.0)
    chosen = picker("peak_ewma", [quick, slow])
    picked = []
    for _ in range(6):
        endpoint = chosen.pick(0.0)
        assert endpoint is not None
        endpoint.start(0.0)
        picked.append(endpoint)
    assert picked == [quick, quick, quick, slow, quick, quick]  # 10 20 30 | 40>35 | 40 50 | ...


def test_a_slow_one_gets_little_from_peak_ewma_and_its_share_from_random() -> None:
    def latency(endpoint: Endpoint) -> float:
        return 0.5 if endpoint.id == "instance-0" else 0.01

    smart = play(view(fleet(5, latency=0.01), "peak_ewma"), 5000, in_flight=10, latency=latency)
    blind = play(view(fleet(5, latency=0.01), "random"), 5000, in_flight=10, latency=latency)
    assert smart["instance-0"] < 0.02 * 5000
    assert blind["instance-0"] > 0.18 * 5000


def test_one_that_fails_fast_draws_no_traffic() -> None:
    """Google SRE's sinkhole: it answers within a millisecond, and it has nothing in flight."""
    endpoints = fleet(4, latency=0.02)
    chosen = view(endpoints, "peak_ewma")
    counts = Counter[str]()
    now = 0.0
    for _ in range(2000):
        endpoint = chosen.pick(now)
        assert endpoint is not None
        ticket = endpoint.start(now)
        counts[endpoint.id] += 1
        bad = endpoint.id == "instance-0"
        outcome = (
            Outcome(OutcomeKind.RESPONSE, 0.001, 503) if bad else Outcome(OutcomeKind.RESPONSE, 0.02, 200)
        )
        observe(endpoint, outcome, now)
        ticket.close()
        now += 0.01
    assert counts["instance-0"] < 0.02 * 2000


def test_one_that_never_answers_does_not_draw_the_traffic_of_those_that_do() -> None:
    """From the start: nothing is known of it, and nothing ever will be before the first timeout."""
    endpoints = fleet(3)
    chosen = view(endpoints, "peak_ewma")
    now = 0.0
    for _ in range(500):
        endpoint = chosen.pick(now)
        assert endpoint is not None
        ticket = endpoint.start(now)
        now += 0.01
        if endpoint is not endpoints[2]:
            observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.005, 200), now)
            ticket.close()
    assert endpoints[2].in_flight <= 3


def test_one_that_closes_every_connection_is_judged_by_its_latency_all_the_same() -> None:
    """Without keep-alive (HTTP/1.0, gunicorn's sync workers) every answer is one on a new connection."""
    endpoints = fleet(4, latency=0.01)
    chosen = view(endpoints, "peak_ewma")
    counts = Counter[str]()
    now = 0.0
    for _ in range(6000):
        endpoint = chosen.pick(now)
        assert endpoint is not None
        ticket = endpoint.start(now)
        counts[endpoint.id] += 1
        now += 0.02
        closes = endpoint is endpoints[0]
        latency = 0.5 if closes else 0.01
        observe(endpoint, Outcome(OutcomeKind.RESPONSE, latency, 200, is_warm=not closes), now)
        ticket.close()
    assert counts["instance-0"] < 0.05 * 6000


# ---- round robin


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_round_robin_is_as_even_as_can_be_at_any_moment(size: int) -> None:
    chosen = picker("round_robin", fleet(size))
    counts = Counter[str]()
    for number in range(size * 5 + 3):
        endpoint = chosen.pick(0.0)
        assert endpoint is not None
        counts[endpoint.id] += 1
        fewest = min(counts.values()) if len(counts) == size else 0
        assert max(counts.values()) - fewest <= 1, number


@every_balancer
def test_a_thousand_short_lived_processes_do_not_all_begin_with_the_same_one(balancer: str) -> None:
    firsts = Counter[str]()
    for seed in range(1000):
        endpoint = view(fleet(10, latency=0.01), balancer, seed=seed).pick(0.0)
        assert endpoint is not None
        firsts[endpoint.id] += 1
    assert len(firsts) == 10
    assert 65 < min(firsts.values()) <= max(firsts.values()) < 140


def test_round_robin_stays_even_while_one_is_ejected() -> None:
    endpoints = fleet(4)
    eject(endpoints[1])
    chosen = RoundRobinPicker(endpoints, Random(1))
    counts = Counter(endpoint.id for endpoint in map(chosen.pick, [0.0] * 400) if endpoint)
    assert counts.keys() == {"instance-0", "instance-2", "instance-3"}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_round_robin_stays_even_when_all_are_ejected() -> None:
    """Failing open onto a single one would finish it off."""
    endpoints = fleet(4)
    for endpoint in endpoints:
        eject(endpoint)
    chosen = RoundRobinPicker(endpoints, Random(1))
    counts = Counter(endpoint.id for endpoint in map(chosen.pick, [0.0] * 400) if endpoint)
    assert list(counts.values()) == [100] * 4


def test_round_robin_goes_round_as_often_as_the_weights_say_and_evenly() -> None:
    chosen = view(fleet(2, weights=[1, 4]), "round_robin")
    order = [chosen.pick(0.0).id for _ in range(500)]  # type: ignore[union-attr]
    assert order.count("instance-0") == 100
    gaps = [
        later - earlier
        for earlier, later in itertools.pairwise(
            index for index, id in enumerate(order) if id == "instance-0"
        )
    ]
    assert set(gaps) <= {4, 5, 6}


# ---- many


@pytest.mark.parametrize(("balancer", "most"), [("least_request", 13), ("peak_ewma", 13)])
def test_a_thousand_requests_over_a_hundred_endpoints_lie_close_to_ten_each(balancer: str, most: int) -> None:
    """Two choices keep the longest queue short; one choice does not (Mitzenmacher)."""

    def loads(balancer: str) -> list[int]:
        endpoints = fleet(100, latency=0.01)
        chosen = view(endpoints, balancer)
        for _ in range(1000):
            endpoint = chosen.pick(0.0)
            assert endpoint is not None
            endpoint.start(0.0)
        return [endpoint.in_flight for endpoint in endpoints]

    assert 6 <= min(loads(balancer)) <= max(loads(balancer)) <= most
    assert max(loads("random")) > most + 3


@pytest.mark.parametrize("balancer", ["peak_ewma", "least_request", "random"])
def test_over_time_a_hundred_equals_get_the_same(balancer: str) -> None:
    counts = play(view(fleet(100, latency=0.01), balancer), 20_000, in_flight=100)
    assert len(counts) == 100
    assert max(counts.values()) < 1.4 * 200
    assert min(counts.values()) > 0.6 * 200


def test_failures_are_spread_away_from_before_anything_is_ejected() -> None:
    endpoints = fleet(3, latency=0.01)
    observe(endpoints[0], SILENT, 0.0)
    counts = play(view(endpoints, "peak_ewma"), 500)
    assert counts["instance-0"] == 0
