"""The benchmark of deploys: what it reckons with, what it reports, and that each way does what it is there for."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from benchmarks import deploy, deploy_bad, deploy_tables
from benchmarks.__main__ import main
from benchmarks.deploy_bad import KINDS, Attempt
from benchmarks.deploy_figures import AFTER, WARM_UP, Call, Run, latency, read_calls
from benchmarks.deploy_load import Note
from benchmarks.deploy_picture import draw
from benchmarks.deploy_scene import WAYS, Plan, measure
from benchmarks.deploy_tables import OURS, SIDES
from benchmarks.deploy_ways import BAKE, Deploy, disco_run
from benchmarks.trouble_figures import FAILED_COUNTS
from tests.benchmarks.smoke import check_results


def call(
    at: float, *, error: str | None = None, method: str = "GET", key: str = "", took: float = 0.02
) -> Call:
    return Call(at, 0.0, took, error, Note(method, key, "" if error else "v1", 1), "kept")


def run_of(*calls: Call, executed: tuple[str, ...] = (), deploys: tuple[Deploy, ...] = ()) -> Run:
    return Run(calls, deploys or (Deploy(10.0, 12.0, None, True, 0),), Counter(executed))


# ---- the figures


def test_calls_are_read_from_the_json_of_a_caller() -> None:
    told = [[100.0, 1.0, 2.0, [[0.5, 0.001, 0.02, 0.0, None]]], [["POST", "a/0", "v1", 2]]]
    (only,) = read_calls("fresh", told)
    assert only == Call(100.5, 0.001, 0.02, None, Note("POST", "a/0", "v1", 2), "fresh")


def test_a_call_belongs_to_a_deploy_from_its_start_until_a_while_after_the_old_version_is_gone() -> None:
    moments = (0.0, WARM_UP, 9.9, 10.0, 12.0, 12.0 + AFTER - 0.01, 12.0 + AFTER)
    run = run_of(*(call(moment) for moment in moments))
    assert [each.at for each in run.during] == [10.0, 12.0, 12.0 + AFTER - 0.01]
    assert [each.at for each in run.outside] == [WARM_UP, 9.9, 12.0 + AFTER], (
        "the very first second is nobody's"
    )
    assert run.times == [2.0]


def test_a_deploy_that_outlasts_the_load_is_told_of() -> None:
    (end,) = run_of(call(0.0)).deploys
    assert run_of(call(0.0), call(end.ended + AFTER)).unloaded == 0
    late = run_of(call(0.0), call(WARM_UP), call(end.ended))
    assert late.unloaded == 1
    assert "don't quote this run" in deploy_tables.latencies({OURS: [late]}).notes[-1]


def test_an_old_version_that_did_not_end_by_itself_was_killed() -> None:
    deploys = tuple(Deploy(1.0, 2.0, None, True, code) for code in (0, -9, 137, 0))
    assert run_of(call(0.0), deploys=deploys).killed == 2


def test_failures_are_counted_by_method_and_by_deploy() -> None:
    deploys = (Deploy(10.0, 11.0, None, True, 0), Deploy(20.0, 21.0, None, True, 0))
    run = run_of(
        call(1.0),
        call(10.5, error="502"),
        call(20.5, error="502", method="POST"),
        call(29.0, error="ReadError", method="POST"),
        deploys=deploys,
    )
    assert (run.count("GET"), run.failed("GET"), run.count("POST"), run.failed("POST")) == (2, 1, 2, 2)
    assert run.failed_by_deploy == [1, 2]
    assert run.errors == {"GET 502": 1, "POST 502": 1, "POST ReadError": 1}


def test_a_post_that_was_executed_is_told_apart_from_one_that_was_executed_twice() -> None:
    run = run_of(
        call(1.0, method="POST", key="a"),
        call(2.0, method="POST", key="b", error="502"),
        call(3.0, method="POST", key="c", error="502"),
        executed=("a", "a", "b"),
    )
    assert run.executed_twice == 1
    assert run.executed_and_failed == 1


def test_a_request_that_failed_fast_does_not_count_as_fast() -> None:
    calls = [
        call(1.0, took=0.02),
        call(2.0, error="502", took=0.001),
        call(3.0, error="ReadTimeout", took=5.0),
    ]
    assert [latency([each], 0.99) for each in calls] == [20.0, FAILED_COUNTS * 1e3, 5000.0]


# ---- the sections


def canned(side: str, plan: Plan, seed: str) -> Run:
    failed = {"kill": 3, "term": 0, "disco": 1, "sidecar": 0}[side]
    deploys = tuple(
        Deploy(10.0 * (1 + each), 10.0 * (1 + each) + 2.0, None, True, 0) for each in range(plan.deploys)
    )
    calls = [call(each / 10, took=0.05 if 100 <= each < 125 else 0.02) for each in range(300)]
    for number in range(failed):
        calls[150 + number] = call(15.0 + number / 10, error="502", method="POST", key="a")
    return Run(calls, deploys, Counter("a"))


def test_the_aims_are_set_on_our_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_tables, "find", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(deploy_tables, "version", lambda program: "1.0")
    plan = Plan(deploys=1, lead=1.0, period=1.0, rate=1.0)
    runs = {side: [canned(side, plan, "a")] * 3 for side in SIDES}
    sections = [deploy_tables.failures(runs, plan), deploy_tables.latencies(runs)]
    rows = {row.name: row for section in sections for row in section.rows}
    ours = SIDES[OURS][0]
    through = SIDES["sidecar"][0]
    assert {name: (row.aim, row.is_met) for name, row in rows.items() if row.aim is not None} == {
        f"{ours}: GETs that failed": (0.0, True),
        f"{ours}: POSTs that failed": (0.0, False),
        f"{ours}: POSTs executed twice": (0.0, True),
        f"{ours}: old versions that were killed": (0.0, True),
        f"{ours}: p99, during in terms of outside": (1.5, False),
        f"{through}: GETs that failed": (0.0, True),
        f"{through}: POSTs that failed": (0.0, True),
        f"{through}: POSTs executed twice": (0.0, True),
        f"{through}: old versions that were killed": (0.0, True),
        f"{through}: p99, during in terms of outside": (1.5, False),
    }
    assert rows[f"{ours}: POSTs that failed"].rounds == (3,), (
        "the sum of three rounds: a median would hide two of them"
    )
    assert rows[f"{ours}: failed in the worst deploy"].rounds == (1,)
    assert rows[f"{ours}: POSTs executed though they failed"].rounds == (3,)
    assert rows[f"{SIDES['kill'][0]}: POSTs that failed"].rounds == (9,)
    assert rows[f"{ours}: p99 during a deploy"].rounds == pytest.approx((50.0,) * 3)
    assert rows[f"{ours}: from its start to the old one gone"].rounds == (2.0,) * 3
    assert f"{ours}: 3 POST 502." in sections[0].notes


def test_every_side_has_its_way_and_what_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SIDES.keys() == WAYS.keys()
    monkeypatch.setattr(deploy_tables, "find", lambda name: None)
    monkeypatch.setattr(deploy_tables, "find_sidecar", lambda: None)
    assert deploy_tables.present() == [OURS]


def test_a_bad_deploy_is_judged_by_what_failed_and_by_the_old_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = {
        "kill": Attempt(requests=10, failed=4, took=None, is_harmless=False),
        "disco": Attempt(requests=10, failed=0, took=2.5, is_harmless=True),
    }
    monkeypatch.setattr(deploy_bad, "present", lambda: list(SIDES))
    monkeypatch.setattr(deploy_bad, "try_bad", lambda side, mood, plan, seed: tried[side])
    section = deploy_bad.bad_section(
        deploy_bad.BadPlan(tuple(KINDS), rounds=2, rate=1.0, lead=1.0, seconds=1.0)
    )
    found = [(row.name.rpartition(": ")[2], row.role, row.rounds, row.aim) for row in section.rows[:5]]
    assert found == [
        ("failed", "reference", (8,), None),
        ("old version touched", "reference", (2,), None),
        ("failed", "ours", (0,), 0.0),
        ("old version touched", "ours", (0,), 0.0),
        ("until it gave up", "ours", (2.5, 2.5), None),
    ]


def test_a_side_that_is_unknown_is_an_error_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        deploy.main(["nobody"])
    assert "there are kill, term, disco, sidecar" in capsys.readouterr().err


def test_the_picture_has_a_panel_for_each_side(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    plan = Plan(deploys=2, lead=1.0, period=10.0, rate=1.0)
    heights = []
    for sides in (("kill",), tuple(SIDES)):
        path = draw({side: [canned(side, plan, "a")] for side in sides}, tmp_path / "pictures" / "deploy.png")
        assert path is not None
        with image.open(path) as picture:
            heights.append(picture.size[1])
    assert heights[0] < heights[1]


def test_disco_run_is_told_what_the_contract_names() -> None:
    words = disco_run("etcd://127.0.0.1:1", ["server", "{port}"], "--bake", BAKE)
    assert words[-3:] == ["--", "server", "{port}"]
    assert "--replace" in words
    assert words[:2] == ["--registry", "etcd://127.0.0.1:1"]
    assert words.index("--registry") < words.index("run") < words.index("experiment") < words.index("--bake")


# ---- for real, in small

Measured: TypeAlias = Callable[[str, Plan, str], Run]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """As `measure`, but each way is only gone once: that takes seconds, and is looked at twice."""
    runs: dict[tuple[str, Plan], Run] = {}

    def find(side: str, plan: Plan, seed: str) -> Run:
        if (side, plan) not in runs:
            runs[side, plan] = measure(side, plan, seed)
        return runs[side, plan]

    return find


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", WAYS)
def test_each_way_replaces_the_old_version(side: str, measured: Measured) -> None:
    if side not in deploy_tables.present():
        pytest.skip("nginx or the sidecar is not installed")
    run = measured(side, deploy.QUICK.deploys, "smoke 1")
    (only,) = run.deploys
    assert only.was_replaced
    assert only.old_code == (-9 if side == "kill" else 0)
    answered = [each.note.by for each in run.calls if each.error is None]
    assert answered[0] == "v1"
    # The load has a fixed length: where it ended before the deploy did, the run says so, and the old version was still there.
    assert answered[-1] == "v2" or run.unloaded
    assert {each.connections for each in run.calls} == {"kept", "fresh"}
    assert run.executed_twice == 0
    done = {each.note.key for each in run.calls if each.note.method == "POST" and each.error is None}
    assert done
    assert done <= run.executed.keys(), "every POST that was answered was executed"
    if side not in ("kill", "term"):  # which loses a request on a kept connection now and then
        assert not run.errors


@pytest.mark.timeout(120)
def test_it_runs_quickly_and_gives_sane_json(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As every other benchmark (`test_smoke`), but in this process, with the runs that are there already."""
    monkeypatch.setattr(deploy, "measure", measured)
    file = tmp_path / "results.json"
    assert main(["deploy", "--quick", "--json", str(file)]) == 0
    output, errors = capsys.readouterr()
    check_results("deploy", json.loads(file.read_text()), output, errors)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mood", ["unready", "sickens"])
def test_a_bad_version_touches_nobody(mood: str) -> None:
    plan = deploy_bad.BadPlan((mood,), rounds=1, rate=60.0, lead=0.2, seconds=2.0)
    tried = deploy_bad.try_bad(OURS, mood, plan, "smoke 1")
    assert tried.requests > 0
    assert tried.failed == 0
    assert tried.is_harmless
    assert tried.took is not None
