"""How figures get into the READMEs and into a picture, and how two reports are compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks.__main__ import BENCHMARKS
from benchmarks.compare import changes
from benchmarks.compare import main as compare
from benchmarks.figures import Row, Section
from benchmarks.report import main, markdown, markers, replace_figures
from benchmarks.report_performance import performance
from benchmarks.report_picture import aims, bars, draw

ROOT = Path(__file__).parents[2]


def results(
    *names: str, quick: bool = False, load: float = 0.1, rounds: tuple[float, ...] = (4.0,)
) -> dict[str, Any]:
    section = Section("About {}", [Row("x", "ours", "us", rounds, 3.0)], ["A note."])
    return {
        "quick": quick,
        "environment": {
            "discoclient": "0.1.0",
            "python": "CPython 3.11.7",
            "system": "Linux x86_64",
            "cores": 2,
            "load_before": load,
            "etcd": "3.5.1",
            "programs": {"nginx": "1.22.1"},
            "versions": {"httpx": "0.28.1"},
        },
        "benchmarks": {name: [section.to_json() | {"title": f"About {name}"}] for name in names},
    }


def side(name: str, figure: str, value: float) -> Row:
    return Row(f"{name}: {figure}", "ours" if "Disco" in name else "reference", "per second", (value, value))


def compared(*, nginx: bool = True) -> dict[str, Any]:
    """A run of the clients, with every section that the picture and the short table look at."""
    sections = []
    for title in ("Async, 32 in flight", "Async, 1 in flight", "Sync, 1 thread", "Sync, 16 threads"):
        ours = "AsyncDiscoClient" if title.startswith("Async") else "DiscoClient"
        names = [ours, *(["httpx through nginx"] if nginx else []), "httpx2, direct"]
        rows = [
            side(name, figure, value)
            for name, value in zip(names, (6000.0, 750.0, 2000.0))
            for figure in ("requests/s", "p50", "p99", "CPU")
        ]
        rows.append(Row(f"{title}: requests/s, {ours} / nginx", "compared", "times", (8.0,), 6.0, ">="))
        rows.append(Row(f"{title}: p99, {ours} / nginx", "compared", "times", (0.5,), 0.25))
        rows.append(Row(f"{title}: requests/s, {ours} / httpx2", "compared", "times", (3.0,)))
        sections.append(Section(title, rows, ["A note."], by_side=True).to_json())
    return results() | {"benchmarks": {"clients": sections}}


def readme(*names: str, old: str = "old") -> str:
    return (
        "before\n\n"
        + "\n\n".join("\n\n".join((markers(n)[0], old, markers(n)[1])) for n in names)
        + "\n\nafter\n"
    )


def test_each_benchmark_has_its_figures_under_what_they_were_measured_with() -> None:
    found = markdown(results(*reversed(BENCHMARKS)))
    assert list(found) == list(BENCHMARKS)
    lines = found["pick"].splitlines()
    assert lines[0].startswith("Measured with discoclient 0.1.0, CPython 3.11.7, Linux x86_64, 2 cores")
    assert "etcd 3.5.1, nginx 1.22.1; httpx 0.28.1" in lines[0]
    assert lines[2] == "### About pick"
    assert "| x (ours) | 4 | 4 to 4 | us | <= 3 MISSED |" in lines


def test_quick_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="--quick"):
        markdown(results("pick", quick=True))
    text = readme("pick")
    words = files(tmp_path, text, results("pick", quick=True))
    assert main(words) == 1
    assert "--quick" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


def files(folder: Path, text: str, *runs: dict[str, Any]) -> list[str]:
    (folder / "README.md").write_text(text)
    (folder / "short.md").write_text(readme("performance"))
    names = [folder / f"run-{number}.json" for number in range(len(runs))]
    for name, run in zip(names, runs, strict=True):
        name.write_text(json.dumps(run))
    words = [
        "--readme",
        folder / "README.md",
        "--short",
        folder / "short.md",
        "--picture",
        folder / "clients.png",
    ]
    return [str(word) for word in (*names, *words)]


def test_the_report_replaces_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    words = files(tmp_path, readme("pick", "large"), results("pick"))
    for _ in range(2):  # the second time changes nothing
        assert main(words) == 0
        text = (tmp_path / "README.md").read_text()
        assert text.startswith(f"before\n\n{markers('pick')[0]}\n\nMeasured with")
        assert text.count("### About pick") == 1
        assert text.endswith(f"{markers('large')[0]}\n\nold\n\n{markers('large')[1]}\n\nafter\n")
    assert (tmp_path / "short.md").read_text() == readme("performance"), "the clients were not compared"
    assert not (tmp_path / "clients.png").exists()


def test_a_later_run_replaces_what_it_measured_again(tmp_path: Path) -> None:
    words = files(tmp_path, readme("pick", "large"), results("pick", "large"), results("pick", load=7.0))
    assert main(words) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.count("### About pick") == text.count("### About large") == 1
    assert text.count("load before: 7") == 1


BEGIN, END = markers("pick")


@pytest.mark.parametrize(
    "text", ["nothing", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_readme_without_its_markers_is_left_alone(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="markers"):
        replace_figures(text, "pick", "figures")
    assert main(files(tmp_path, text, results("pick"))) == 1
    assert (tmp_path / "README.md").read_text() == text


def test_the_readmes_have_their_markers_and_name_every_benchmark() -> None:
    long = (ROOT / "benchmarks" / "README.md").read_text()
    for name in BENCHMARKS:
        replace_figures(long, name, "figures")
        assert f"ARGS={name}`" in long
    replace_figures((ROOT / "README.md").read_text(), "performance", "figures")


def test_the_short_table_has_a_column_for_each_side_by_name(tmp_path: Path) -> None:
    table = performance(compared())
    assert table is not None
    heading, _, first, *_ = table.splitlines()
    assert heading.startswith("| | DiscoClient | httpx through nginx | httpx, direct | httpx2, direct |")
    assert first == "| async, 32 in flight: requests/s | **6,000** | 750 |  | 2,000 |  |"
    pytest.importorskip("matplotlib")
    words = files(tmp_path, readme("clients"), compared())
    assert main(words) == 0
    assert table in (tmp_path / "short.md").read_text()


def test_the_picture_comes_with_the_clients_into_both_readmes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(files(tmp_path, readme("clients"), compared())) == 0
    assert (tmp_path / "clients.png").read_bytes().startswith(b"\x89PNG")
    for name in ("README.md", "short.md"):
        assert "](clients.png)" in (tmp_path / name).read_text()


def test_where_nothing_could_be_drawn_no_readme_points_to_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.draw", lambda results, path: None)
    assert main(files(tmp_path, readme("clients"), compared())) == 1
    assert "no picture" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == readme("clients")


def test_without_nginx_there_is_no_short_table() -> None:
    assert performance(compared(nginx=False)) is None
    assert performance(results("pick")) is None


def test_the_picture_has_every_aim_of_a_comparison_and_how_far_it_is_met() -> None:
    found = aims(compared())
    assert len(found) == 8, "what has no aim is not in it"
    assert found[0].factor == pytest.approx(8 / 6)
    assert found[0].told == "8x, aim: at least 6x"
    assert found[1].factor == pytest.approx(0.5), "half as good as was aimed at"
    assert found[1].told == "0.500x, aim: at most 0.250x"


def test_the_picture_has_a_bar_for_each_side() -> None:
    found = bars(compared(), "Async, 32 in flight", "requests/s")
    assert [(bar.name, bar.median) for bar in found] == [
        ("AsyncDiscoClient", 6000.0),
        ("httpx through nginx", 750.0),
        ("httpx2, direct", 2000.0),
    ]
    assert len({bar.color for bar in found}) == 3
    assert bars(results("pick"), "Async, 32 in flight", "requests/s") == []


def test_the_picture_is_drawn_from_the_json_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = draw(json.loads(json.dumps(compared())), tmp_path / "folder" / "report.png")
    assert file is not None
    assert file.read_bytes().startswith(b"\x89PNG")
    assert draw(results("pick"), tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


def test_a_change_counts_if_the_rounds_do_not_overlap() -> None:
    before = results("pick", "large", rounds=(4.0, 4.5, 5.0))
    (gone,) = changes(before, results("pick", rounds=(2.0, 2.5, 3.0)))
    assert (gone.where, gone.name) == ("pick, About pick", "x")
    assert gone.ratio == pytest.approx(2.5 / 4.5)
    assert gone.is_beyond_spread
    assert gone.is_better, "less microseconds are better"
    (stayed,) = changes(before, results("pick", rounds=(4.9, 8.0, 9.0)))
    assert not stayed.is_beyond_spread
    (scarce,) = changes(before, results("pick", rounds=(2.0, 2.0)))
    assert not scarce.is_beyond_spread, "two rounds tell no spread"


def test_more_requests_are_better_and_so_is_what_should_be_at_least_something() -> None:
    def run(rate: float, ratio: float) -> dict[str, Any]:
        rows = [
            Row("a: requests/s", "ours", "per second", (rate,)),
            Row("a / b", "compared", "times", (ratio,), 2.0, ">="),
        ]
        return {"benchmarks": {"clients": [Section("s", rows).to_json()]}}

    assert [each.is_better for each in changes(run(1.0, 1.0), run(2.0, 2.0))] == [True, True]
    assert [each.is_better for each in changes(run(2.0, 2.0), run(1.0, 1.0))] == [False, False]


def test_the_comparison_prints_what_changed_and_leaves_out_what_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, each in (("a", (4.0, 4.5, 5.0)), ("b", (8.0, 8.5, 9.0))):
        run = results("pick", rounds=each)
        run["benchmarks"]["large"] = results("large")["benchmarks"]["large"]
        (tmp_path / name).write_text(json.dumps(run))
    assert compare([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "WORSE              pick, About pick: x: 4.50 -> 8.50 us" in said
    assert "large" not in said
    assert "2 figures in both; 1 changed beyond the spread: 0 for the better, 1 for the worse" in said
    assert compare([str(tmp_path / "a"), str(tmp_path / "b"), "--all"]) == 0
    assert "within the spread  large, About large" in capsys.readouterr().out


def test_the_report_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REPORT", tmp_path / "bench" / "report.json")
    monkeypatch.setattr(bench, "PREVIOUS", tmp_path / "bench" / "previous.json")
    assert bench._prepare(None) == bench.REPORT
    assert not bench.PREVIOUS.exists(), "there was none"
    bench.REPORT.write_text("the first")
    bench._prepare(None)
    assert bench.PREVIOUS.read_text() == "the first"
    bench.REPORT.write_text("the second")
    chosen = tmp_path / "chosen.json"
    assert bench._prepare(chosen) == chosen
    assert bench.REPORT.read_text() == "the second", "who has chosen another file leaves these alone"
