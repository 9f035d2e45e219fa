"""How figures are reckoned and written down."""

import math
from operator import sub

import pytest

from benchmarks.figures import Row, Section, compare, format_number, percentile, tables


def test_the_99th_percentile_is_a_value_that_was_measured() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 1001), 0.5) == 500
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([7.0], 0.01) == 7.0


def test_a_row_gives_the_median_and_its_spread() -> None:
    row = Row("pick", "ours", "us", (3.0, 1.0, 2.0), aim=2.0)
    assert row.to_json() == {
        "name": "pick",
        "role": "ours",
        "unit": "us",
        "median": 2.0,
        "low": 1.0,
        "high": 3.0,
        "rounds": [3.0, 1.0, 2.0],
        "aim": 2.0,
        "sense": "<=",
        "is_met": True,
    }


@pytest.mark.parametrize(("aim", "is_met"), [(2.0, True), (1.9, False), (0.0, False), (None, None)])
def test_an_aim_is_met_by_the_median(aim: float | None, is_met: bool | None) -> None:
    assert Row("pick", "ours", "us", (1.0, 2.0, 9.0), aim).is_met is is_met


@pytest.mark.parametrize(("aim", "is_met"), [(2.0, True), (2.1, False), (None, None)])
def test_an_aim_may_be_the_least_that_is_wanted(aim: float | None, is_met: bool | None) -> None:
    assert Row("pick", "ours", "us", (1.0, 2.0, 9.0), aim, ">=").is_met is is_met


@pytest.mark.parametrize("rounds", [(), (1.0, math.nan), (math.inf,)])
def test_what_was_not_measured_is_no_figure(rounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="was not measured"):
        Row("pick", "ours", "us", rounds)


def test_sides_are_compared_round_by_round() -> None:
    """A round in which the machine was slow was slow for both: the difference of two medians would say 0 here."""
    ours, reference = (
        Row("a", "ours", "us", (11.0, 30.0, 12.0)),
        Row("b", "reference", "us", (10.0, 12.0, 11.0)),
    )
    assert compare("cost", sub, ours, reference, unit="us").rounds == (1.0, 18.0, 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (12345.6, "12,346"),
        (44.44, "44.4"),
        (1.234, "1.23"),
        (-0.5, "-0.500"),
        (0.00012, "1.2e-04"),
    ],
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert format_number(value) == text


def test_a_missed_aim_is_shown_as_missed() -> None:
    section = Section("Pick", [Row("x", "ours", "us", (4.0,), 3.0), Row("y", "reference", "us", (1.5,))])
    assert tables(section.to_json())[0][1:] == [
        ("x (ours)", "4", "4 to 4", "us", "<= 3 MISSED"),
        ("y (reference)", "1.50", "1.50 to 1.50", "us", ""),
    ]


def test_an_aim_is_written_with_its_sense() -> None:
    ((_, row),) = tables(Section("Pick", [Row("x", "ours", "times", (0.7,), 0.6, ">=")]).to_json())
    assert row[-1] == ">= 0.600 met"
    old = Row("x", "ours", "times", (0.7,), 0.6).to_json()
    del old["sense"]  # as in a file that was written before there were two
    assert tables({"rows": [old]})[0][1][-1] == "<= 0.600 MISSED"


def test_the_figures_of_a_side_stand_beside_each_other_and_what_is_compared_below() -> None:
    ours, its = (
        Row("A: rate", "ours", "per second", (8.0, 4.0)),
        Row("B: rate", "reference", "per second", (2.0,)),
    )
    cpu = Row("A: CPU", "ours", "us", (7.0,))
    ratio = Row("A / B", "compared", "times", (4.0,), 6.0, ">=")
    beside, below = tables(Section("", [ours, cpu, its, ratio], by_side=True).to_json())
    assert beside == [("", "rate", "CPU, us"), ("**A**", "6 (4 to 8)", "7 (7 to 7)"), ("B", "2 (2 to 2)", "")]
    assert below[1:] == [("A / B (compared)", "4", "4 to 4", "times", ">= 6 MISSED")]


def test_an_aim_that_is_not_on_a_ratio_is_shown_below_too() -> None:
    grown = Row("A: grown", "ours", "MB", (1.0,), 2.0)
    beside, below = tables(Section("", [grown], by_side=True).to_json())
    assert beside[1] == ("**A**", "1 (1 to 1)")
    assert below[1] == ("A: grown (ours)", "1", "1 to 1", "MB", "<= 2 met")


def test_what_was_left_out_has_no_table() -> None:
    assert tables(Section("Left out", [], ["Not installed."]).to_json()) == []
