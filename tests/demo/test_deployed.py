"""What the demo claims of its deploys follows from what it saw: every claim can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from discoclient.cli.demo_deployed import Deploy, deploy_as_json, deploy_claims, enumerate_words
from discoclient.cli.demo_measures import Call, Claim
from discoclient.serving.drain import Drained
from tests.demo.findings import ENDS, NEW, OLD, REPLACED_AT, STARTED_AT, acts, calls, deploy

BROKEN = "A broken version 2 changed nothing"
NO_FAILURE = "The deploy failed no GET and no POST"
ONCE = "Each POST was done once"
BY_ITSELF = "Version 1 saw its callers leave, and ended"
AT_ONCE = "It was replaced on all hosts at once"
ONLY_NEW = "Since then version 2 answered everything"
ALL = [BROKEN, NO_FAILURE, ONCE, BY_ITSELF, AT_ONCE, ONLY_NEW]

Seen = tuple[Deploy, list[Call]]


def claimed(seen: Seen) -> list[Claim]:
    found, made = seen
    _, _, _, _, broken, act, _ = acts()
    return deploy_claims(found, made, broken=broken, act=act)


def failed(seen: Seen) -> set[str]:
    return {claim.text for claim in claimed(seen) if not claim.held}


def good() -> Seen:
    return deploy(), list(calls())


def with_host(seen: Seen, number: int, **changes: Any) -> Seen:
    found, made = seen
    handovers = list(found.handovers)
    handovers[number] = replace(handovers[number], **changes)
    return replace(found, handovers=handovers), made


def with_attempt(seen: Seen, exit_code: int | None) -> Seen:
    found, made = seen
    first, *others = found.broken
    return replace(found, broken=[replace(first, exit_code=exit_code), *others]), made


def with_calls(seen: Seen, is_meant: Callable[[Call], bool], **changes: Any) -> Seen:
    found, made = seen
    return found, [replace(call, **changes) if is_meant(call) else call for call in made]


def test_all_claims_hold_when_all_went_well() -> None:
    found = claimed(good())
    assert [claim.text for claim in found] == ALL
    assert all(claim.held for claim in found)
    assert [claim.seen for claim in found] == [
        "exit code 3 (3 hosts), 100 answers by version 1",
        "300 requests, 0 failed, 0 tried again",
        "100 sent, 100 done, 0 of them twice",
        "3 clean drains, 1.0 s at most, exit code 0",
        "version 1 was gone after 3.7, 3.7 and 3.7 s",
        "315 answers, by 755, 822 and 967",
    ]


def the_broken_one_ended_well(seen: Seen) -> Seen:
    return with_attempt(seen, 0)


def the_broken_one_ran_on(seen: Seen) -> Seen:
    return with_attempt(seen, None)


def the_broken_one_was_registered(seen: Seen) -> Seen:
    found, made = seen
    return replace(found, strangers=[599]), made


def a_post_failed_beside_the_broken_one(seen: Seen) -> Seen:
    return with_calls(
        seen,
        lambda call: call.post is not None and call.began < ENDS[3] + 0.3,
        number=None,
        error="ReadError: reset",
    )


def a_post_failed_in_the_deploy(seen: Seen) -> Seen:
    return with_calls(
        seen,
        lambda call: call.post is not None and REPLACED_AT - 0.3 < call.began < REPLACED_AT,
        number=None,
        error="ReadError: reset",
    )


def only_sync_callers_sent_posts(seen: Seen) -> Seen:
    return with_calls(seen, lambda call: call.post is not None, caller="sync")


def a_post_was_done_twice(seen: Seen) -> Seen:
    found, made = seen
    return replace(found, done=[*found.done, found.done[0]]), made


def a_post_was_not_done(seen: Seen) -> Seen:
    found, made = seen
    return replace(found, done=found.done[1:]), made


def nobody_asked(seen: Seen) -> Seen:
    return with_host(seen, 0, why="")


def somebody_else_asked(seen: Seen) -> Seen:
    return with_host(seen, 0, why="no reason given (asked by disco drain)")


def it_was_killed(seen: Seen) -> Seen:
    return with_host(seen, 1, exit_code=-9)


def it_still_runs(seen: Seen) -> Seen:
    return with_host(seen, 1, exit_code=None)


def it_did_not_drain(seen: Seen) -> Seen:
    return with_host(seen, 2, drained=None)


def a_caller_did_not_answer(seen: Seen) -> Seen:
    return with_host(seen, 2, drained=Drained(is_clean=False, seconds=20.0, callers=1, problem="1 of 1"))


def no_caller_was_seen(seen: Seen) -> Seen:
    return with_host(seen, 2, drained=Drained(is_clean=True, seconds=1.0, callers=0))


def one_host_was_not_replaced(seen: Seen) -> Seen:
    return with_host(seen, 1, left_at=None)


def one_host_had_to_wait_for_another(seen: Seen) -> Seen:
    return with_host(seen, 2, started_at=REPLACED_AT, left_at=REPLACED_AT + STARTED_AT - 15.5)


def version_1_answered_afterwards(seen: Seen) -> Seen:
    found, made = seen
    return found, [*made, Call("sync", ENDS[5] + 1, ENDS[5] + 1.01, OLD[0])]


def one_of_version_2_got_nothing(seen: Seen) -> Seen:
    return with_calls(seen, lambda call: call.number == NEW[1], number=NEW[0])


SPOILED = [
    (the_broken_one_ended_well, {BROKEN}),
    (the_broken_one_ran_on, {BROKEN}),
    (the_broken_one_was_registered, {BROKEN}),
    (a_post_failed_beside_the_broken_one, {BROKEN}),
    (a_post_failed_in_the_deploy, {NO_FAILURE}),
    (only_sync_callers_sent_posts, {NO_FAILURE}),
    (a_post_was_done_twice, {ONCE}),
    (a_post_was_not_done, {ONCE}),
    (nobody_asked, {BY_ITSELF}),
    (somebody_else_asked, {BY_ITSELF}),
    (it_was_killed, {BY_ITSELF}),
    (it_still_runs, {BY_ITSELF}),
    (it_did_not_drain, {BY_ITSELF}),
    (a_caller_did_not_answer, {BY_ITSELF}),
    (no_caller_was_seen, {BY_ITSELF}),
    (one_host_was_not_replaced, {AT_ONCE, ONLY_NEW}),
    (one_host_had_to_wait_for_another, {AT_ONCE}),
    (version_1_answered_afterwards, {ONLY_NEW}),
    (one_of_version_2_got_nothing, {ONLY_NEW}),
]


@pytest.mark.parametrize(("spoil", "expected"), SPOILED, ids=[spoil.__name__ for spoil, _ in SPOILED])
def test_a_claim_fails_when_it_was_not_so(spoil: Callable[[Seen], Seen], expected: set[str]) -> None:
    assert failed(spoil(good())) == expected


def test_every_claim_is_spoiled_by_some_test() -> None:
    assert set().union(*(expected for _, expected in SPOILED)) == set(ALL)


def test_nothing_is_claimed_of_callers_that_called_nothing() -> None:
    found, _ = good()
    assert failed((found, [])) == {BROKEN, NO_FAILURE, ONCE, ONLY_NEW}


def test_nothing_is_claimed_of_a_deploy_that_was_none() -> None:
    found, made = good()
    assert failed((replace(found, broken=[], handovers=[]), made)) == {BROKEN, BY_ITSELF, AT_ONCE, ONLY_NEW}


def test_the_json_says_the_same() -> None:
    found = json.loads(json.dumps(deploy_as_json(deploy())))
    assert found["broken"][0] == {
        "hostname": "web-1",
        "exit_code": 3,
        "said": ["no such table", "disco: it was not ready"],
    }
    assert found["hosts"][1] == {
        "hostname": "web-2",
        "version_1": 489,
        "version_2": 822,
        "registered_after": 1.49,
        "draining_after": 2.59,
        "gone_after": 3.69,
        "why": "replaced by 2 0f3c8a1b (asked by disco run on web-1)",
        "drain_clean": True,
        "drain_seconds": 1.04,
        "callers_acknowledged": 1,
        "exit_code": 0,
    }
    assert found["posts_done"] == 100


def test_of_a_host_that_was_not_replaced_the_json_says_nothing_that_was_not_seen() -> None:
    found, _ = with_host(good(), 0, registered_at=None, asked_at=None, left_at=None, drained=None)
    told = deploy_as_json(found)["hosts"][0]
    assert {name for name, value in told.items() if value is None} == {
        "registered_after",
        "draining_after",
        "gone_after",
        "drain_seconds",
        "callers_acknowledged",
    }
    assert told["drain_clean"] is False


@pytest.mark.parametrize(
    ("words", "text"), [([], "none"), (["a"], "a"), (["a", "b"], "a and b"), ([1, 2, 3], "1, 2 and 3")]
)
def test_words_are_enumerated_as_people_do(words: list[object], text: str) -> None:
    assert enumerate_words(words) == text
