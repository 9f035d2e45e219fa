"""The retry budget: its promise for every window and from many threads, and that it is not stingier than it says."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from math import inf
from types import FrameType
from typing import Any, Protocol

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discoclient.calling import budget as budget_module
from discoclient.calling.budget import BUCKETS, RetryBudget
from discoclient.model.errors import ConfigError
from tests.support.properties import thorough


class Budget(Protocol):
    def record(self, now: float) -> None: ...
    def try_spend(self, now: float) -> bool: ...


Make = Callable[[float, float, float], Budget]


def real(ratio: float, reserve: float, window: float) -> RetryBudget:
    return RetryBudget(ratio=ratio, reserve=reserve, window=window)


# ---- the promise, for every window that ends at a granted retry

leaps = st.sampled_from(
    [0.0, 0.0, 0.0, 1e-9, 0.004, 0.02, 0.1, 0.49, 0.98, 0.996, 1.0, 1.02, 1e7, -0.01, -3.0]
)
"""How far time goes, in windows: to both sides of a bucket's edge, and of the window's."""
steps = st.lists(st.tuples(leaps, st.integers(0, 6), st.integers(0, 6)), max_size=60)
"""Time goes on; so many requests; so many tries to spend a retry."""
budgets = st.tuples(
    st.sampled_from([0.0, 0.05, 0.2, 1.0]), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([10.0, 1.0])
)


def keeps_its_promise(make: Make) -> None:
    """Any script, against what really happened in the window. Raises `AssertionError` if a retry too many is granted."""

    @thorough(600)
    @given(knobs=budgets, start=st.sampled_from([0.0, 12345.678]), script=steps)
    @example(knobs=(0.0, 0.5, 10.0), start=0.0, script=[(0.0, 0, 1), (0.004, 0, 4), (0.996, 0, 5)])
    @example(knobs=(0.0, 0.5, 10.0), start=0.0, script=[(0.98, 0, 5), (0.02, 0, 5), (0.98, 0, 5)])
    @example(knobs=(1.0, 0.0, 10.0), start=0.0, script=[(0.0, 5, 0), (1.02, 1, 6)])
    def promise(
        knobs: tuple[float, float, float], start: float, script: list[tuple[float, int, int]]
    ) -> None:
        ratio, reserve, window = knobs
        budget = make(*knobs)
        now, newest = start, -inf
        requests: list[float] = []
        granted: list[float] = []
        for leap, asked, retried in script:
            now += leap * window
            if asked or retried:
                newest = max(newest, now)  # time that goes back counts as the newest that was seen
            for _ in range(asked):
                budget.record(now)
                requests.append(newest)
            for _ in range(retried):
                if budget.try_spend(now):
                    granted.append(newest)
                    edge = newest - window
                    used = sum(at > edge for at in granted)
                    assert used <= ratio * sum(at > edge for at in requests) + reserve * window

    promise()


def test_no_window_holds_more_retries_than_the_budget() -> None:
    keeps_its_promise(real)


class Calendar:
    """Naive: windows that begin on the hour, so to say. Twice the budget fits around the turn of one."""

    def __init__(self, ratio: float, reserve: float, window: float) -> None:
        self.ratio, self.reserved, self.window = ratio, reserve * window, window
        self.began, self.requests, self.used = 0.0, 0, 0

    def move_to(self, now: float) -> None:
        if now >= self.began + self.window:
            self.began, self.requests, self.used = now, 0, 0

    def record(self, now: float) -> None:
        self.move_to(now)
        self.requests += 1

    def try_spend(self, now: float) -> bool:
        self.move_to(now)
        if self.used + 1 > self.ratio * self.requests + self.reserved:
            return False
        self.used += 1
        return True


class Tokens(Calendar):
    """Naive: what requests deposit stays until it is spent, as in a token bucket that does not expire."""

    def move_to(self, now: float) -> None:
        pass


class OneTooMany(RetryBudget):
    """Off by one."""

    def _allowed(self) -> float:
        return super()._allowed() + 1


class Generous(RetryBudget):
    """Counts the other way round: a bucket of retries is out with its first one."""

    def _move_to(self, now: float) -> float:
        now = max(now, self._newest)
        while self._retries and self._retries[0][0] <= now - self._window:
            self._used -= int(self._retries.popleft()[2])
        return super()._move_to(now)


@pytest.mark.parametrize(
    "make",
    [
        Calendar,
        Tokens,
        lambda ratio, reserve, window: OneTooMany(ratio=ratio, reserve=reserve, window=window),
        lambda ratio, reserve, window: Generous(ratio=ratio, reserve=reserve, window=window),
        lambda ratio, reserve, window: RetryBudget(ratio=ratio, reserve=2 * reserve, window=window / 2),
    ],
    ids=["calendar", "tokens", "one too many", "generous", "half a window"],
)
def test_a_budget_that_does_not_keep_it_is_caught(make: Make) -> None:
    with pytest.raises(AssertionError):
        keeps_its_promise(make)


@thorough(300)
@given(knobs=budgets, script=steps)
def test_what_it_refuses_is_over_the_budget_but_for_one_bucket(
    knobs: tuple[float, float, float], script: list[tuple[float, int, int]]
) -> None:
    ratio, reserve, window = knobs
    budget = real(*knobs)
    slack = window / BUCKETS * 1.000001
    now, newest = 0.0, -inf
    requests: list[float] = []
    granted: list[float] = []
    refused = 0
    for leap, asked, retried in script:
        now += leap * window
        if asked or retried:
            newest = max(newest, now)
        for _ in range(asked):
            budget.record(now)
            requests.append(newest)
        for _ in range(retried):
            balance = budget.balance(now)
            is_granted = budget.try_spend(now)
            assert is_granted == (balance > 0)
            if is_granted:
                granted.append(newest)
                assert budget.balance(now) == balance - 1
                continue
            refused += 1
            used = sum(at > newest - window - slack for at in granted)
            allowed = ratio * sum(at > newest - window + slack for at in requests) + reserve * window
            assert used + 1 > allowed
    assert (budget.recorded, budget.spent, budget.refused) == (len(requests), len(granted), refused)


# ---- what the knobs mean


def spend_all(budget: RetryBudget, now: float) -> int:
    granted = 0
    while budget.try_spend(now):
        granted += 1
    return granted


def test_without_ratio_and_reserve_nothing_is_granted() -> None:
    budget = RetryBudget(ratio=0.0, reserve=0.0)
    for _ in range(1000):
        budget.record(1.0)
    assert not budget.try_spend(1.0)
    assert (budget.spent, budget.refused, budget.balance(1.0)) == (0, 1, 0)


def test_the_ratio_is_of_the_requests() -> None:
    budget = RetryBudget(ratio=0.2, reserve=0.0)
    for _ in range(99):
        budget.record(1.0)
    assert budget.balance(1.0) == 19
    assert spend_all(budget, 1.0) == 19


def test_the_reserve_is_a_second_and_needs_no_request() -> None:
    assert spend_all(RetryBudget(ratio=0.0, reserve=3.0), 1.0) == 30
    assert spend_all(RetryBudget(ratio=0.0, reserve=3.0, window=2.0), 1.0) == 6


def test_requests_and_retries_are_forgotten_with_the_window() -> None:
    budget = RetryBudget(ratio=0.5, reserve=0.0, window=4.0)
    for _ in range(10):
        budget.record(0.0)
    assert spend_all(budget, 2.0) == 5
    budget = RetryBudget(ratio=0.5, reserve=0.0, window=4.0)
    for _ in range(10):
        budget.record(0.0)
    assert budget.balance(3.999) == 5
    assert budget.balance(4.0) == 0


def test_spent_retries_come_back_with_the_window() -> None:
    budget = RetryBudget(ratio=0.0, reserve=1.0)
    assert spend_all(budget, 0.0) == 10
    assert budget.balance(9.999) == 0
    assert budget.balance(10.0) == 10


def test_a_clock_that_stands_still_has_one_budget() -> None:
    budget = RetryBudget(ratio=0.1, reserve=1.0)
    granted = 0
    for _ in range(10_000):
        budget.record(7.0)
        granted += budget.try_spend(7.0)
    assert granted == 1010


@pytest.mark.parametrize("ahead", [1e3, 1e9, 1e18, 1e300])
def test_a_clock_that_jumps_far_ahead_starts_anew(ahead: float) -> None:
    budget = RetryBudget(ratio=0.1, reserve=1.0)
    for _ in range(100):
        budget.record(1.0)
    assert spend_all(budget, 1.0) == 20
    assert spend_all(budget, ahead) == 10
    for _ in range(100):
        budget.record(ahead)
    assert spend_all(budget, ahead) == 10


def test_time_that_goes_back_forgets_nothing_and_adds_nothing() -> None:
    budget = RetryBudget(ratio=0.0, reserve=1.0)
    assert spend_all(budget, 100.0) == 10
    assert spend_all(budget, 0.0) == 0
    assert spend_all(budget, 109.9) == 0


@pytest.mark.parametrize("start", [0.0, 1e18])
def test_memory_does_not_grow_with_the_traffic(start: float) -> None:
    budget = RetryBudget(ratio=1.0, reserve=1.0)
    for number in range(30_000):
        budget.record(start + number * 0.0101)
        budget.try_spend(start + number * 0.0101)
    assert len(budget._ended) <= BUCKETS + 1
    assert len(budget._retries) <= BUCKETS + 2


@pytest.mark.parametrize("window", [0.0, -1.0, float("inf")])
def test_a_window_is_a_number_of_seconds(window: float) -> None:
    with pytest.raises(ConfigError, match="window"):
        RetryBudget(ratio=0.2, reserve=1.0, window=window)


# ---- threads


def in_threads(number: int, work: Callable[[], None]) -> None:
    """Run *work* in several threads that switch at every line of the budget, and raise what one of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(number)

    def switch(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != budget_module.__file__:
            return None
        time.sleep(0)  # another thread's turn
        return switch

    def run() -> None:
        try:
            start.wait(10)
            sys.settrace(switch)
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            sys.settrace(None)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def record_in_threads(budget: RetryBudget, now: float) -> None:
    """Forty requests."""

    def work() -> None:
        for _ in range(10):
            budget.record(now)

    in_threads(4, work)


def spend_in_threads(budget: RetryBudget, now: float) -> int:
    """Try to spend forty; how many were granted."""
    granted: list[int] = []

    def work() -> None:
        granted.append(sum(budget.try_spend(now) for _ in range(10)))

    in_threads(4, work)
    return sum(granted)


def test_threads_share_one_budget() -> None:
    budget = RetryBudget(ratio=0.2, reserve=0.0)
    spent = []
    for now in (0.0, 0.0, 5.0, 9.99, 10.0, 30.0):
        record_in_threads(budget, now)
        spent.append(spend_in_threads(budget, now))
    assert spent == [8, 8, 8, 8, 8, 8]  # at 10.0, what was asked and what was spent at 0.0 is out
    assert (budget.spent, budget.refused) == (48, 6 * 40 - 48)


def test_without_its_lock_threads_would_overspend() -> None:
    def overspent() -> bool:
        budget = RetryBudget(ratio=0.0, reserve=1.0)
        budget._lock = contextlib.nullcontext()  # type: ignore[assignment]
        return spend_in_threads(budget, 0.0) > 10

    assert any(overspent() for _ in range(20))


def test_requests_and_retries_at_the_same_time_stay_inside_the_budget() -> None:
    """Each thread has a clock of its own that runs ahead of the others'; in all it is one window."""
    budget = RetryBudget(ratio=0.1, reserve=0.0)
    granted: list[bool] = []
    clocks = iter([0.0, 1.0, 2.0, 3.0])

    def work() -> None:
        now = next(clocks)
        for number in range(25):
            budget.record(now + number * 0.1)
            granted.append(budget.try_spend(now + number * 0.1))

    in_threads(4, work)
    assert sum(granted) <= 10
    assert len(granted) == budget.spent + budget.refused
    assert budget.balance(5.4) == 10 - sum(granted)
