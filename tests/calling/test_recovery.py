"""Recovery: when it begins, what passes, when it is over."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.calling.recovery import Recovery
from discoclient.model.policy import RecoveryPolicy
from tests.support.properties import thorough


class Draws(Random):
    """A generator that always draws the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


UNLUCKY = Draws(0.999999)
RNG = Random(1)


def after_an_outage(min_working: int = 4, hold: float = 3.0) -> Recovery:
    recovery = Recovery(RecoveryPolicy(min_working=min_working, hold=hold))
    assert recovery.admit(0, 0.0, UNLUCKY) is None
    assert recovery.is_recovering
    return recovery


def test_few_endpoints_are_no_reason_without_an_outage_before() -> None:
    recovery = Recovery(RecoveryPolicy(min_working=4))
    assert [recovery.admit(usable, 0.0, UNLUCKY) for usable in (1, 4, 2, 1)] == [None] * 4
    assert not recovery.is_recovering


def test_after_an_outage_requests_pass_in_proportion() -> None:
    for usable, min_working in ((1, 4), (3, 4), (1, 10)):
        recovery = after_an_outage(min_working)
        passed = sum(recovery.admit(usable, 1.0, RNG) is None for _ in range(4000))
        assert passed / 4000 == pytest.approx(usable / min_working, abs=0.03)


def test_without_the_rule_the_first_one_back_would_get_everything() -> None:
    """Negative control: no call saw the outage."""
    recovery = Recovery(RecoveryPolicy(min_working=10))
    assert all(recovery.admit(1, 1.0, RNG) is None for _ in range(4000))


def test_a_refusal_says_how_likely_it_was() -> None:
    assert after_an_outage().admit(1, 1.0, Draws(0.2500)) == 0.75
    assert after_an_outage().admit(1, 1.0, Draws(0.2499)) is None
    assert after_an_outage().admit(3, 1.0, UNLUCKY) == 0.25


def test_while_none_is_usable_every_request_passes() -> None:
    recovery = after_an_outage()
    assert all(recovery.admit(0, now, UNLUCKY) is None for now in (0.1, 1.0, 100.0))
    assert recovery.is_recovering


def test_it_is_over_when_enough_are_back() -> None:
    recovery = after_an_outage()
    assert recovery.admit(3, 1.0, UNLUCKY) is not None
    assert recovery.admit(4, 1.1, UNLUCKY) is None
    assert recovery.admit(1, 1.2, UNLUCKY) is None
    assert not recovery.is_recovering


def test_it_is_over_when_their_number_has_held() -> None:
    for hold in (3.0, 7.0):
        recovery = after_an_outage(hold=hold)
        assert recovery.admit(2, 10.0, UNLUCKY) is not None
        assert recovery.admit(2, 10.0 + hold - 0.001, UNLUCKY) is not None
        assert recovery.admit(2, 10.0 + hold, UNLUCKY) is None
        assert not recovery.is_recovering


def test_every_change_of_the_number_holds_it_up() -> None:
    recovery = after_an_outage()
    for now, usable in ((1.0, 1), (3.5, 2), (6.0, 1), (8.5, 2), (11.0, 3)):
        assert recovery.admit(usable, now, UNLUCKY) is not None
    assert recovery.admit(3, 14.0, UNLUCKY) is None


def test_the_time_without_any_is_not_counted_as_holding() -> None:
    recovery = after_an_outage()
    recovery.admit(0, 100.0, RNG)
    assert recovery.admit(1, 100.0, UNLUCKY) is not None


def test_another_outage_begins_it_again() -> None:
    recovery = after_an_outage()
    assert recovery.admit(4, 1.0, UNLUCKY) is None
    assert recovery.admit(0, 50.0, UNLUCKY) is None
    assert recovery.admit(1, 50.1, UNLUCKY) == 0.75


def test_an_outage_within_a_recovery_starts_its_time_anew() -> None:
    recovery = after_an_outage()
    assert recovery.admit(1, 1.0, UNLUCKY) is not None
    assert recovery.admit(0, 2.0, UNLUCKY) is None
    assert recovery.admit(1, 3.0, UNLUCKY) is not None
    assert recovery.admit(1, 5.9, UNLUCKY) is not None
    assert recovery.admit(1, 6.0, UNLUCKY) is None


def test_a_hold_of_zero_refuses_nothing() -> None:
    assert after_an_outage(hold=0.0).admit(1, 0.0, UNLUCKY) is None


@thorough(300)
@given(
    min_working=st.integers(1, 5),
    script=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0, 40.0]), st.integers(0, 6)), min_size=1, max_size=40
    ),
)
def test_it_refuses_exactly_between_an_outage_and_its_end(
    min_working: int, script: list[tuple[float, int]]
) -> None:
    recovery = Recovery(RecoveryPolicy(min_working=min_working, hold=3.0))
    now = 0.0
    seen: list[tuple[float, int]] = []  # since the last time it was over
    for seconds, usable in script:
        now += seconds
        seen.append((now, usable))
        outage = max((index for index, (_, number) in enumerate(seen) if number == 0), default=None)
        refused = recovery.admit(usable, now, UNLUCKY)
        if outage is None or usable == 0:
            assert refused is None
            continue
        same = now
        for at, number in reversed(seen[outage:]):
            if number != usable:
                break
            same = at
        is_over = usable >= min_working or now - same >= 3.0
        assert refused == (None if is_over else 1 - usable / min_working)
        if is_over:
            seen.clear()
