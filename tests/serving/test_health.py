"""The verdict over a service, from its probes: exact, without time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient import ConfigError
from discoclient.serving.health import Health

BAD = "connection refused"


def verdicts(health: Health, probes: str) -> str:
    """*probes* as ``+`` (good) and ``-`` (bad); after each of them the verdict, ``W`` for well, ``u`` for unwell."""
    told = ""
    for probe in probes:
        health.record(None if probe == "+" else BAD)
        told += "W" if health.is_well else "u"
    return told


def test_nothing_is_well_before_it_was_probed() -> None:
    health = Health()
    assert not health.is_well
    assert health.problem == "it was not probed yet"


@pytest.mark.parametrize(
    ("failures", "successes", "probes", "told"),
    [
        (3, 1, "+", "W"),
        (3, 1, "---+", "uuuW"),
        (3, 1, "+--+", "WWWW"),
        (3, 1, "+---", "WWWu"),
        (3, 1, "+--+--+---", "WWWWWWWWWu"),
        (3, 1, "+---+", "WWWuW"),
        (1, 1, "+-+-", "WuWu"),
        (2, 1, "+--", "WWu"),
        (3, 2, "++---+-++", "uWWWuuuuW"),
        (3, 3, "++-+++", "uuuuuW"),
    ],
)
def test_only_so_many_in_a_row_change_the_verdict(
    failures: int, successes: int, probes: str, told: str
) -> None:
    assert verdicts(Health(failures=failures, successes=successes), probes) == told


def test_a_change_is_reported_with_the_probe_that_made_it_and_not_again() -> None:
    health = Health(failures=2)
    assert [health.record(probe) for probe in (BAD, None, None, BAD, BAD, BAD, None)] == [
        False,
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_the_newest_problem_is_remembered() -> None:
    health = Health()
    health.record("connection refused")
    health.record("GET /healthz answered 503")
    health.record(None)
    assert health.problem == "GET /healthz answered 503"


@pytest.mark.parametrize(
    "counts", [{"failures": 0}, {"successes": -1}, {"failures": True}, {"failures": 1.5}]
)
def test_counts_below_one_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be a whole number, 1 or more"):
        Health(**counts)


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=40))
def test_the_verdict_is_that_of_the_last_long_enough_run(
    failures: int, successes: int, probes: list[bool]
) -> None:
    """Against the plainest model: look back over all runs of equal probes."""
    health = Health(failures=failures, successes=successes)
    expected, run = False, 0
    for index, is_good in enumerate(probes):
        run = run + 1 if index and probes[index - 1] is is_good else 1
        if run >= (successes if is_good else failures):
            expected = is_good
        before = health.is_well
        assert health.record(None if is_good else BAD) is (health.is_well is not before)
        assert health.is_well is expected
