"""Waiting ends as soon as it can, and says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.eventually import eventually, eventually_async


def countdown(start: int) -> Iterator[int]:
    yield from range(start, 0, -1)


def test_the_first_true_value_is_returned() -> None:
    values = iter([0, "", None, "there"])
    assert eventually(lambda: next(values)) == "there"


def test_a_failed_assertion_is_not_yet_and_another_error_is_an_error() -> None:
    left = countdown(3)

    def predicate() -> bool:
        assert next(left) == 1
        return True

    assert eventually(predicate)
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)


def test_at_the_end_it_names_what_it_waited_for_and_what_it_saw_last() -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: rain \(last: 0\)"):
        eventually(lambda: 0, timeout=0.1, what="rain")
    assert 0.1 <= time.monotonic() - began < 2.0


def test_it_looks_once_more_after_the_deadline() -> None:
    looks = []

    def predicate() -> bool:
        looks.append(1)
        return len(looks) == 2

    assert eventually(predicate, timeout=0.001)


async def test_the_loop_runs_meanwhile() -> None:
    values = iter([0, 0, 7])

    async def predicate() -> int:
        return next(values)

    assert await eventually_async(predicate) == 7
    with pytest.raises(AssertionError, match="never"):
        await eventually_async(lambda: False, timeout=0.01, what="never")
