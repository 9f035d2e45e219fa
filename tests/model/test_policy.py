"""What a caller's author may set: checked when it is made, and every complaint names the field."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from discoclient.model.errors import ConfigError
from discoclient.model.policy import (
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    SlowStartPolicy,
    ThrottlePolicy,
    check_seconds,
)

REQUIRED: dict[type, dict[str, Any]] = {RecoveryPolicy: {"min_working": 1}}

COUNTS = [
    (OutlierPolicy, "min_requests"),
    (HedgePolicy, "min_samples"),
    (RecoveryPolicy, "min_working"),
    (RetryPolicy, "max_attempts"),
    (RetryPolicy, "max_attempts_sent"),
    (OutlierPolicy, "consecutive_failures"),
]
SECONDS = [
    (RetryPolicy, "connect_timeout"),
    (OutlierPolicy, "base_ejection"),
    (OutlierPolicy, "max_ejection"),
    (OutlierPolicy, "success_window"),
    (ThrottlePolicy, "window"),
]
SECONDS_OR_NONE = [
    (RetryPolicy, "backoff_first"),
    (RetryPolicy, "backoff_cap"),
    (RetryPolicy, "max_retry_after"),
    (SlowStartPolicy, "window"),
    (HedgePolicy, "min_delay"),
    (RecoveryPolicy, "hold"),
]
"""Those that may be 0."""
SHARES = [
    (OutlierPolicy, "max_ejected"),
    (OutlierPolicy, "min_success_rate"),
    (RetryPolicy, "budget"),
    (SlowStartPolicy, "floor"),
    (HedgePolicy, "percentile"),
    (HedgePolicy, "budget"),
    (ThrottlePolicy, "max_probability"),
]
NUMBERS = [(RetryPolicy, "budget_reserve"), (ThrottlePolicy, "ratio")]

NEVER_RIGHT = [
    None,
    "",
    "1",
    [],
    {},
    Ellipsis,
    True,
    False,
    float("nan"),
    float("inf"),
    -float("inf"),
    -1,
    -0.5,
    1j,
]


def check(policy: type, field: str, wrong: object) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(**REQUIRED.get(policy, {}) | {field: wrong})
    assert f"{policy.__name__}.{field}" in str(caught.value)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("wrong", NEVER_RIGHT, ids=repr)
@pytest.mark.parametrize(("policy", "field"), COUNTS + SECONDS + SECONDS_OR_NONE + SHARES + NUMBERS)
def test_what_makes_no_sense_is_an_error_that_names_the_field(
    policy: type, field: str, wrong: object
) -> None:
    check(policy, field, wrong)


@pytest.mark.parametrize("wrong", [0, 1.0, 2.5])
@pytest.mark.parametrize(("policy", "field"), COUNTS)
def test_a_count_is_a_whole_number_from_one_on(policy: type, field: str, wrong: object) -> None:
    check(policy, field, wrong)


@pytest.mark.parametrize("wrong", [0, 0.0, 10**400], ids=["0", "0.0", "huge"])
@pytest.mark.parametrize(("policy", "field"), SECONDS)
def test_a_duration_is_more_than_nothing_and_less_than_for_ever(
    policy: type, field: str, wrong: object
) -> None:
    check(policy, field, wrong)


@pytest.mark.parametrize("wrong", [1.001, 2, 50])
@pytest.mark.parametrize(("policy", "field"), SHARES)
def test_a_share_is_between_nothing_and_everything(policy: type, field: str, wrong: object) -> None:
    check(policy, field, wrong)


@pytest.mark.parametrize(("policy", "field"), SECONDS_OR_NONE + SHARES)
def test_nothing_at_all_is_a_choice_where_it_turns_something_off(policy: type, field: str) -> None:
    assert getattr(policy(**REQUIRED.get(policy, {}) | {field: 0}), field) == 0


@pytest.mark.parametrize(
    ("policy", "values"),
    [
        (RetryPolicy, {"max_attempts": 1}),
        (RetryPolicy, {"max_attempts": 100, "max_attempts_sent": 1}),
        (RetryPolicy, {"connect_timeout": 0.001}),
        (RetryPolicy, {"connect_timeout": 5}),
        (OutlierPolicy, {"consecutive_failures": 1}),
        (OutlierPolicy, {"base_ejection": 300, "max_ejection": 300}),
        (OutlierPolicy, {"max_ejected": 0}),
        (OutlierPolicy, {"max_ejected": 1}),
    ],
)
def test_what_makes_sense_is_taken(policy: type, values: dict[str, Any]) -> None:
    made = policy(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_the_longest_ejection_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ConfigError, match=r"OutlierPolicy\.max_ejection.*base_ejection"):
        OutlierPolicy(base_ejection=10, max_ejection=9)


@pytest.mark.parametrize("policy", [RetryPolicy, OutlierPolicy])
def test_policies_are_frozen_and_take_names_only(policy: type) -> None:
    made = policy()
    name = fields(policy)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, 1)
    with pytest.raises(TypeError):
        policy(1)
    assert made == policy()
    assert hash(made) == hash(policy())


def test_the_defaults_are_those_of_the_design() -> None:
    assert RetryPolicy() == RetryPolicy(max_attempts=3, max_attempts_sent=2, connect_timeout=1.0)
    assert OutlierPolicy() == OutlierPolicy(
        consecutive_failures=5, base_ejection=5.0, max_ejection=300.0, max_ejected=0.5
    )


@pytest.mark.parametrize("policy", [RetryPolicy, OutlierPolicy])
def test_every_field_is_documented(policy: type) -> None:
    for field in fields(policy):
        assert f"        {field.name}: " in (policy.__doc__ or "")


def test_durations_are_floats_and_may_be_nothing_where_that_is_allowed() -> None:
    assert check_seconds("x", 3) == 3.0
    assert isinstance(check_seconds("x", 3), float)
    assert check_seconds("x", 0, zero=True) == 0.0
    with pytest.raises(ConfigError, match="x must be a number of seconds, more than 0; got 0"):
        check_seconds("x", 0)
    with pytest.raises(ConfigError, match="0 or more; got -1"):
        check_seconds("x", -1, zero=True)
