"""Every benchmark still runs, and what it gives can be read by a program. Whether a figure is good is not judged here."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.children import Child, cpu_seconds, thread_count
from tests.benchmarks.smoke import check_results

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"deploy", "sidecar"}
"""Those whose runs are looked at besides, which takes too long to be done twice: `test_deploy`, `test_sidecar_real`."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ELSEWHERE])
def test_a_benchmark_runs_quickly_and_gives_sane_json(name: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", name, "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_results(name, json.loads(file.read_text()), done.stdout, done.stderr)


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
