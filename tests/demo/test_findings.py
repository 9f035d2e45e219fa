"""What the demo claims follows from what it saw: every claim can fail, and says what was seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from discoclient.cli.demo_findings import Findings, as_json, claims
from discoclient.cli.demo_measures import Act, Call, Moved, find_moved, longest_pause, share
from tests.demo.findings import DEAD_AT, ENDS, FIRST, GONE_AT, JOINED_AT, KILLED, KILLED_AT, NEWCOMER, good

NO_FAILURE = "No idempotent request (GET) failed"
NO_WAIT = "Callers, sync and async, never waited long"
SHARES = "Every instance got its share"
LEFT_ALONE = "The killed instance was left alone"
LEFT_REGISTRY = "It left the registry with its lease (3 s)"
FAILED_OVER = "Losing etcd's leader disturbed nobody"
JOINED = "A new instance was found and got its share"
WITHOUT_ETCD = "Requests went on without etcd; age was told"

HERE = [NO_FAILURE, NO_WAIT, SHARES, LEFT_ALONE, LEFT_REGISTRY, FAILED_OVER, JOINED, WITHOUT_ETCD]
"""The claims that are spoiled here; those about the deploys are in test_deployed.py."""


def failed(findings: Findings) -> set[str]:
    return {claim.text for claim in claims(findings) if not claim.held}


def with_calls(findings: Findings, change: Callable[[Call], Call | None]) -> Findings:
    changed = (change(call) for call in findings.calls)
    return replace(findings, calls=tuple(call for call in changed if call is not None))


def test_all_claims_hold_when_all_went_well() -> None:
    found = claims(good())
    assert [claim.text for claim in found if claim.text in HERE] == HERE
    assert len(found) == len(HERE) + 6
    assert all(claim.held for claim in found)


def one_request_failed(findings: Findings) -> Findings:
    bad = Call("sync", 4.0, 4.1, None, error="ConnectError: refused")
    return replace(findings, calls=(*findings.calls, bad))


def async_callers_waited(findings: Findings) -> Findings:
    return with_calls(
        findings, lambda call: None if call.caller == "async" and 8.5 < call.ended < 10.7 else call
    )


def sync_callers_stopped_before_the_end(findings: Findings) -> Findings:
    return with_calls(findings, lambda call: None if call.caller == "sync" and call.ended > 23.9 else call)


def one_instance_was_forgotten(findings: Findings) -> Findings:
    return with_calls(
        findings,
        lambda call: replace(call, number=FIRST[0]) if call.number == FIRST[2] and call.began < 2.8 else call,
    )


def the_dead_answered(findings: Findings) -> Findings:
    return replace(findings, calls=(*findings.calls, Call("sync", DEAD_AT + 0.5, DEAD_AT + 0.51, KILLED)))


def the_dead_stayed(findings: Findings) -> Findings:
    return replace(findings, left_at=None)


def the_dead_stayed_too_long(findings: Findings) -> Findings:
    return replace(findings, left_at=KILLED_AT + 3.0 + 6.1)


def nobody_led(findings: Findings) -> Findings:
    return replace(findings, new_leader="")


def the_old_leader_still_led(findings: Findings) -> Findings:
    return replace(findings, new_leader=findings.old_leader)


def an_instance_was_lost_with_the_leader(findings: Findings) -> Findings:
    act = findings.acts[2]
    return with_calls(
        findings,
        lambda call: (
            replace(call, number=FIRST[0])
            if call.number == FIRST[2] and act.began <= call.began < act.ended
            else call
        ),
    )


def the_newcomer_got_nothing(findings: Findings) -> Findings:
    return with_calls(
        findings, lambda call: replace(call, number=FIRST[0]) if call.number == NEWCOMER else call
    )


def the_newcomer_got_its_first_request_late(findings: Findings) -> Findings:
    return replace(findings, joined_at=JOINED_AT - 2.1)


def the_newcomer_got_one_request(findings: Findings) -> Findings:
    kept = next(call for call in findings.calls if call.number == NEWCOMER)
    return with_calls(
        findings,
        lambda call: replace(call, number=FIRST[0]) if call.number == NEWCOMER and call is not kept else call,
    )


def age_stood_still(findings: Findings) -> Findings:
    return replace(findings, ages=tuple((at, 0.2) for at, _ in findings.ages))


def age_was_not_asked(findings: Findings) -> Findings:
    return replace(findings, ages=findings.ages[:1])


SPOILED = [
    (one_request_failed, {NO_FAILURE}),
    (async_callers_waited, {NO_WAIT}),
    (sync_callers_stopped_before_the_end, {NO_WAIT}),
    (one_instance_was_forgotten, {SHARES}),
    (the_dead_answered, {LEFT_ALONE}),
    (the_dead_stayed, {LEFT_REGISTRY}),
    (the_dead_stayed_too_long, {LEFT_REGISTRY}),
    (nobody_led, {FAILED_OVER}),
    (the_old_leader_still_led, {FAILED_OVER}),
    (an_instance_was_lost_with_the_leader, {FAILED_OVER}),
    (the_newcomer_got_nothing, {JOINED}),
    (the_newcomer_got_its_first_request_late, {JOINED}),
    (the_newcomer_got_one_request, {JOINED}),
    (age_stood_still, {WITHOUT_ETCD}),
    (age_was_not_asked, {WITHOUT_ETCD}),
]


@pytest.mark.parametrize(("spoil", "expected"), SPOILED, ids=[spoil.__name__ for spoil, _ in SPOILED])
def test_a_claim_fails_when_it_was_not_so(spoil: Callable[[Findings], Findings], expected: set[str]) -> None:
    assert failed(spoil(good())) == expected


def test_every_claim_is_spoiled_by_some_test() -> None:
    assert set().union(*(expected for _, expected in SPOILED)) == set(HERE)


def test_nothing_is_claimed_of_callers_that_called_nothing() -> None:
    nothing = failed(replace(good(), calls=()))
    assert nothing >= set(HERE) - {LEFT_REGISTRY}


def test_requests_that_fail_once_etcd_is_gone_break_the_claims_about_answers() -> None:
    findings = with_calls(
        good(),
        lambda call: (
            replace(call, number=None, error="NoInstances: none") if call.began >= GONE_AT + 3.8 else call
        ),
    )
    assert failed(findings) == {NO_FAILURE, WITHOUT_ETCD, "Since then version 2 answered everything"}


def test_a_failure_is_quoted_where_it_counts() -> None:
    claim = claims(one_request_failed(good()))[0]
    assert claim.seen == "1,201 requests, 1 failed (ConnectError: refused)"


def test_the_json_says_the_same() -> None:
    found = json.loads(json.dumps(as_json(good())))
    assert found["held"] is True
    assert found["requests"] == 1300
    assert found["failed"] == 0
    assert found["left_registry_after"] == pytest.approx(3.19)
    assert found["moved_after"] == pytest.approx(0.034)
    assert found["newcomer_first_answer_after"] == pytest.approx(0.044, abs=0.04)
    assert [act["requests"] for act in found["acts"]] == [150, 250, 100, 200, 100, 300, 200]
    assert found["acts"][0]["answers"] == {"105": 50, "268": 50, "308": 50}
    assert found["acts"][1]["retried"] == 1
    assert [act["posts"] for act in found["acts"]] == [0, 0, 0, 0, 24, 76, 0]
    assert [claim["claim"] for claim in found["claims"] if claim["claim"] in HERE] == HERE
    assert as_json(one_request_failed(good()))["held"] is False
    assert as_json(the_dead_stayed(good()))["left_registry_after"] is None


# ---- measures


def call(ended: float, *, attempts: int = 1, number: int | None = 1, error: str = "") -> Call:
    return Call("sync", ended - 0.01, ended, number, attempts, error)


def test_traffic_has_moved_with_the_last_request_that_was_tried_again() -> None:
    calls = [call(9.9, attempts=2), call(10.1, attempts=2), call(10.2), call(10.4, attempts=3), call(10.9)]
    assert find_moved(calls, 10.0) == Moved(pytest.approx(0.4), 2, 0)


def test_who_looks_later_whether_it_is_back_is_a_probe() -> None:
    calls = [call(10.1, attempts=2), call(14.0, attempts=2)]
    assert find_moved(calls, 10.0) == Moved(pytest.approx(0.1), 1, 1)


def test_traffic_has_moved_at_once_when_nobody_met_the_dead() -> None:
    assert find_moved([call(10.5)], 10.0) == Moved(0.0, 0, 0)


def test_the_longest_pause_counts_answers_and_both_ends() -> None:
    calls = [call(1.0), call(1.5), call(2.0, number=None, error="no"), call(3.0)]
    assert longest_pause(calls, 0.5, 3.5) == pytest.approx(1.5)
    assert longest_pause(calls, 0.5, 8.0) == pytest.approx(5.0)
    assert longest_pause([], 1.0, 4.0) == pytest.approx(3.0)


def test_a_share_is_one_when_it_is_equal() -> None:
    calls = [
        call(1.0, number=1),
        call(1.0, number=1),
        call(1.0, number=2),
        call(1.0, number=None, error="no"),
    ]
    assert share(calls, 1, 2) == pytest.approx(4 / 3)
    assert share(calls, 3, 3) == 0.0
    assert share([], 1, 3) == 0.0


def test_a_call_belongs_to_the_act_in_which_it_began() -> None:
    act = Act(2, "second", ENDS[0], ENDS[1])
    at_start, before, at_end = call(ENDS[0] + 0.01), call(ENDS[0]), call(ENDS[1] + 0.01)
    assert act.calls([at_start, before, at_end]) == [at_start]
