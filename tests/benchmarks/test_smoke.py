"""Every benchmark still runs, and what it gives can be read by a program. Whether a figure is good is not judged here."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.children import Child, cpu_seconds, thread_count
from benchmarks.sidecar_sides import find_sidecar, present
from benchmarks.trouble_proxies import find

ROOT = Path(__file__).parents[2]

# The aims that are set. One that is lost on the way is one that nobody looks at any more.
AIMS = {
    "convergence": {
        ("times the bare watch, p99 from the put's return", 3.0),
        ("DiscoClient, p99 from the put's return", 50.0),
    },
    "overhead": {("cost of the layer, CPU", 25.0), ("cost of the layer, CPU", 40.0)},
    "pick": {
        ("peak_ewma, 3 endpoints", 3.0),
        ("peak_ewma, 100 endpoints", 3.0),
        ("peak_ewma, 10,000 endpoints", 3.0),
        ("peak_ewma, 10,000 endpoints to 3", 1.5),
        ("peak_ewma, a retry, 10,000 endpoints to 3", 1.5),
        ("least_request, 10,000 endpoints to 3", 1.5),
        ("round_robin, 10,000 endpoints to 3", 1.5),
        ("random, 10,000 endpoints to 3", 1.5),
        ("weighted_round_robin, 10,000 endpoints to 3", 1.5),
        ("rendezvous, 10,000 endpoints to 3", 1.5),
    },
    "large": {
        ("one change, records decoded", 1.0),
        ("one change, endpoints made", 0.0),
        ("one change, instances that are other objects", 1.0),
        ("one change, endpoints that are other objects", 0.0),
    },
    "idle": {("DiscoClients, CPU", 0.5), ("DiscoClients, threads beside the main one", 1.0)},
    "trouble": {
        ("AsyncDiscoClient, peak_ewma: failed", 0.0),
        ("AsyncDiscoClient, peak_ewma: sent for each request made", 1.2),
        ("AsyncDiscoClient, peak_ewma: to the hung one until left alone", 5.0),
        ("AsyncDiscoClient, peak_ewma: to the failing one, worst second", 1.0),
    },
    "deploy": {
        ("disco run --replace: GETs that failed", 0.0),
        ("disco run --replace: POSTs that failed", 0.0),
        ("disco run --replace: POSTs executed twice", 0.0),
        ("disco run --replace: old versions that were killed", 0.0),
        ("disco run --replace: p99, during in terms of outside", 1.5),
        ("disco run --replace, one that exits at start: failed", 0.0),
        ("disco run --replace, one that exits at start: old version touched", 0.0),
        ("from registered to gone, 2 hosts in terms of 1 host", 1.5),
        ("the whole deploy, 2 hosts in terms of 1 host", 1.5),
        ("requests that failed, in all", 0.0),
    },
    "sidecar": {
        ("requests, sidecar, HTTP in terms of nginx", 0.6),
        ("CPU, sidecar, HTTP in terms of nginx", 1.7),
        ("requests, sidecar, TCP in terms of nginx", 0.9),
        ("sidecar, HTTP, a slow reader: grown", 2.0),
        ("sidecar, TCP, a slow reader: grown", 2.0),
        ("sidecar, HTTP, a slow service: grown", 2.0),
        ("sidecar, TCP, a slow service: grown", 2.0),
        ("sidecar, HTTP: failed", 0.0),
        ("sidecar, HTTP: p99, around a change in terms of other times", 1.5),
    },
}
if find("nginx"):
    AIMS["trouble"].add(("p99, ours in terms of nginx, least_conn", 0.5))
if "envoy" in present():
    AIMS["sidecar"].add(("requests, sidecar, HTTP in terms of Envoy", 1.0))
if find_sidecar():
    AIMS["deploy"] |= {
        (name.replace("--replace:", "--replace, callers of the sidecar:"), aim)
        for name, aim in AIMS["deploy"]
        if name.startswith("disco run --replace:")
    }

ROUNDS = {"trouble": 1, "deploy": 1, "sidecar": 1}
"""At least, where five rounds of a quick run would not be quick; a full run has three."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_quickly_and_gives_sane_json(name: str, tmp_path: Path) -> None:
    if name == "sidecar" and not (find("nginx") and find("wrk")):
        pytest.skip("nginx or wrk is not installed")
    file = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", name, "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.splitlines()[:-1] == [], "only how long it took goes to stderr"
    results = json.loads(file.read_text())
    assert results["quick"] is True
    assert results["environment"]["cores"] > 0
    assert results["environment"]["versions"].keys() >= {"httpx", "httpcore", "grpclib"}
    assert list(results["benchmarks"]) == [name]
    sections = results["benchmarks"][name]
    for section in sections:
        check_section(section, ROUNDS.get(name, 5))
        assert section["title"] in done.stdout
        assert all(row["name"] in done.stdout for row in section["rows"])
    found = {
        (row["name"], row["aim"]) for section in sections for row in section["rows"] if row["aim"] is not None
    }
    assert found == AIMS[name]
    globals().get(f"check_{name}", lambda sections: None)(sections)


def check_section(section: dict[str, Any], rounds: int) -> None:
    rows = section["rows"]
    assert section["notes"]
    assert len({row["name"] for row in rows}) == len(rows)
    assert {"ours", "reference"} <= {row["role"] for row in rows}, "every figure has its reference beside it"
    for row in rows:
        assert len(row["rounds"]) >= rounds
        assert all(math.isfinite(value) for value in row["rounds"])
        assert row["low"] == min(row["rounds"]) <= row["median"] <= max(row["rounds"]) == row["high"]
        assert row["unit"]
        if row["aim"] is None:
            assert row["is_met"] is None
        elif row["sense"] == "<=":
            assert row["is_met"] is (row["median"] <= row["aim"])
        else:
            assert row["is_met"] is (row["median"] >= row["aim"])


def rows_of(section: dict[str, Any]) -> dict[str, list[float]]:
    return {row["name"]: row["rounds"] for row in section["rows"]}


def check_convergence(sections: list[dict[str, Any]]) -> None:
    assert len(sections) == 2
    for section in sections:
        rows = rows_of(section)
        for side in ("bare etcd watch", "DiscoClient"):
            from_start, from_return = (
                rows[f"{side}, p99 from the put's {word}"] for word in ("start", "return")
            )
            assert min(rows[f"{side}, p50 from the put's start"]) > 0, "nothing is known before it is sent"
            assert all(late > early for late, early in zip(from_start, from_return, strict=True))


def check_overhead(sections: list[dict[str, Any]]) -> None:
    assert [section["title"].rpartition(", ")[2] for section in sections] == [
        "one thread",
        "1 in flight",
        "32 in flight",
    ]
    for section in sections:
        rows = rows_of(section)
        costs = [rows[name] for name in rows if "cost of" not in name]
        assert all(value > 0 for rounds in costs for value in rounds)
        ours, bare = rows["DiscoClient, CPU"], rows["the same wire without discovery, CPU"]
        assert rows["cost of the layer, CPU"] == pytest.approx(
            [mine - its for mine, its in zip(ours, bare, strict=True)]
        )


def check_large(sections: list[dict[str, Any]]) -> None:
    """Counted, so exact, also in a quick run on a busy machine."""
    rows = rows_of(sections[0])
    assert set(rows["one change, records decoded"]) == {1.0}
    assert set(rows["one change, endpoints made"]) == {0.0}
    assert set(rows["one change, instances that are other objects"]) == {1.0}
    assert set(rows["one change, endpoints that are other objects"]) == {0.0}


def check_deploy(sections: list[dict[str, Any]]) -> None:
    """What fails, who is killed and which old version is touched is counted: zero, also on a busy machine."""
    counted = [row for section in sections for row in section["rows"] if row["aim"] == 0]
    assert len(counted) == (11 if find_sidecar() else 7)
    assert all(row["is_met"] for row in counted), counted


def check_idle(sections: list[dict[str, Any]]) -> None:
    """The number of threads is no matter of time either."""
    assert set(rows_of(sections[0])["DiscoClients, threads beside the main one"]) == {1.0}


def test_a_name_that_no_benchmark_has_is_an_error_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["pick", "picks"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "no benchmark is called picks" in error
    assert all(name in error for name in BENCHMARKS)


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["pick", "--json", str(tmp_path / "no-folder" / "results.json")])
    assert exit_.value.code == 2
    assert "no-folder" in capsys.readouterr().err


def test_what_a_process_spends_is_counted_thread_by_thread() -> None:
    """The figures of idle processes rest on this, and would look best if it counted nothing."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    alone = thread_count(os.getpid())
    thread.start()
    try:
        assert thread_count(os.getpid()) == alone + 1
        before, own = cpu_seconds(os.getpid()), time.thread_time()
        while time.thread_time() - own < 0.05:
            pass
        assert cpu_seconds(os.getpid()) - before >= 0.045
    finally:
        over.set()
        thread.join()


def test_a_child_that_ends_early_is_an_error_and_not_a_wait() -> None:
    with (
        Child("watchers", "bare", 1, "etcd://127.0.0.1:1", "experiment") as child,
        pytest.raises(RuntimeError),
    ):
        child.wait_ready()
