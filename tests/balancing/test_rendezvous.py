"""Rendezvous hashing: equal keys stay together, only those of whoever left move, and nobody is flooded. Seeded."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter, deque
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.balancing.picker import HashKey
from discoclient.balancing.rendezvous import DEEP, REMEMBERED, RendezvousPicker
from discoclient.balancing.weights import Candidates, WeightClasses
from discoclient.model.instance import State
from discoclient.model.policy import SlowStartPolicy
from tests.balancing.building import built, check_shares, keyed, preferring
from tests.balancing.fleet import eject, fleet, instance, view
from tests.support.properties import thorough

KEYS = [f"user-{number}" for number in range(2000)]


def places(endpoints: list[Endpoint], keys: list[str] = KEYS) -> dict[HashKey, str]:
    return keyed(view(endpoints, "rendezvous"), keys)


def one(chosen: RendezvousPicker, key: HashKey, tried: tuple[str, ...] = ()) -> Endpoint:
    endpoint = chosen.pick_for(key, 0.0, tried)
    assert endpoint is not None
    return endpoint


def picker(endpoints: list[Endpoint], seed: int = 1) -> RendezvousPicker:
    return RendezvousPicker(WeightClasses(endpoints), Random(seed))


# ---- the same for everybody

EXPECTED: dict[HashKey, str] = {
    "user-1": "instance-6",
    "user-2": "instance-0",
    "user-3": "instance-6",
    "user-4": "instance-7",
    b"user-1": "instance-7",
    7: "instance-0",
    "7": "instance-2",
}
"""With eight endpoints of equal weight. Another version of this that disagrees sends every key elsewhere."""


def test_where_a_key_goes_is_fixed() -> None:
    assert keyed(view(fleet(8), "rendezvous"), list(EXPECTED)) == EXPECTED


@pytest.mark.timeout(30)
def test_where_a_key_goes_is_the_same_in_another_process() -> None:
    program = (
        "from tests.balancing.building import keyed; from tests.balancing.fleet import fleet, view; "
        "print(*keyed(view(fleet(8), 'rendezvous', seed=9), [f'user-{n}' for n in range(50)]).values())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "4711", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    assert answer.split() == list(places(fleet(8), KEYS[:50]).values())


@thorough(30)
@given(st.permutations(range(9)), st.integers(0, 99))
def test_neither_the_order_of_the_endpoints_nor_chance_matters(order: list[int], seed: int) -> None:
    endpoints = fleet(9, weights=[100, 100, 100, 50, 50, 200, 1, 1000, 100])
    usual = picker(endpoints)
    other = picker([endpoints[number] for number in order], seed)
    for key in KEYS[:60]:
        assert one(usual, key) is one(other, key)


def test_a_key_stays_where_it_is() -> None:
    chosen = view(fleet(6), "rendezvous")
    first = keyed(chosen, KEYS[:100])
    assert all(keyed(chosen, KEYS[:100]) == first for _ in range(5))


def test_more_keys_than_are_remembered_go_where_they_went_and_are_not_all_kept() -> None:
    chosen = picker(fleet(3))
    keys = [f"key-{number}" for number in range(REMEMBERED + 500)]
    first = [one(chosen, key) for key in keys]
    assert [one(chosen, key) for key in keys] == first
    assert len(chosen._orders) <= REMEMBERED


def test_a_text_its_bytes_and_a_number_are_different_keys() -> None:
    chosen = view(fleet(50), "rendezvous")
    found = [keyed(chosen, [f"{number}", f"{number}".encode(), number]) for number in range(40)]
    assert sum(len(set(each.values())) == 3 for each in found) > 30


def test_without_a_key_it_is_whoever_has_less_to_do() -> None:
    idle, busy = fleet(2)
    busy.start(0.0)
    assert {picker([idle, busy]).pick(0.0) for _ in range(100)} == {idle}


# ---- who comes and who goes


@thorough(25)
@given(size=st.integers(2, 12), data=st.data())
def test_only_the_keys_of_who_left_move(size: int, data: st.DataObject) -> None:
    weights = [data.draw(st.sampled_from([1, 50, 100, 100, 100, 400])) for _ in range(size)]
    endpoints = fleet(size, weights=weights)
    left = data.draw(st.sampled_from(endpoints))
    before, after = picker(endpoints), picker([each for each in endpoints if each is not left])
    for key in KEYS[:150]:
        was, is_now = one(before, key), one(after, key)
        assert is_now is was or was is left
        assert is_now is not left


@pytest.mark.parametrize("size", [2, 5, 10])
def test_at_most_a_fair_share_moves_and_it_is_spread_over_the_others(size: int) -> None:
    endpoints = fleet(size)
    before, after = places(endpoints), places(endpoints[1:])
    moved = Counter(after[key] for key in KEYS if before[key] != after[key])
    assert moved.total() <= len(KEYS) / size + 4 * math.sqrt(len(KEYS) / size)
    check_shares(moved, {endpoint.id: 1.0 for endpoint in endpoints[1:]})


def test_who_comes_takes_its_share_from_everybody_and_nothing_else_moves() -> None:
    endpoints = fleet(10)
    before, after = places(endpoints[:9]), places(endpoints)
    moved = Counter(before[key] for key in KEYS if before[key] != after[key])
    assert {after[key] for key in KEYS if before[key] != after[key]} == {"instance-9"}
    assert moved.total() == pytest.approx(len(KEYS) / 10, abs=4 * math.sqrt(len(KEYS) / 10))
    check_shares(moved, {endpoint.id: 1.0 for endpoint in endpoints[:9]})


def test_another_weight_moves_keys_to_or_from_that_one_alone() -> None:
    usual, heavier = fleet(5), fleet(5, weights=[100, 100, 300, 100, 100])
    before, after = places(usual), places(heavier)
    assert {after[key] for key in KEYS if before[key] != after[key]} == {"instance-2"}
    share = sum(place == "instance-2" for place in after.values()) / len(KEYS)
    assert share == pytest.approx(3 / 7, abs=0.04)


def test_an_ejected_one_lends_its_keys_to_the_others_and_gets_them_back() -> None:
    endpoints = fleet(6)
    chosen = view(endpoints, "rendezvous")
    before = keyed(chosen, KEYS)
    eject(endpoints[3], seconds=100.0)
    during = keyed(chosen, KEYS, now=1.0)
    lent = Counter(during[key] for key in KEYS if during[key] != before[key])
    assert all(before[key] == "instance-3" for key in KEYS if during[key] != before[key])
    assert "instance-3" not in during.values()
    check_shares(lent, {endpoint.id: 1.0 for endpoint in endpoints if endpoint.id != "instance-3"})
    assert keyed(chosen, KEYS, now=1000.0) == before


def test_who_was_tried_is_followed_by_the_same_next_one_each_time() -> None:
    chosen = picker(fleet(5))
    for key in KEYS[:50]:
        order: list[str] = []
        for _ in range(5):
            order.append(one(chosen, key, tuple(order)).id)
        assert len(set(order)) == 5
        assert chosen.pick_for(key, 0.0, order) is None
        assert one(chosen, key, tuple(order[:2])).id == order[2]


def test_more_ejected_than_are_kept_in_order_is_still_the_next_of_the_order() -> None:
    endpoints = fleet(DEEP + 8)
    chosen = picker(endpoints)
    for key in KEYS[:20]:
        order: list[str] = []
        for _ in range(DEEP + 3):
            order.append(one(chosen, key, tuple(order)).id)
        twins = fleet(DEEP + 8)
        for twin in twins:
            if twin.id in order[:-1]:
                eject(twin)
        assert one(picker(twins), key).id == order[-1]


def test_when_all_are_ejected_a_key_stays_where_it_was() -> None:
    """Fail open, and still to one place."""
    endpoints = fleet(12)
    before = places(endpoints)
    for endpoint in endpoints:
        eject(endpoint)
    assert places(endpoints) == before


@pytest.mark.parametrize("weights", [[100, 0], [0, 100, 0]])
def test_when_all_that_weigh_something_are_ejected_or_tried_somebody_is_picked_all_the_same(
    weights: list[int],
) -> None:
    """Unready ones share a tier whatever they weigh. Others than this balancer pick here too."""
    endpoints = fleet(len(weights), weights=weights, state=State.UNREADY)
    heavy = endpoints[weights.index(100)]
    for balancer in ("random", "round_robin", "peak_ewma", "rendezvous"):
        assert view(endpoints, balancer).pick(0.0, {heavy.id}, "user-1") is not None, balancer
    eject(heavy)
    for balancer in ("random", "round_robin", "peak_ewma", "rendezvous"):
        assert view(endpoints, balancer).pick(0.0, (), "user-1") is not None, balancer


def test_beside_a_newcomer_that_gets_nothing_yet_the_only_one_is_picked_ejected_or_not() -> None:
    """A slow start from a floor of 0."""
    old, new = fleet(2)
    new.first_seen = 100.0
    preferences = preferring("rendezvous", slow_start=SlowStartPolicy(floor=0.0))
    chosen = built([old, new], preferences, now=100.0)
    assert chosen.pick(100.0, (), "user-1") is old
    eject(old, 100.0)
    assert chosen.pick(100.0, (), "user-1") is not None


# ---- shares


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [100, 100, 100, 5], [1, 2, 3, 4, 5]])
def test_keys_are_spread_by_weight(weights: list[int]) -> None:
    endpoints = fleet(len(weights), weights=weights)
    found = keyed(view(endpoints, "rendezvous"), [f"key-{number}" for number in range(10_000)])
    check_shares(
        Counter(found.values()), {f"instance-{number}": weight for number, weight in enumerate(weights)}
    )


def test_a_weight_of_nothing_gets_no_key_unless_there_is_nothing_else() -> None:
    assert "instance-1" not in places(fleet(3, weights=[1, 0, 1])).values()
    assert set(places(fleet(3, weights=[0, 0, 0])).values()) == {f"instance-{number}" for number in range(3)}


def test_a_newcomer_gets_fewer_keys() -> None:
    endpoints = fleet(4)
    candidates = Candidates.of(endpoints, {"instance-0": 0.2})
    chosen = RendezvousPicker(WeightClasses(candidates), Random(1))
    share = Counter(one(chosen, key).id for key in KEYS)["instance-0"] / len(KEYS)
    assert share == pytest.approx(0.2 / 3.2, abs=0.02)


# ---- bounded load


@pytest.mark.parametrize("weights", [[100] * 5, [100, 200, 300, 400]])
@pytest.mark.parametrize("in_flight", [1, 7, 100, 1000])
def test_one_hot_key_floods_nobody(weights: list[int], in_flight: int) -> None:
    endpoints = fleet(len(weights), weights=weights)
    chosen = picker(endpoints)
    open_tickets: deque[Ticket] = deque()
    for number in range(in_flight * 3):
        while len(open_tickets) >= in_flight:
            open_tickets.popleft().close()
        open_tickets.append(one(chosen, "the one" if number % 4 else f"other-{number}").start(0.0))
        for endpoint in endpoints:
            share = endpoint.weight / sum(weights)
            assert endpoint.in_flight <= math.ceil(1.25 * in_flight * share)


def test_one_hot_key_floods_nobody_in_a_large_fleet_either() -> None:
    """What is fair is the fleet's average, whatever is sampled of it: here 25 each."""
    endpoints = fleet(40)
    chosen = picker(endpoints)
    for _ in range(1000):
        one(chosen, "the one").start(0.0)
    assert max(endpoint.in_flight for endpoint in endpoints) <= 2 * 25


def test_without_the_bound_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr("discoclient.balancing.rendezvous.OVERLOAD", 1e9)
    chosen = picker(fleet(5))
    assert len({one(chosen, "the one").start(0.0).endpoint for _ in range(100)}) == 1


def test_a_hot_keys_overflow_goes_to_its_next_one_and_comes_back() -> None:
    chosen = picker(fleet(4))
    home = one(chosen, "hot")
    second = one(chosen, "hot", (home.id,))
    tickets = [one(chosen, "hot").start(0.0) for _ in range(2)]
    assert [ticket.endpoint for ticket in tickets] == [home, second]
    for ticket in tickets:
        ticket.close()
    assert one(chosen, "hot") is home


def test_when_all_are_full_the_first_of_the_order_takes_it() -> None:
    """Somebody else loads them too, or some are ejected and the others have no room."""
    endpoints = fleet(5)
    for endpoint in endpoints[1:]:
        eject(endpoint)
    chosen = picker(endpoints)
    tickets = [one(chosen, f"key-{number}").start(0.0) for number in range(50)]
    assert {ticket.endpoint.id for ticket in tickets} == {"instance-0"}


# ---- its price


class Counted(Endpoint):
    """Counts how often a load is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "in_flight":
            Counted.looks += 1
        return super().__getattribute__(name)


def test_a_key_that_was_seen_of_late_costs_no_look_at_every_endpoint() -> None:
    """The hot path must not grow with the fleet."""
    endpoints: list[Endpoint] = [Counted(instance(number), now=0.0) for number in range(1000)]
    chosen = picker(endpoints)
    one(chosen, "user-1")
    before = Counted.looks
    for _ in range(100):
        one(chosen, "user-1")
    assert Counted.looks - before <= 100 * 2 * DEEP
