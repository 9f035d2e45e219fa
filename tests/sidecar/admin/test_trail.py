"""Quantiles from a histogram, and the last two minutes of a service."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disco_sidecar.admin.trail import LENGTH, Reading, Trail, quantile

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def test_nothing_has_no_quantile() -> None:
    assert quantile(BOUNDS, [0, 0, 0, 0, 0], 0.5) is None
    assert quantile(BOUNDS, [], 0.5) is None


def test_a_quantile_lies_within_its_bucket_in_proportion() -> None:
    assert quantile(BOUNDS, [0, 10, 0, 0, 0], 0.5) == pytest.approx(0.0055)
    assert quantile(BOUNDS, [10, 0, 10, 0, 0], 0.75) == pytest.approx(0.055)


def test_what_is_slower_than_the_last_bound_is_at_least_that() -> None:
    assert quantile(BOUNDS, [1, 0, 0, 0, 99], 0.99) == 1.0


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_the_true_quantile_is_in_the_same_bucket(latencies: list[float], share: float) -> None:
    buckets = [0] * (len(BOUNDS) + 1)
    for each in latencies:
        buckets[bisect_left(BOUNDS, each)] += 1
    ordered = sorted(latencies)
    true = ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]
    found = quantile(BOUNDS, buckets, share)
    assert found is not None
    assert bisect_left(BOUNDS, found) == min(bisect_left(BOUNDS, true), len(BOUNDS) - 1)


def reading(at: float, requests: int, *, errors: int = 0, failed: int = 0) -> Reading:
    return Reading(at, requests, errors, failed, (0, requests, 0, 0, 0))


def test_a_point_is_what_came_between_two_readings() -> None:
    trail = Trail(BOUNDS, reading(100.0, 1000))
    trail.add(reading(102.0, 1010, errors=4, failed=2), wall=5000.4)
    assert trail.history() == [[5000, 5.0, 2.0, 1.0, 0.0055, 0.00991]]


def test_a_second_without_requests_has_no_quantile() -> None:
    trail = Trail(BOUNDS, reading(0.0, 7))
    trail.add(reading(1.0, 7), wall=1.0)
    assert trail.history() == [[1, 0.0, 0.0, 0.0, None, None]]


def test_the_history_is_two_minutes_long() -> None:
    trail = Trail(BOUNDS, reading(0.0, 0))
    for second in range(1, 300):
        trail.add(reading(float(second), second), wall=float(second))
    assert [point[0] for point in trail.history()] == list(range(300 - LENGTH, 300))


def test_recent_is_the_last_minute_however_much_there_was_before() -> None:
    trail = Trail(BOUNDS, reading(0.0, 0))
    for second in range(1, 100):
        trail.add(reading(float(second), 10 * second), wall=0.0)
    assert trail.recent(reading(99.5, 1000)) == {
        "seconds": 60.5, "requests": 610, "errors": 0, "failed": 0, "buckets": [0, 610, 0, 0, 0],
    }  # fmt: skip


def test_recent_is_what_there_is_in_the_first_minute() -> None:
    trail = Trail(BOUNDS, reading(50.0, 3))
    assert trail.recent(reading(51.5, 10))["seconds"] == 1.5
    assert trail.recent(reading(51.5, 10))["requests"] == 7


def test_a_reading_of_the_same_moment_is_left_out() -> None:
    trail = Trail(BOUNDS, reading(1.0, 1))
    trail.add(reading(1.0, 2), wall=1.0)
    assert trail.history() == []
    assert trail.newest.requests == 1
