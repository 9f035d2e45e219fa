"""Slow start, the share of a zone, and subsets. Virtual time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.shaping import STEPS, newcomers, subset, zone_share
from discoclient.model.errors import ConfigError
from discoclient.model.instance import State
from discoclient.model.policy import SlowStartPolicy
from tests.balancing.building import built, check_shares, preferring
from tests.balancing.fleet import BALANCERS, eject, fleet, instance, play
from tests.support.properties import thorough

every_balancer = pytest.mark.parametrize("balancer", BALANCERS)


def grown(old: int, new: int, *, at: float = 1000.0) -> list[Endpoint]:
    """*old* ones from time 0, and *new* ones that came at *at*."""
    endpoints = fleet(old + new, latency=0.01)
    for endpoint in endpoints[old:]:
        endpoint.first_seen = at
    return endpoints


# ---- slow start: the ramp


@pytest.mark.parametrize(
    ("age", "factor"),
    [(0.0, 0.1), (0.5, 0.1), (1.5, 0.1), (2.5, 0.2), (5.5, 0.5), (9.5, 0.9), (10.0, 1.0), (99.0, 1.0)],
)
def test_a_newcomers_weight_grows_in_steps_until_the_window_is_over(age: float, factor: float) -> None:
    factors, again_at = newcomers(grown(3, 1), SlowStartPolicy(), 1000.0 + age)
    assert factors == ({} if factor == 1.0 else {"instance-3": pytest.approx(factor)})
    assert (again_at is None) == (factor == 1.0)


@pytest.mark.parametrize("window", [2.0, 10.0, 60.0])
def test_window_is_how_long_it_takes(window: float) -> None:
    policy = SlowStartPolicy(window=window)
    assert newcomers(grown(3, 1), policy, 1000.0 + 0.55 * window)[0] == {"instance-3": 0.5}
    assert newcomers(grown(3, 1), policy, 1000.0 + 0.99 * window)[0] == {"instance-3": 0.9}
    assert newcomers(grown(3, 1), policy, 1000.0 + window)[0] == {}


def test_a_window_of_zero_turns_it_off() -> None:
    assert newcomers(grown(3, 1), SlowStartPolicy(window=0.0), 1000.0) == ({}, None)


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.35, 1.0])
def test_floor_is_what_it_begins_with(floor: float) -> None:
    policy = SlowStartPolicy(floor=floor)
    assert newcomers(grown(3, 1), policy, 1000.0)[0] == {"instance-3": floor}
    assert newcomers(grown(3, 1), policy, 1003.1)[0] == {"instance-3": max(floor, 0.3)}


@thorough(200)
@given(
    window=st.sampled_from([0.3, 1.0, 7.0, 10.0, 60.0]),
    start=st.sampled_from([0.0, 1000.0, 123456.789]),
    floor=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_whoever_asks_again_when_told_sees_every_step_once_and_the_end(
    window: float, start: float, floor: float
) -> None:
    policy = SlowStartPolicy(window=window, floor=floor)
    endpoints = grown(3, 1, at=start)
    for endpoint in endpoints[:3]:
        endpoint.first_seen = start - 2 * window
    now, seen = start, []
    for _ in range(4 * STEPS):
        factors, again_at = newcomers(endpoints, policy, now)
        seen.append(factors.get("instance-3", 1.0))
        if again_at is None:
            break
        assert again_at >= now
        assert again_at - now <= window / STEPS * 1.001
        now = max(again_at, now + 1e-6)  # the floats of a clock: a caller never asks at once
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert set(seen) >= {number / STEPS for number in range(int(floor * STEPS) + 1, STEPS + 1)}
    assert now == pytest.approx(start + window, rel=0.01)


def test_newcomers_of_different_ages_are_at_different_steps() -> None:
    endpoints = grown(4, 2)
    endpoints[5].first_seen = 1003.0
    factors, again_at = newcomers(endpoints, SlowStartPolicy(), 1005.5)
    assert factors == {"instance-4": 0.5, "instance-5": 0.2}
    assert again_at == pytest.approx(1006.0)


# ---- slow start: off in a deploy


@pytest.mark.parametrize(
    ("old", "new", "is_on"), [(3, 1, True), (3, 3, True), (3, 4, False), (0, 1, False), (0, 5, False)]
)
def test_it_is_off_while_more_than_half_are_new(old: int, new: int, is_on: bool) -> None:
    factors, again_at = newcomers(grown(old, new), SlowStartPolicy(), 1000.0)
    assert len(factors) == (new if is_on else 0)
    assert (again_at is not None) == is_on


@every_balancer
def test_in_a_deploy_everybody_gets_the_same(balancer: str) -> None:
    counts = play(built(grown(2, 4), preferring(balancer), now=1000.0), 3000, now=1000.0)
    assert min(counts.values()) > 0.85 * 500


def test_who_is_not_ready_does_not_count_among_the_new_or_the_old() -> None:
    endpoints = grown(2, 2)
    for number in (4, 5):
        endpoints.append(Endpoint(instance(number, state=State.UNREADY), now=1000.0, latency=0.01))
    assert built(endpoints, preferring(), now=1000.0).rebuild_at == pytest.approx(1001.0)
    assert built(grown(1, 2), preferring(), now=1000.0).rebuild_at is None


# ---- slow start: what comes of it


@every_balancer
@pytest.mark.parametrize("in_flight", [0, 1000])
@pytest.mark.parametrize(("age", "factor"), [(0.0, 0.1), (5.5, 0.5)])
def test_a_newcomers_share_follows_its_ramp(balancer: str, in_flight: int, age: float, factor: float) -> None:
    now = 1000.0 + age
    chosen = built(grown(4, 1), preferring(balancer), now=now)
    counts = play(chosen, 5000, in_flight=in_flight, now=now)
    check_shares(counts, {**{f"instance-{number}": 1.0 for number in range(4)}, "instance-4": factor})


@every_balancer
def test_without_slow_start_it_has_its_whole_share_at_once(balancer: str) -> None:
    preferences = preferring(balancer, slow_start=SlowStartPolicy(window=0.0))
    counts = play(built(grown(4, 1), preferences, now=1000.0), 5000, now=1000.0)
    assert counts["instance-4"] / 5000 == pytest.approx(0.2, rel=0.1)


@every_balancer
def test_from_a_floor_of_nothing_it_gets_nothing_unless_it_is_needed(balancer: str) -> None:
    preferences = preferring(balancer, slow_start=SlowStartPolicy(floor=0.0))
    chosen = built(grown(2, 1), preferences, now=1000.0)
    assert play(chosen, 500, now=1000.0)["instance-2"] == 0
    needed = chosen.pick(1000.0, {"instance-0", "instance-1"})
    assert needed is not None
    assert needed.id == "instance-2"


def test_a_ramp_counts_in_every_version_and_zone() -> None:
    endpoints = []
    for number in range(6):
        zone, version = ("a" if number < 4 else "b"), ("1" if number % 2 else "2")
        endpoints.append(Endpoint(instance(number, zone=zone, version=version), now=0.0, latency=0.01))
    endpoints[0].first_seen = 1000.0
    chosen = built(endpoints, preferring(zone="a", versions={"2": 0.5}), now=1000.0)
    counts = play(chosen, 10_000, now=1000.0)
    assert counts["instance-0"] / counts["instance-2"] == pytest.approx(0.1, rel=0.2)
    assert counts["instance-1"] / counts["instance-3"] == pytest.approx(1.0, rel=0.1)


def test_slow_start_is_a_policy_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="slow_start= must be a SlowStartPolicy"):
        preferring(slow_start=10.0)


# ---- zones


def in_zones(**weights: list[float]) -> list[Endpoint]:
    """By zone, the weights of those there; ``_`` is no zone."""
    found: list[Endpoint] = []
    for zone, each in weights.items():
        for weight in each:
            made = instance(len(found), zone=None if zone == "_" else zone, weight=weight)
            found.append(Endpoint(made, now=0.0))
    return found


@pytest.mark.parametrize(
    ("zones", "zone", "share"),
    [
        ({"a": [100], "b": [100]}, "a", 1.0),
        ({"a": [100], "b": [100, 100]}, "a", 2 / 3),
        ({"a": [100], "b": [100, 100]}, "b", 1.0),
        ({"a": [50], "b": [100]}, "a", 2 / 3),
        ({"a": [100], "b": [100], "c": [400]}, "a", 0.5),
        ({"a": [100], "_": [300]}, "a", 0.5),
        ({"a": [100, 100]}, "a", None),
        ({"a": [100], "b": [100]}, None, None),
        ({"a": [100], "b": [100]}, "c", None),
        ({"a": [0], "b": [100]}, "a", None),
        ({}, "a", None),
    ],
)
def test_the_share_of_a_zone_is_its_capacity_over_the_fair_part(
    zones: dict[str, list[float]], zone: str | None, share: float | None
) -> None:
    found = zone_share(in_zones(**zones), zone)
    assert found == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize("wrong", ["", 7, b"a"])
def test_a_zone_is_a_name(wrong: object) -> None:
    with pytest.raises(ConfigError, match="zone="):
        preferring(zone=wrong)


# ---- subsets


def chosen_of(endpoints: list[Endpoint], size: int | None, seed: str = "me") -> set[str]:
    return {endpoint.id for endpoint in subset(endpoints, size, seed)}


@pytest.mark.parametrize(("size", "used"), [(None, 20), (1, 1), (5, 5), (19, 19), (20, 20), (21, 20)])
def test_subset_is_how_many_are_used(size: int | None, used: int) -> None:
    chosen = built(fleet(20), preferring("round_robin", subset=size, seed="me"))
    assert len(play(chosen, 100)) == used


@thorough(60)
@given(size=st.integers(1, 20), number=st.integers(2, 40), seed=st.text(max_size=5), data=st.data())
def test_one_that_comes_or_goes_changes_one_at_most(
    size: int, number: int, seed: str, data: st.DataObject
) -> None:
    endpoints = fleet(number)
    gone = data.draw(st.sampled_from(endpoints))
    rest = [endpoint for endpoint in endpoints if endpoint is not gone]
    before, after = chosen_of(endpoints, size, seed), chosen_of(rest, size, seed)
    assert len(before) == min(size, number)
    assert before - after <= {gone.id}
    assert len(after - before) <= 1
    if gone.id not in before:
        assert before == after


def test_the_same_seed_chooses_the_same_whatever_their_order() -> None:
    endpoints = fleet(60)
    assert chosen_of(endpoints, 8) == chosen_of(endpoints[::-1], 8)
    expected = (3, 23, 24, 31, 42, 54, 55, 59)
    assert chosen_of(endpoints, 8) == {f"instance-{number}" for number in expected}, "in every process"


def test_other_seeds_choose_others_and_together_they_load_everybody() -> None:
    endpoints = fleet(40)
    users = Counter[str]()
    for client in range(600):
        users.update(chosen_of(endpoints, 10, f"client-{client}"))
    assert len(users) == 40
    assert min(users.values()) > 0.7 * 150
    assert max(users.values()) < 1.3 * 150


def test_of_each_zone_and_version_there_is_a_subset() -> None:
    endpoints = []
    for number in range(40):
        zone, version = "ab"[number % 2], "12"[number // 20]
        endpoints.append(Endpoint(instance(number, zone=zone, version=version), now=0.0))
    preferences = preferring("round_robin", zone="a", versions={"2": 0.5}, subset=3, seed="me")
    counts = play(built(endpoints, preferences), 2000)
    groups = Counter(
        (endpoint.instance.zone, endpoint.instance.version) for endpoint in endpoints if endpoint.id in counts
    )
    assert groups == {("a", "1"): 3, ("a", "2"): 3}, "zone a carries it all"


def test_who_is_not_ready_takes_no_place_in_a_subset() -> None:
    endpoints = fleet(10)
    chosen = chosen_of(endpoints, 3)
    sick = next(number for number in range(10) if f"instance-{number}" in chosen)
    endpoints[sick].update(instance(sick, state=State.UNREADY))
    counts = play(built(endpoints, preferring("round_robin", subset=3, seed="me")), 300)
    assert len(counts) == 3
    assert counts.keys() >= chosen - {f"instance-{sick}"}


@pytest.mark.parametrize("balancer", BALANCERS)
def test_when_the_whole_subset_is_ejected_the_others_are_there(balancer: str) -> None:
    endpoints = fleet(12)
    chosen = built(endpoints, preferring(balancer, subset=3, seed="me"))
    used = {endpoint.id for endpoint in (chosen.pick(0.0) for _ in range(200)) if endpoint is not None}
    assert len(used) == 3
    first, *others = sorted(used)
    for endpoint in endpoints:
        if endpoint.id in others:
            eject(endpoint, seconds=10.0)
    assert {chosen.pick(0.1).id for _ in range(50)} == {first}, "as long as one of them is left"
    assert {chosen.pick(0.1, used).id for _ in range(200)} == {e.id for e in endpoints} - used, "tried all"
    for endpoint in endpoints:
        if endpoint.id == first:
            eject(endpoint, seconds=10.0)
    beyond = {chosen.pick(0.1).id for _ in range(300)}
    assert beyond == {endpoint.id for endpoint in endpoints} - used
    for endpoint in endpoints:
        if endpoint.id not in used:
            eject(endpoint, seconds=10.0)
    assert chosen.pick(0.1).id in used, "if all are alike, its own"
    assert {chosen.pick(100.0).id for _ in range(50)} <= used, "and its own when they are well again"


def test_weights_count_within_a_subset() -> None:
    endpoints = fleet(12, weights=[100, 300] * 6)
    counts = play(built(endpoints, preferring("round_robin", subset=6, seed="me")), 6000)
    heavy = [id for id in counts if int(id.split("-")[1]) % 2]
    light = [id for id in counts if id not in heavy]
    assert heavy
    assert light
    assert counts[heavy[0]] == pytest.approx(3 * counts[light[0]], rel=0.05)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "3"])
def test_a_subset_is_a_whole_number(wrong: object) -> None:
    with pytest.raises(ConfigError, match="subset="):
        preferring(subset=wrong)
