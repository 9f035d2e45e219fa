"""The explanation says what is: compared with what the endpoints do. Virtual time."""

from __future__ import annotations

import json
from random import Random

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.explanation import Candidate, Explanation, explain
from discoclient.balancing.preferences import Preferences
from discoclient.model.instance import State
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.policy import OutlierPolicy, SlowStartPolicy
from tests.balancing.building import built, check_shares, preferring
from tests.balancing.fleet import BALANCERS, OK, SILENT, eject, fleet, instance, play

POLICY = OutlierPolicy()


def explained(
    endpoints: list[Endpoint],
    now: float = 0.0,
    *,
    preferences: Preferences | None = None,
    outlier: OutlierPolicy = POLICY,
    age: float | None = 0.5,
    is_panic: bool = False,
    counts: dict[str, int] | None = None,
) -> Explanation:
    preferences = preferences or preferring("peak_ewma")
    chosen = built(endpoints, preferences, now=now)
    return explain(
        chosen, preferences, outlier, now, age=age, phase="live", is_panic=is_panic, counts=counts or {}
    )


def by_id(explanation: Explanation) -> dict[str, Candidate]:
    return {candidate.instance.id: candidate for candidate in explanation.candidates}


def attempt(endpoint: Endpoint, outcome: Outcome, now: float) -> None:
    ticket = endpoint.start(now)
    endpoint.learn(ticket, outcome, now, POLICY, lambda endpoint: None, Random(1))
    ticket.close()


def test_what_is_said_of_the_service_is_what_was_given() -> None:
    found = explained(fleet(3), age=7.0, is_panic=True, counts={"retries": 4})
    assert (found.service, found.revision, found.age, found.phase) == ("web", 1, 7.0, "live")
    assert (found.balancer, found.is_suspect, found.is_panic) == ("PeakEwma", False, True)
    assert found.counts == {"retries": 4}


def test_standings_are_in_the_order_in_which_they_are_called() -> None:
    endpoints = fleet(5)
    endpoints[0].hold()
    endpoints[1].update(instance(1, state=State.DRAINING))
    endpoints[2].update(instance(2, state=State.UNREADY))
    endpoints[3].update(instance(3, weight=0))
    found = explained(endpoints)
    assert [(each.instance.id, each.standing) for each in found.candidates] == [
        ("instance-4", "ready"),
        ("instance-3", "weight 0"),
        ("instance-2", "unready"),
        ("instance-0", "vanished"),
        ("instance-1", "draining"),
    ]
    chosen = built(endpoints, preferring())
    order: list[str] = []
    while (endpoint := chosen.pick(0.0, order)) is not None:
        order.append(endpoint.id)
    assert order == [each.instance.id for each in found.candidates if each.standing != "draining"]


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("age", [0.0, 3.5, 9.9, 10.0])
def test_the_weights_are_the_shares_that_come_out(balancer: str, age: float) -> None:
    endpoints = fleet(4, weights=[100, 300, 100, 200], latency=0.01)
    endpoints[3].first_seen = 1000.0
    now = 1000.0 + age
    preferences = preferring(balancer)
    weights = {
        each.instance.id: each.weight
        for each in explained(endpoints, now, preferences=preferences).candidates
    }
    assert weights["instance-3"] == pytest.approx(200 * min(1.0, max(0.1, int(age) / 10)))
    check_shares(play(built(endpoints, preferences, now=now), 5000, now=now), weights)


def test_a_slow_start_of_the_preferences_is_what_counts() -> None:
    endpoints = fleet(3)
    endpoints[2].first_seen = 1000.0
    off = preferring(slow_start=SlowStartPolicy(window=0.0))
    assert by_id(explained(endpoints, 1000.0))["instance-2"].weight == 10.0
    assert by_id(explained(endpoints, 1000.0, preferences=off))["instance-2"].weight == 100.0


def test_load_and_latency_are_those_that_are_compared() -> None:
    endpoints = fleet(2, latency=0.02)
    endpoints[1].start(0.0)
    attempt(endpoints[0], Outcome(OutcomeKind.RESPONSE, 0.3, 200), 0.0)
    for now in (0.0, 4.0):
        for id, candidate in by_id(explained(endpoints, now)).items():
            endpoint = endpoints[int(id[-1])]
            assert candidate.in_flight == endpoint.in_flight
            assert candidate.latency == endpoint.latency(now)
            assert candidate.cost == endpoint.cost(now)
            assert candidate.known_for == now


def test_counts_are_those_of_what_was_sent_and_came_back() -> None:
    (endpoint, _) = endpoints = fleet(2)
    for number, outcome in enumerate([OK, OK, SILENT, OK, SILENT, SILENT]):
        attempt(endpoint, outcome, 100.0 + number)
    found = by_id(explained(endpoints, 106.0))["instance-0"]
    assert (found.requests, found.failures, found.failures_in_a_row) == (6, 3, 1)
    assert (found.success_rate, found.answers) == (0.0, 1), "those it was ejected for are forgotten"
    assert found.reason == "success_rate"
    other = by_id(explained(endpoints, 106.0))["instance-1"]
    assert (other.requests, other.failures, other.reason, other.ejected_for) == (0, 0, None, None)


def test_the_success_rate_is_of_the_window_of_the_policy() -> None:
    (endpoint,) = endpoints = fleet(1)
    for outcome in (OK, OK, OK, SILENT):
        attempt(endpoint, outcome, 100.0)
    assert by_id(explained(endpoints, 110.0))["instance-0"].success_rate == 0.75
    assert by_id(explained(endpoints, 110.0))["instance-0"].answers == 4
    short = OutlierPolicy(success_window=5.0)
    assert by_id(explained(endpoints, 110.0, outlier=short))["instance-0"].answers == 0


def test_an_ejection_is_told_with_its_reason_until_a_probe_went_well() -> None:
    endpoints = fleet(3)
    (endpoint, *_) = endpoints
    eject(endpoint, seconds=100.0)
    until = endpoint.accrual.until
    found = by_id(explained(endpoints, 10.0))["instance-0"]
    assert (found.ejected_for, found.reason) == (until - 10.0, "connect")
    found = by_id(explained(endpoints, until + 5.0))["instance-0"]
    assert (found.ejected_for, found.reason) == (0.0, "connect")
    assert not endpoint.is_ejected(until + 5.0)
    attempt(endpoint, OK, until + 5.0)
    found = by_id(explained(endpoints, until + 5.0))["instance-0"]
    assert (found.ejected_for, found.reason) == (None, None)


def test_the_table_says_it_to_people() -> None:
    endpoints = fleet(3, latency=0.01, version="2.4.1", zone="eu-1")
    eject(endpoints[1], seconds=100.0)
    attempt(endpoints[0], OK, 0.0)
    now = endpoints[1].accrual.until - 60.0
    text = str(explained(endpoints, now, age=None, is_panic=True, counts={"retries": 2, "hedges": 1}))
    head, *lines = text.splitlines()
    assert head == "web: 3 known as of revision 1 (live, never proved), by PeakEwma, in panic"
    assert lines[-1] == "  hedges 1, retries 2"
    assert "left alone for 60.0 s (connect)" in lines[1]
    assert "left alone" not in lines[0] + lines[2]
    for number, line in enumerate(lines[:3]):
        for word in (f"10.0.0.1:800{number}", f"instance-{number}", "ready", "2.4.1", "eu-1", "weight 100"):
            assert word in line
    later = str(explained(endpoints, now + 61.0, age=3.21))
    assert "left alone until a probe goes well (connect)" in later
    assert "(live, 3.2 s old), by PeakEwma\n" in later
    assert "panic" not in later


def test_rows_are_plain_values_for_programs() -> None:
    endpoints = fleet(2, version="1")
    eject(endpoints[0])
    found = explained(endpoints, 1.0)
    rows = json.loads(json.dumps(found.rows()))
    assert [row["id"] for row in rows] == ["instance-0", "instance-1"]
    assert rows[0]["address"] == "10.0.0.1:8000"
    assert (rows[0]["version"], rows[0]["zone"]) == ("1", None)
    for row, candidate in zip(rows, found.candidates, strict=True):
        for name in Candidate.__dataclass_fields__:
            if name != "instance":
                assert row[name] == getattr(candidate, name), name
