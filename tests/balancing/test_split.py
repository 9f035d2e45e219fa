"""First the version, then the zone, then the instance: shares that no load and no latency moves. Seeded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.view import View
from discoclient.model.errors import ConfigError
from discoclient.model.instance import State
from tests.balancing.building import built, check_shares, keyed, preferring
from tests.balancing.fleet import BALANCERS, eject, instance, play

every_balancer = pytest.mark.parametrize("balancer", BALANCERS)
KEYS = [f"user-{number}" for number in range(4000)]


def those(prefix: str, count: int, start: int = 0, **fields: object) -> list[Endpoint]:
    """Endpoints with ids such as ``canary-7``."""
    return [
        Endpoint(instance(number, id=f"{prefix}-{number}", **fields), now=0.0, latency=0.01)
        for number in range(start, start + count)
    ]


def share_of(prefix: str, counts: Counter[str]) -> float:
    return sum(count for id, count in counts.items() if id.startswith(prefix)) / counts.total()


def picks(chosen: View, count: int, *, now: float = 0.0, tried: Sequence[str] = ()) -> Counter[str]:
    """One after the other, with nothing in flight."""
    found = Counter[str]()
    for _ in range(count):
        endpoint = chosen.pick(now, tried)
        assert endpoint is not None
        found[endpoint.id] += 1
    return found


# ---- versions: a canary's share


@every_balancer
@pytest.mark.parametrize("canary_latency", [0.0001, 0.01, 5.0])
@pytest.mark.parametrize("in_flight", [1, 1000])
def test_a_canarys_share_is_what_was_said_however_slow_or_fast_it_is(
    balancer: str, canary_latency: float, in_flight: int
) -> None:
    endpoints = those("old", 6, version="1") + those("canary", 1, 6, version="2")
    chosen = built(endpoints, preferring(balancer, versions={"2": 0.05}), seed=3)
    counts = play(
        chosen,
        10_000,
        in_flight=in_flight,
        latency=lambda endpoint: canary_latency if endpoint.instance.version == "2" else 0.01,
    )
    assert share_of("canary", counts) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("versions", [{}, {"3": 0.5}])
def test_without_a_share_the_load_metric_would_defeat_it(versions: dict[str, float]) -> None:
    """Negative control: a canary that is slow gets next to nothing."""
    endpoints = those("old", 6, version="1") + those("canary", 1, 6, version="2")
    counts = play(
        built(endpoints, preferring("peak_ewma", versions=versions)),
        5000,
        latency=lambda endpoint: 5.0 if endpoint.instance.version == "2" else 0.01,
    )
    assert share_of("canary", counts) < 0.02


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_share_is_the_knob(share: float) -> None:
    endpoints = those("old", 2, version="1") + those("canary", 4, 2, version="2")
    counts = picks(built(endpoints, preferring(versions={"2": share})), 10_000)
    assert share_of("canary", counts) == pytest.approx(share, abs=0.012 if 0 < share < 1 else 0.0)


def test_several_versions_have_shares_and_the_others_the_rest_of_it() -> None:
    endpoints = (
        those("a", 1, version="a")
        + those("b", 5, 1, version="b")
        + those("c", 1, 6, version="c")
        + those("none", 1, 7)
    )
    counts = picks(built(endpoints, preferring(versions={"a": 0.2, "b": 0.1})), 10_000)
    check_shares(Counter({"a": counts["a-0"]}) + Counter(other=10_000 - counts["a-0"]), {"a": 2, "other": 8})
    assert share_of("b", counts) == pytest.approx(0.1, rel=0.1)
    assert share_of("c", counts) == pytest.approx(0.35, rel=0.1)
    assert share_of("none", counts) == pytest.approx(0.35, rel=0.1)


def test_within_a_version_weights_count() -> None:
    endpoints = (
        those("old", 1, version="1", weight=30)
        + those("heavy", 1, 1, version="1", weight=90)
        + those("canary", 1, 2, version="2", weight=10_000)
    )
    counts = picks(built(endpoints, preferring(versions={"2": 0.2})), 10_000)
    check_shares(counts, {"old-0": 0.2, "heavy-1": 0.6, "canary-2": 0.2})


def test_a_version_that_is_not_there_leaves_its_share_to_the_others() -> None:
    old = those("old", 2, version="1")
    assert picks(built(old, preferring(versions={"2": 0.4})), 100).total() == 100
    both = old + those("canary", 1, 2, version="2")
    counts = picks(built(both, preferring(versions={"2": 0.1, "3": 0.6})), 5000)
    assert share_of("canary", counts) == pytest.approx(0.1, rel=0.15)


def test_where_all_have_a_share_they_keep_their_proportions() -> None:
    endpoints = those("a", 1, version="a") + those("b", 3, 1, version="b")
    counts = picks(built(endpoints, preferring(versions={"a": 0.1, "b": 0.3})), 10_000)
    assert share_of("a", counts) == pytest.approx(0.25, rel=0.1)


def test_a_share_of_nothing_gets_something_only_if_it_is_alone() -> None:
    canary = those("canary", 2, version="2")
    preferences = preferring(versions={"2": 0.0})
    assert share_of("canary", picks(built(canary, preferences), 100)) == 1.0
    assert share_of("canary", picks(built(canary + those("old", 1, 2), preferences), 1000)) == 0.0


@every_balancer
def test_while_a_version_is_ejected_the_others_do_its_part_and_then_it_has_it_back(balancer: str) -> None:
    endpoints = those("old", 3, version="1") + those("canary", 2, 3, version="2")
    chosen = built(endpoints, preferring(balancer, versions={"2": 0.5}))
    for endpoint in endpoints[3:]:
        eject(endpoint, seconds=100.0)
    assert share_of("canary", picks(chosen, 500, now=1.0)) == 0.0
    assert share_of("canary", picks(chosen, 4000, now=1000.0)) == pytest.approx(0.5, abs=0.03)


@every_balancer
def test_when_every_version_is_ejected_somebody_is_picked(balancer: str) -> None:
    endpoints = those("old", 2, version="1") + those("canary", 2, 2, version="2")
    chosen = built(endpoints, preferring(balancer, versions={"2": 0.5}))
    for endpoint in endpoints:
        eject(endpoint)
    assert len(picks(chosen, 300, now=1.0)) == 4


@every_balancer
def test_a_retry_may_go_to_another_version(balancer: str) -> None:
    endpoints = those("old", 2, version="1") + those("canary", 1, 2, version="2")
    chosen = built(endpoints, preferring(balancer, versions={"2": 0.5}))
    assert share_of("canary", picks(chosen, 100, tried=["canary-2"])) == 0.0
    assert share_of("canary", picks(chosen, 100, tried=["old-0", "old-1"])) == 1.0
    assert chosen.pick(0.0, {endpoint.id for endpoint in endpoints}) is None


@pytest.mark.parametrize("balancer", ["rendezvous", "peak_ewma"])
def test_a_key_stays_with_its_version_and_keys_are_split_by_the_shares(balancer: str) -> None:
    endpoints = those("old", 3, version="1") + those("canary", 3, 3, version="2")
    preferences = preferring(balancer, versions={"2": 0.2})
    first = keyed(built(endpoints, preferences, seed=1), KEYS)
    canaries = {key for key, id in first.items() if id.startswith("canary")}
    assert len(canaries) / len(KEYS) == pytest.approx(0.2, rel=0.1)
    second = keyed(built(endpoints, preferences, seed=2), KEYS)
    assert {key for key, id in second.items() if id.startswith("canary")} == canaries
    more = keyed(built(endpoints, preferring(balancer, versions={"2": 0.3})), KEYS)
    assert canaries <= {key for key, id in more.items() if id.startswith("canary")}, (
        "a bigger canary takes more"
    )


def test_versions_are_split_among_the_unready_too() -> None:
    endpoints = those("old", 3, version="1", state=State.UNREADY) + those(
        "canary", 1, 3, version="2", state=State.UNREADY
    )
    counts = picks(built(endpoints, preferring(versions={"2": 0.1})), 5000)
    assert share_of("canary", counts) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("versions", [{"a": 0.6, "b": 0.5}, {"a": 1.5}, {"a": -0.1}, ["a"], {"a": True}])
def test_shares_that_make_no_sense_are_an_error(versions: object) -> None:
    with pytest.raises(ConfigError, match="versions"):
        preferring(versions=versions)


def test_shares_that_add_up_to_one_but_for_rounding_are_taken() -> None:
    assert preferring(versions={str(number): 0.1 for number in range(10)}).versions["3"] == 0.1


# ---- one version for one call


@every_balancer
def test_a_call_may_ask_for_one_version(balancer: str) -> None:
    endpoints = (
        those("old", 2, version="1")
        + those("canary", 1, 2, version="2")
        + those("sick", 1, 3, version="2", state=State.UNREADY)
        + those("gone", 1, 4, version="2", state=State.DRAINING)
    )
    chosen = built(endpoints, preferring(balancer, versions={"2": 0.01}))
    found = {chosen.pick(0.0, (), None, "2") for _ in range(50)}
    assert {endpoint.id for endpoint in found if endpoint} == {"canary-2"}
    second = chosen.pick(0.0, {"canary-2"}, "key", "2")
    assert second is not None
    assert second.id == "sick-3"
    assert chosen.pick(0.0, {"canary-2", "sick-3"}, None, "2") is None
    assert chosen.pick(0.0, (), None, "3") is None


# ---- zones: by capacity


def zoned(*counts: int, weights: Sequence[float] = ()) -> list[Endpoint]:
    """So many in zone a, in zone b, ..."""
    found: list[Endpoint] = []
    for index, count in enumerate(counts):
        zone = "abcdef"[index]
        weight = weights[index] if weights else 100
        found += those(zone, count, len(found), zone=zone, weight=weight)
    return found


@every_balancer
@pytest.mark.parametrize(
    ("counts", "weights", "near"),
    [
        ((3, 3), (), 1.0),
        ((4, 2), (), 1.0),
        ((1, 3), (), 0.5),
        ((2, 3, 5), (), 0.6),
        ((3, 3), (50, 150), 0.5),
        ((1, 9), (100, 100), 0.2),
        ((1, 3), (300, 100), 1.0),
    ],
)
def test_a_zone_keeps_what_it_can_carry_and_the_rest_goes_elsewhere(
    balancer: str, counts: tuple[int, ...], weights: tuple[float, ...], near: float
) -> None:
    found = picks(built(zoned(*counts, weights=weights), preferring(balancer, zone="a")), 4000)
    assert share_of("a", found) == pytest.approx(near, rel=0.1)


@pytest.mark.parametrize("zone", [None, "z"])
def test_without_a_zone_of_ours_zones_make_no_difference(zone: str | None) -> None:
    found = picks(built(zoned(1, 3), preferring(zone=zone)), 4000)
    assert share_of("a", found) == pytest.approx(0.25, rel=0.1)


def test_in_the_only_zone_there_is_it_makes_no_difference() -> None:
    assert len(picks(built(zoned(4), preferring(zone="a")), 200)) == 4


def test_callers_in_every_zone_together_load_everybody_evenly() -> None:
    """The point of it: no zone is flooded because many callers are near, if callers are spread evenly."""
    endpoints = zoned(2, 3, 7)
    counts = Counter[str]()
    for zone in "abc":
        counts += picks(built(endpoints, preferring(zone=zone)), 10_000)
    for prefix, expected in (("a", 2 / 12), ("b", 3 / 12)):
        assert share_of(prefix, counts) >= 0.9 * expected
        assert share_of(prefix, counts) <= 1.7 * expected


@pytest.mark.parametrize("in_flight", [1, 1000])
@every_balancer
def test_neither_load_nor_latency_moves_a_zones_share(balancer: str, in_flight: int) -> None:
    counts = play(
        built(zoned(1, 3), preferring(balancer, zone="a")),
        6000,
        in_flight=in_flight,
        latency=lambda endpoint: 5.0 if endpoint.instance.zone == "a" else 0.01,
    )
    assert share_of("a", counts) == pytest.approx(0.5, rel=0.1)


def test_who_has_no_zone_is_in_one_of_its_own() -> None:
    endpoints = those("a", 2, zone="a") + those("none", 2, 2)
    assert share_of("a", picks(built(endpoints, preferring(zone="a")), 300)) == 1.0


# ---- zones: by ejection


@every_balancer
def test_what_a_zone_lost_spills_over(balancer: str) -> None:
    endpoints = zoned(4, 8)
    endpoints += those("c", 1, 12, zone="b", state=State.UNREADY)
    chosen = built(endpoints, preferring(balancer, zone="b"))
    assert share_of("b", picks(chosen, 1000)) == 1.0
    for number in (4, 5):
        eject(endpoints[number])
    found = picks(chosen, 4000, now=1.0)
    assert share_of("a", found) == pytest.approx(0.25, rel=0.12)
    assert not {"b-4", "b-5"} & found.keys()
    for number in range(6, 12):
        eject(endpoints[number])
    assert share_of("a", picks(chosen, 500, now=1.0)) == 1.0


def test_what_weighs_more_spills_more_over() -> None:
    endpoints = those("a", 1, zone="a", weight=300) + those("a", 1, 1, zone="a", weight=100)
    endpoints += those("b", 2, 2, zone="b", weight=100)
    chosen = built(endpoints, preferring(zone="a"))
    eject(endpoints[0])
    assert share_of("b", picks(chosen, 4000, now=1.0)) == pytest.approx(0.75, rel=0.1)


@every_balancer
def test_when_the_other_zones_are_ejected_ours_takes_everything(balancer: str) -> None:
    endpoints = zoned(1, 5)
    for endpoint in endpoints[1:]:
        eject(endpoint)
    assert share_of("a", picks(built(endpoints, preferring(balancer, zone="a")), 300, now=1.0)) == 1.0


@every_balancer
def test_when_every_zone_is_ejected_somebody_is_picked(balancer: str) -> None:
    endpoints = zoned(2, 2)
    for endpoint in endpoints:
        eject(endpoint)
    assert picks(built(endpoints, preferring(balancer, zone="a")), 100, now=1.0).total() == 100


@every_balancer
def test_a_retry_may_go_to_another_zone(balancer: str) -> None:
    chosen = built(zoned(1, 2), preferring(balancer, zone="a"))
    assert share_of("b", picks(chosen, 100, tried=["a-0"])) == 1.0
    assert share_of("a", picks(chosen, 100, tried=["b-1", "b-2"])) == 1.0
    assert chosen.pick(0.0, {"a-0", "b-1", "b-2"}) is None


# ---- zones and keys


def test_a_key_stays_in_its_zone() -> None:
    preferences = preferring("rendezvous", zone="a")
    first = keyed(built(zoned(1, 3), preferences, seed=1), KEYS)
    assert keyed(built(zoned(1, 3), preferences, seed=2), KEYS) == first
    near = sum(id.startswith("a") for id in first.values())
    assert near / len(KEYS) == pytest.approx(0.5, rel=0.1)


def test_when_one_of_a_zone_is_ejected_only_its_keys_move() -> None:
    endpoints = zoned(4, 4)
    chosen = built(endpoints, preferring("rendezvous", zone="a"))
    before = keyed(chosen, KEYS[:500])
    eject(endpoints[1])
    during = keyed(chosen, KEYS[:500], now=1.0)
    moved = {before[key] for key in before if before[key] != during[key]}
    assert moved == {"a-1"}


def test_keys_are_split_by_zone_within_each_version_alike() -> None:
    """Which version and which zone a key goes to are two questions."""
    endpoints: list[Endpoint] = []
    for version in ("1", "2"):
        endpoints += those(f"near-v{version}", 1, len(endpoints), zone="a", version=version)
        endpoints += those(f"far-v{version}", 3, len(endpoints), zone="b", version=version)
    chosen = built(endpoints, preferring("rendezvous", zone="a", versions={"2": 0.3}))
    counts = Counter(keyed(chosen, KEYS).values())
    for version, share in (("1", 0.7), ("2", 0.3)):
        near = share_of(f"near-v{version}", counts)
        assert near == pytest.approx(share / 2, rel=0.15), version
