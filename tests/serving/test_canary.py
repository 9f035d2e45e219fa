"""A canary: what is asked of its callers, and what their word is worth."""

from __future__ import annotations

import pytest

from discoclient import ConfigError
from discoclient.registry.presence import Outcomes, Presence
from discoclient.serving.canary import LEAST_FAILURES, LEAST_REQUESTS, Jury, Threshold, parse_threshold

ME = "instance-0001"


def said(**outcomes: tuple[int, int]) -> dict[str, Presence]:
    return {
        id: Presence(id=id, outcomes={ME: Outcomes(*pair), "instance-0002": Outcomes(1000, 1000)})
        for id, pair in outcomes.items()
    }


def jury(rate: float = 0.02) -> Jury:
    return Jury(ME, Threshold(rate))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("error_rate > 0.02", 0.02),
        ("error_rate>2%", 0.02),
        (" error_rate >  .5 ", 0.5),
        ("error_rate > 0", 0.0),
    ],
)
def test_a_threshold_is_a_share_or_a_percentage(text: str, rate: float) -> None:
    assert parse_threshold(text) == Threshold(rate)


@pytest.mark.parametrize(
    "text",
    ["", "0.02", "error_rate < 0.02", "error_rate > 1", "error_rate > 100%", "errors > 2", "error_rate > x"],
)
def test_anything_else_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ConfigError, match=r"error_rate > 0\.02"):
        parse_threshold(text)


def test_too_many_failures_speak_against_it_whoever_saw_them() -> None:
    judge = jury()
    judge.heard(said(one=(15, 2), two=(15, 1)))
    assert judge.total == Outcomes(30, 3)
    assert "3 of 30 requests fail (10.0%)" in judge.objection
    assert "error_rate > 0.02" in judge.objection


def test_what_is_allowed_does_not() -> None:
    judge = jury(0.1)
    judge.heard(said(one=(30, 3)))
    assert (judge.objection, judge.doubt) == ("", "")
    judge.heard(said(one=(30, 4)))
    assert judge.objection


def test_few_requests_decide_nothing() -> None:
    judge = jury(0.0)
    judge.heard(said(one=(LEAST_REQUESTS - 1, LEAST_REQUESTS - 1)))
    assert judge.objection == ""
    assert f"{LEAST_REQUESTS - 1} requests so far" in judge.doubt
    judge.heard(said(one=(LEAST_REQUESTS, LEAST_REQUESTS)))
    assert judge.objection
    assert judge.doubt == ""


def test_few_failures_speak_against_nobody() -> None:
    judge = jury(0.0)
    judge.heard(said(one=(1000, LEAST_FAILURES - 1)))
    assert judge.objection == ""
    judge.heard(said(one=(1000, LEAST_FAILURES)))
    assert judge.objection


def test_a_caller_that_is_gone_has_said_what_it_said_and_one_that_stays_is_counted_once() -> None:
    judge = jury()
    judge.heard(said(one=(10, 2)))
    judge.heard(said(two=(10, 1)))
    judge.heard(said(two=(12, 1)))
    assert judge.total == Outcomes(22, 3)


def test_who_says_nothing_of_it_counts_for_nothing() -> None:
    judge = jury()
    judge.heard({"one": Presence(id="one")})
    assert judge.total == Outcomes(0, 0)
