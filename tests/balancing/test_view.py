"""Reconciling, and the view that comes of it. Virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from discoclient.balancing.balancer import find_balancer
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.reconcile import reconcile
from discoclient.balancing.view import View, build_view
from discoclient.model.instance import Instance, State
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.snapshot import Snapshot
from tests.balancing.fleet import BALANCERS, eject, fleet, instance, observe, view

every_balancer = pytest.mark.parametrize("balancer", BALANCERS)


def snapshot(*instances: Instance, revision: int = 1) -> Snapshot:
    return Snapshot("web", revision, {instance.id: instance for instance in instances})


def known(*instances: Instance) -> Mapping[str, Endpoint]:
    return reconcile({}, snapshot(*instances), 0.0)[0]


# ---- reconcile


def test_survivors_keep_their_endpoint() -> None:
    before = known(instance(1), instance(2))
    after, left = reconcile(before, snapshot(instance(1), instance(2), instance(3)), 0.0)
    assert set(after) == {"instance-1", "instance-2", "instance-3"}
    assert after["instance-1"] is before["instance-1"]
    assert after["instance-2"] is before["instance-2"]
    assert left == []


def test_a_survivors_newer_record_is_taken_over() -> None:
    before = known(instance(1))
    ticket = before["instance-1"].start(0.0)
    after, left = reconcile(before, snapshot(instance(1, weight=7, state=State.UNREADY)), 0.0)
    assert after["instance-1"] is before["instance-1"]
    assert after["instance-1"].instance.weight == 7
    assert after["instance-1"].in_flight == 1
    assert left == []
    ticket.close()


def test_what_was_known_before_is_not_changed() -> None:
    before = known(instance(1), instance(2))
    copy = dict(before)
    reconcile(before, snapshot(instance(3)), 0.0)
    assert before == copy


def test_leavers_are_returned_and_left_for_the_caller_to_retire() -> None:
    before = known(instance(1), instance(2))
    after, left = reconcile(before, snapshot(instance(2)), 0.0)
    assert left == [before["instance-1"]]
    assert not before[
        "instance-1"
    ].is_retired  # first the new set is published, then picks of the old one are refused
    assert set(after) == {"instance-2"}


@pytest.mark.parametrize("changes", [{"port": 1}, {"host": "10.0.0.2"}, {"scheme": "https"}])
def test_another_address_is_another_endpoint(changes: dict[str, object]) -> None:
    before = known(instance(1))
    after, left = reconcile(before, snapshot(instance(1, **changes)), 0.0)
    assert after["instance-1"] is not before["instance-1"]
    assert left == [before["instance-1"]]


def test_whoever_begins_to_drain_stays_known_and_ends_up_retired() -> None:
    before = known(instance(1), instance(2))
    after, left = reconcile(before, snapshot(instance(1, state=State.DRAINING), instance(2)), 0.0)
    for endpoint in left:
        endpoint.retire()
    assert after["instance-1"] is before["instance-1"]
    assert after["instance-1"].is_retired
    assert not after["instance-2"].is_retired


def test_a_newcomer_is_taken_to_be_as_fast_as_the_median() -> None:
    before = known(*map(instance, range(3)))
    for number, latency in enumerate((0.1, 0.3, 2.0)):
        observe(before[f"instance-{number}"], Outcome(OutcomeKind.RESPONSE, latency, 200), 0.0)
    after, _ = reconcile(before, snapshot(*map(instance, range(5))), 0.0)
    assert after["instance-3"].latency(0.0) == 0.3
    assert after["instance-4"].latency(0.0) == 0.3
    assert after["instance-3"].first_seen == 0.0


def test_the_median_is_that_of_now() -> None:
    before = known(instance(1))
    observe(before["instance-1"], Outcome(OutcomeKind.RESPONSE, 1.0, 200), 0.0)
    after, _ = reconcile(before, snapshot(instance(1), instance(2)), 10.0)
    assert after["instance-2"].latency(10.0) == pytest.approx(0.3679, abs=0.0001)


def test_the_first_ones_are_nothing_yet() -> None:
    after, left = reconcile({}, snapshot(instance(1), instance(2)), 5.0)
    assert [endpoint.latency(5.0) for endpoint in after.values()] == [0.0, 0.0]
    assert left == []


def test_a_large_fleets_newcomer_is_near_the_median_too() -> None:
    before = known(*map(instance, range(1000)))
    for number, endpoint in enumerate(before.values()):
        observe(endpoint, Outcome(OutcomeKind.RESPONSE, 0.1 + number / 1000, 200), 0.0)
    after, _ = reconcile(before, snapshot(*map(instance, range(1001))), 0.0)
    assert after["instance-1000"].latency(0.0) == pytest.approx(0.6, rel=0.1)


def test_gone_and_back_within_one_change_is_somebody_else_if_the_address_changed() -> None:
    """A snapshot is all there is to see: the same id at the same address is the same endpoint."""
    before = known(instance(1))
    after, left = reconcile(before, snapshot(replace(instance(1))), 0.0)
    assert after["instance-1"] is before["instance-1"]
    assert left == []


def test_to_know_what_changed_gives_the_same_as_to_look_at_everything() -> None:
    old = [instance(number) for number in range(6)]
    new = [old[0], instance(1, weight=3), instance(2, port=1), old[4], instance(7)]
    changed = {"instance-1", "instance-2", "instance-3", "instance-5", "instance-7"}
    results = []
    for hint in (None, changed):
        before = known(*old)
        after, left = reconcile(before, snapshot(*new), 0.0, *([] if hint is None else [hint]))
        kept = {id for id, endpoint in after.items() if before.get(id) is endpoint}
        weights = {id: endpoint.instance.weight for id, endpoint in after.items()}
        results.append((kept, weights, {endpoint.id for endpoint in left}))
    assert results[0] == results[1]
    assert results[0][0] == {"instance-0", "instance-1", "instance-4"}
    assert results[0][2] == {"instance-2", "instance-3", "instance-5"}


# ---- views


def picks(
    chosen: View, count: int = 200, *, tried: frozenset[str] = frozenset(), now: float = 0.0
) -> set[str]:
    return {endpoint.id for endpoint in (chosen.pick(now, tried) for _ in range(count)) if endpoint}


def build(balancer: str, *instances: Instance) -> View:
    return build_view(
        snapshot(*instances), known(*instances), Preferences(balancer=find_balancer(balancer)), Random(1)
    )


@every_balancer
def test_what_drains_is_never_picked(balancer: str) -> None:
    assert picks(build(balancer, instance(1), instance(2, state=State.DRAINING))) == {"instance-1"}
    assert picks(build(balancer, instance(2, state=State.DRAINING))) == set()


@every_balancer
def test_what_is_unready_is_picked_only_if_nothing_else_is_left(balancer: str) -> None:
    chosen = build(balancer, instance(1), instance(2, state=State.UNREADY))
    assert picks(chosen) == {"instance-1"}
    assert picks(chosen, tried=frozenset({"instance-1"})) == {"instance-2"}
    unready = [instance(number, state=State.UNREADY) for number in (1, 2)]
    assert picks(build(balancer, *unready)) == {"instance-1", "instance-2"}
    drains = instance(3, state=State.DRAINING)
    assert picks(build(balancer, unready[0], drains)) == {"instance-1"}


@every_balancer
@pytest.mark.parametrize("standby", [{"weight": 0}, {"state": State.UNREADY}], ids=str)
def test_standbys_are_there_for_when_the_others_are_ejected(balancer: str, standby: dict[str, Any]) -> None:
    """Without a detour by the first attempt of each call, and until the others are well again (Envoy's priorities)."""
    chosen = build(balancer, instance(1), instance(2, **standby), instance(3, **standby))
    eject(chosen.endpoints["instance-1"], seconds=10.0)
    assert picks(chosen, now=1.0) == {"instance-2", "instance-3"}
    assert picks(chosen, now=1.0, tried=frozenset({"instance-2", "instance-3"})) == {"instance-1"}
    assert "instance-1" in picks(chosen, now=100.0), "it is tried out when its time is over"
    for endpoint in chosen.endpoints.values():
        eject(endpoint, 100.0)
    assert picks(chosen, now=101.0) == {"instance-1"}, (
        "if all are alike, what the service says of itself counts"
    )


@every_balancer
def test_a_view_of_nothing_has_nothing(balancer: str) -> None:
    assert build(balancer).pick(0.0) is None


def test_a_view_keeps_its_snapshot_and_its_endpoints() -> None:
    endpoints = {endpoint.id: endpoint for endpoint in fleet(2)}
    taken = snapshot(*(endpoint.instance for endpoint in endpoints.values()), revision=77)
    chosen = build_view(taken, endpoints, Preferences(balancer=find_balancer("random")), Random(1))
    assert chosen.snapshot.revision == 77
    assert chosen.endpoints is endpoints


def test_views_do_not_share_what_they_remember() -> None:
    endpoints = fleet(3)
    first, second = (view(endpoints, "round_robin", seed=5) for _ in range(2))
    assert [first.pick(0.0) for _ in range(3)] == [second.pick(0.0) for _ in range(3)]
