"""Recent latencies: quantiles to within 5 %, over a window, and made once a second."""

from __future__ import annotations

import threading
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.calling.latencies import Latencies
from discoclient.model.errors import ConfigError
from tests.support.properties import thorough


def recorded(*seconds: float, now: float = 0.0, window: float = 30.0) -> Latencies:
    latencies = Latencies(window=window)
    for each in seconds:
        latencies.record(each, now)
    return latencies


@thorough(500)
@given(
    seconds=st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=200),
    share=st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 1.0])),
)
def test_a_quantile_is_off_by_five_percent_at_most(seconds: list[float], share: float) -> None:
    found = recorded(*seconds).quantile(share, 0.0, least=1)
    assert found is not None
    exact = sorted(seconds)[max(1, ceil(share * len(seconds) - 1e-9)) - 1]
    assert abs(found - exact) <= 0.05 * exact


def test_the_quantiles_are_of_the_rank_that_was_asked() -> None:
    latencies = recorded(*(number / 100 for number in range(1, 101)))
    for share in (0.01, 0.07, 0.5, 0.95, 0.99, 1.0):
        assert latencies.quantile(share, 0.0, least=1) == pytest.approx(share, rel=0.05)
    assert latencies.quantile(0.0, 0.0, least=1) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "reads_as"),
    [
        (0.0, 1e-5),
        (-1.0, 1e-5),
        (1e-9, 1e-5),
        (float("nan"), 1e-5),
        (1e3, 1e3),
        (1e9, 1e3),
        (float("inf"), 1e3),
    ],
)
def test_what_is_out_of_range_reads_as_its_end(seconds: float, reads_as: float) -> None:
    assert recorded(seconds).quantile(0.5, 0.0, least=1) == pytest.approx(reads_as, rel=0.05)


def test_too_few_samples_say_nothing() -> None:
    latencies = recorded(*[0.1] * 19)
    assert latencies.quantile(0.95, 0.0, least=20) is None
    assert latencies.quantile(0.95, 0.0, least=19) is not None
    assert Latencies().quantile(0.95, 0.0, least=0) is None


@pytest.mark.parametrize("window", [30.0, 8.0])
def test_a_latency_is_remembered_for_half_a_window_and_forgotten_after_one(window: float) -> None:
    for begun in (0.0, 0.49 * window):
        latencies = recorded(1.0, window=window)
        latencies.record(0.001, begun)
        assert latencies.quantile(1.0, begun + window / 2 - 0.001, least=2) == pytest.approx(1.0, rel=0.05)
        latencies = recorded(1.0, window=window)
        latencies.record(0.001, begun)
        assert latencies.quantile(0.5, begun + window, least=1) is None


def test_traffic_moves_the_window_on() -> None:
    latencies = Latencies()
    for tenth in range(1200):
        latencies.record(1.0 if tenth < 600 else 0.01, tenth / 10)
    assert latencies.quantile(1.0, 120.0, least=1) == pytest.approx(0.01, rel=0.05)


def test_a_leap_of_the_clock_forgets_both_halves() -> None:
    latencies = recorded(1.0)
    latencies.record(1.0, 16.0)
    latencies.record(0.01, 1e9)
    assert latencies.quantile(1.0, 1e9, least=1) == pytest.approx(0.01, rel=0.05)


def test_a_clock_that_goes_back_does_no_harm() -> None:
    latencies = recorded(1.0, now=100.0)
    latencies.record(1.0, 50.0)
    assert latencies.quantile(1.0, 50.0, least=2) == pytest.approx(1.0, rel=0.05)
    assert latencies.quantile(1.0, 0.0, least=2) == pytest.approx(1.0, rel=0.05)


def test_sums_are_made_once_a_second_whatever_is_asked() -> None:
    latencies = recorded(0.01)
    assert latencies.quantile(0.5, 0.0, least=1) == pytest.approx(0.01, rel=0.05)
    made = latencies._sums
    for _ in range(9):
        latencies.record(1.0, 0.5)
    assert latencies.quantile(0.5, 0.999, least=1) == pytest.approx(0.01, rel=0.05)
    assert latencies._sums is made
    assert latencies.quantile(0.5, 1.0, least=1) == pytest.approx(1.0, rel=0.05)
    assert latencies._sums is not made


def test_a_window_is_a_number_of_seconds() -> None:
    with pytest.raises(ConfigError, match="window"):
        Latencies(window=0.0)


def test_no_latency_of_a_thread_is_lost() -> None:
    latencies = Latencies()

    def work() -> None:
        for _ in range(2000):
            latencies.record(0.1, 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert latencies.quantile(0.5, 1.0, least=8000) is not None
    assert latencies.quantile(0.5, 1.0, least=8001) is None
