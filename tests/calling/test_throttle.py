"""Adaptive throttling: the book's formula, its window, and bursts that are no reason to refuse."""

from __future__ import annotations

import threading
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.calling.throttle import BUCKETS, Throttle
from discoclient.model.errors import ConfigError
from discoclient.model.policy import ThrottlePolicy
from tests.support.properties import thorough


class Draws(Random):
    """A generator that always draws the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


NEVER_REFUSE = Draws(1.0)
ALWAYS_REFUSE = Draws(0.0)


def throttled(
    requests: int,
    accepts: int,
    *,
    policy: ThrottlePolicy | None = None,
    now: float = 0.0,
    patience: float = 0.0,
) -> Throttle:
    throttle = Throttle(policy or ThrottlePolicy(), patience=patience)
    for _ in range(requests):
        throttle.admit(now, NEVER_REFUSE)
    for _ in range(accepts):
        throttle.accepted(now)
    return throttle


# ---- the formula


@pytest.mark.parametrize(
    ("requests", "accepts", "ratio", "expected"),
    [
        (0, 0, 2.0, 0.0),
        (1, 0, 2.0, 1 / 2),
        (3, 0, 2.0, 3 / 4),
        (100, 100, 2.0, 0.0),
        (100, 50, 2.0, 0.0),
        (100, 49, 2.0, 2 / 101),
        (100, 25, 2.0, 50 / 101),
        (100, 25, 1.1, 72.5 / 101),
        (100, 90, 1.0, 10 / 101),
    ],
)
def test_the_probability_is_the_books(requests: int, accepts: int, ratio: float, expected: float) -> None:
    throttle = throttled(requests, accepts, policy=ThrottlePolicy(ratio=ratio))
    assert throttle.probability(0.0) == pytest.approx(expected)
    admitted = throttle.admit(0.0, ALWAYS_REFUSE)
    assert admitted is None if expected == 0 else admitted == pytest.approx(expected)


def test_at_most_the_given_share_is_refused() -> None:
    assert throttled(1000, 0).probability(0.0) == 0.9
    assert throttled(1000, 0, policy=ThrottlePolicy(max_probability=0.3)).probability(0.0) == 0.3
    assert throttled(1000, 0, policy=ThrottlePolicy(max_probability=0.0)).admit(0.0, ALWAYS_REFUSE) is None


def test_chance_decides_by_the_probability_and_comes_from_outside() -> None:
    assert throttled(3, 0).admit(0.0, Draws(0.7499)) == 0.75
    assert throttled(3, 0).admit(0.0, Draws(0.75)) is None


def test_what_is_refused_here_counts_as_a_request() -> None:
    throttle = throttled(1, 0, policy=ThrottlePolicy(max_probability=1.0))
    seen = [throttle.admit(0.0, ALWAYS_REFUSE) for _ in range(4)]
    assert seen == [1 / 2, 2 / 3, 3 / 4, 4 / 5]


def test_a_request_counts_when_it_is_sent_and_not_when_it_ends() -> None:
    """A service that hangs: nothing has ended yet."""
    throttle = Throttle(ThrottlePolicy())
    for second in range(10):
        throttle.admit(float(second), NEVER_REFUSE)
    assert throttle.probability(10.0) > 0.8


def test_a_service_that_takes_a_fifth_is_sent_what_the_ratio_allows() -> None:
    """It takes 20 of 100 requests a second; sent should be about ratio times that, and all of what it takes is used."""
    throttle, rng = Throttle(ThrottlePolicy()), Random(1)
    sent = taken = 0
    for second in range(600):
        left = 20
        for number in range(100):
            now = second + number / 100
            if throttle.admit(now, rng) is not None:
                continue
            if second >= 240:
                sent += 1
            if left:
                left -= 1
                taken += second >= 240
                throttle.accepted(now)
    assert sent == pytest.approx(360 * 40, rel=0.1)
    assert taken >= 0.95 * 360 * 20


def test_a_service_that_is_well_again_gets_everything_after_a_window() -> None:
    throttle, rng = Throttle(ThrottlePolicy(window=10.0)), Random(1)
    for number in range(1000):
        throttle.admit(number / 100, rng)
    assert throttle.probability(10.0) == 0.9
    for number in range(1000, 4000):
        if throttle.admit(number / 100, rng) is None:
            throttle.accepted(number / 100)
    assert throttle.probability(40.0) == 0.0


# ---- bursts

PARALLEL = 20


def refused_of_a_burst(throttle: Throttle, now: float) -> int:
    rng = Random(1)
    return sum(throttle.admit(now, rng) is not None for _ in range(PARALLEL))


def test_a_burst_to_a_healthy_service_is_let_through() -> None:
    throttle = Throttle(ThrottlePolicy())
    assert refused_of_a_burst(throttle, 0.0) == 0
    for _ in range(PARALLEL):
        throttle.accepted(0.2)
    assert throttle.probability(1.5) == 0.0
    assert refused_of_a_burst(throttle, 1000.0) == 0


def test_by_the_formula_alone_most_of_the_burst_would_be_refused() -> None:
    assert refused_of_a_burst(Throttle(ThrottlePolicy(), patience=0.0), 0.0) > PARALLEL / 2


def test_patience_ends_and_is_as_long_as_it_was_set() -> None:
    for patience in (1.0, 3.0):
        throttle = throttled(PARALLEL, 0, patience=patience)
        assert throttle.probability(patience - 1e-6) == 0.0
        assert throttle.probability(patience) == 0.9


# ---- the window


def test_the_window_is_as_long_as_it_was_set() -> None:
    for window in (120.0, 20.0):
        throttle = throttled(100, 0, policy=ThrottlePolicy(window=window))
        assert throttle.probability(window - 1e-6) == 0.9
        assert throttle.probability(window) == 0.0


@thorough(200)
@given(
    script=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.1, 0.3, 1.0, 7.0, 500.0, -2.0]), st.integers(0, 5), st.integers(0, 5)
        ),
        max_size=60,
    ),
    patience=st.sampled_from([0.0, 1.0]),
)
def test_counts_are_those_of_the_window_to_within_a_bucket(
    script: list[tuple[float, int, int]], patience: float
) -> None:
    policy = ThrottlePolicy(window=10.0)
    slack = policy.window / BUCKETS + patience / 4 + 1e-9
    throttle = Throttle(policy, patience=patience)
    now, newest = 0.0, -inf
    requests: list[float] = []
    accepts: list[float] = []
    for seconds, sent, taken in script:
        now += seconds
        newest = max(newest, now)
        for _ in range(sent):
            throttle.admit(now, NEVER_REFUSE)
            requests.append(newest)
        for _ in range(taken):
            throttle.accepted(now)
            accepts.append(newest)
        throttle.probability(now)

        def between(times: list[float], begin: float, end: float) -> int:
            return sum(begin < at <= end for at in times)

        begin, end = newest - policy.window, newest - patience
        least = between(requests, begin + slack, end)
        most = between(requests, begin, end + (slack if patience else 0.0))
        assert least <= throttle._requests.total <= most
        assert between(accepts, begin + slack, newest) <= throttle._accepts.total
        assert throttle._accepts.total <= between(accepts, begin, newest)


@pytest.mark.parametrize("start", [0.0, 1e17])
def test_memory_does_not_grow_with_the_traffic(start: float) -> None:
    throttle, rng = Throttle(ThrottlePolicy()), Random(1)
    for number in range(20_000):
        throttle.admit(start + number * 0.1, rng)
        throttle.accepted(start + number * 0.1)
    assert len(throttle._requests._buckets) <= BUCKETS + 2
    assert len(throttle._accepts._buckets) <= BUCKETS + 2
    assert len(throttle._young._buckets) <= 6


def test_time_that_stands_still_goes_back_or_leaps_does_no_harm() -> None:
    throttle = throttled(100, 0, now=50.0)
    assert throttle.probability(0.0) == 0.9
    assert throttle.probability(1e18) == 0.0
    assert throttle.admit(0.0, ALWAYS_REFUSE) is None


def test_patience_is_a_number_of_seconds() -> None:
    with pytest.raises(ConfigError, match="patience"):
        Throttle(ThrottlePolicy(), patience=-1.0)


def test_no_request_of_a_thread_is_lost() -> None:
    throttle = Throttle(ThrottlePolicy(), patience=0.0)

    def work() -> None:
        rng = Random(1)
        for _ in range(2000):
            throttle.admit(1.0, rng)
            throttle.accepted(1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    throttle.probability(1.0)
    assert (throttle._requests.total, throttle._accepts.total) == (8000, 8000)
