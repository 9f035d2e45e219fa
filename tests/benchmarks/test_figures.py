"""How figures are reckoned and written down."""

import json
import math
from operator import sub
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Row, Section, compare, format_number, percentile, table
from benchmarks.report import BEGIN, END, main, markdown, replace_figures


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
    assert table(section.to_json())[1:] == [
        ("x (ours)", "4", "4 to 4", "us", "<= 3 MISSED"),
        ("y (reference)", "1.50", "1.50 to 1.50", "us", ""),
    ]


def test_an_aim_is_written_with_its_sense() -> None:
    (_, row) = table(Section("Pick", [Row("x", "ours", "times", (0.7,), 0.6, ">=")]).to_json())
    assert row[-1] == ">= 0.600 met"
    old = Row("x", "ours", "times", (0.7,), 0.6).to_json()
    del old["sense"]  # as in a file that was written before there were two
    assert table({"rows": [old]})[1][-1] == "<= 0.600 MISSED"


def results(*names: str, quick: bool = False, load: float = 0.1) -> dict[str, Any]:
    section = Section("About {}", [Row("x", "ours", "us", (4.0,), 3.0)], ["A note."])
    return {
        "quick": quick,
        "environment": {
            "discoclient": "0.1.0",
            "python": "CPython 3.11.7",
            "system": "Linux x86_64",
            "cores": 2,
            "load_before": load,
            "etcd": "3.5.1",
            "versions": {"httpx": "0.28.1"},
        },
        "benchmarks": {name: [section.to_json() | {"title": f"About {name}"}] for name in names},
    }


def test_the_report_has_every_benchmark_in_order_under_what_it_was_measured_with() -> None:
    lines = markdown([results(*reversed(BENCHMARKS))]).splitlines()
    assert [line for line in lines if line.startswith("###")] == [f"### About {name}" for name in BENCHMARKS]
    assert lines[0].startswith("Measured with discoclient 0.1.0, CPython 3.11.7, Linux x86_64, 2 cores")
    assert "| x (ours) | 4 | 4 to 4 | us | <= 3 MISSED |" in lines


def test_a_later_run_replaces_what_it_measured_again() -> None:
    text = markdown([results(*BENCHMARKS), results("pick", load=7.0)])
    assert text.count("### About pick") == 1
    assert text.count("load before: 7") == 1


def test_quick_runs_and_missing_benchmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="--quick"):
        markdown([results(*BENCHMARKS, quick=True)])
    with pytest.raises(ValueError, match="no figures of overhead"):
        markdown([results(*(name for name in BENCHMARKS if name != "overhead"))])


def test_the_report_replaces_what_stands_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    file.write_text(json.dumps(results(*BENCHMARKS)))
    for _ in range(2):  # the second time changes nothing
        assert main([str(file), "--readme", str(readme)]) == 0
        text = readme.read_text()
        assert text.startswith(f"before\n\n{BEGIN}\n\nMeasured with")
        assert text.endswith(f"{END}\n\nafter\n")
        assert "old" not in text
        assert text.count("### About pick") == 1


@pytest.mark.parametrize(
    "text", ["nothing", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_readme_without_its_markers_is_left_alone(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="markers"):
        replace_figures(text, "figures")
    readme, file = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(text)
    file.write_text(json.dumps(results(*BENCHMARKS)))
    assert main([str(file), "--readme", str(readme)]) == 1
    assert readme.read_text() == text


def test_the_readme_has_its_markers_and_names_every_benchmark() -> None:
    readme = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    replace_figures(readme, "figures")
    assert all(f"ARGS={name}`" in readme for name in BENCHMARKS)
