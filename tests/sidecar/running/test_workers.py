"""Several processes behind the same sockets: they serve together, are looked at as one, and end together."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.sidecar.running.starting import Connecting, Started, Starter, is_alive, paused
from tests.support.eventually import eventually


@pytest.fixture
def two(start: Starter) -> Started:
    return start("--workers", "2").wait_ready()


def requests(started: Started) -> int:
    """As the metrics have it."""
    text = httpx.get(f"{started.admin}/metrics", timeout=5.0).text
    name = 'disco_sidecar_requests_total{service="experiment",status="2xx"} '
    return int(sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)))


def test_both_serve_and_what_they_count_is_added_up_and_never_goes_down(two: Started) -> None:
    assert two.state()["workers"] == 2
    pids = two.state()["pids"]
    assert len({two.pid, *pids}) == 3
    before = two.state()["connections_total"]
    with Connecting(f"{two.url}/experiment/") as connecting:
        connecting.more(30)
    assert connecting.failures == []
    eventually(lambda: requests(two) == connecting.count, what="all are counted")
    assert two.state()["connections_total"] == before + connecting.count

    # One is killed: another takes its place, the other one goes on, and what it had counted stays counted.
    two.kill(signal.SIGKILL, pids[0])
    eventually(lambda: len(two.state()["pids"]) == 2 and pids[0] not in two.state()["pids"], timeout=15)
    two.said_error(f"worker 0 (pid {pids[0]}) ended with -9; another is started")
    eventually(lambda: two.readiness() == (200, []), timeout=15)
    assert requests(two) >= connecting.count
    assert two.get() == 200
    events = [event["text"] for event in two.full_state()["events"] if event["kind"] == "worker"]
    assert len(events) == 1


def test_a_worker_that_hangs_is_not_counted_twice_and_the_other_one_is_enough(two: Started) -> None:
    with Connecting(f"{two.url}/experiment/") as connecting:
        connecting.more(10)
    eventually(lambda: requests(two) == connecting.count, what="all are counted")
    one, other = two.state()["pids"]
    with paused(one):
        assert two.readiness()[0] == 200
        assert requests(two) == connecting.count
        with paused(other):
            eventually(lambda: two.readiness() == (503, ["2 of 2 workers do not answer"]), timeout=15)
    eventually(lambda: two.readiness()[0] == 200, timeout=15)


def test_nobody_is_ready_while_a_worker_has_not_come_yet(start: Starter) -> None:
    started = start("--workers", "2")
    late = eventually(start.workers, what="a worker", timeout=15).pop()
    with paused(late):
        eventually(lambda: _is_up(started), what="the admin address answers", timeout=15)
        code, reasons = started.readiness()
        assert code == 503
        assert any("workers do not answer" in reason for reason in reasons)
        assert started.notified.drain() == []
    started.wait_ready()
    eventually(lambda: started.readiness() == (200, []), what="it is ready")


def _is_up(started: Started) -> bool:
    try:
        return started.readiness()[0] != 0
    except httpx.HTTPError:
        return False


def test_when_the_supervisor_is_killed_the_workers_end_and_leave_nothing(
    two: Started, start: Starter
) -> None:
    (folder,) = {Path(start.told(pid)["admin"]).parent for pid in start.workers()}
    assert len(list(folder.iterdir())) == 2  # the sockets on which they tell how they do
    two.kill(signal.SIGKILL)
    two.process.wait()
    eventually(lambda: not start.alive(), what="the workers have ended", timeout=15)
    assert not folder.exists()


@pytest.mark.parametrize("to_all", [False, True], ids=["SIGTERM to one", "Ctrl-C to all"])
def test_told_to_end_all_end_and_nothing_was_wrong(to_all: bool, two: Started, start: Starter) -> None:
    pids = two.state()["pids"]
    assert two.get() == 200
    if to_all:
        two.process.signal(signal.SIGINT)  # the whole group, as a terminal does
    else:
        two.kill(signal.SIGTERM)
    assert two.process.wait() == 0
    assert not any(map(is_alive, pids))
    assert two.errors == ""


def test_a_file_in_the_current_folder_is_nobodys_module(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise SystemExit('this is not uvloop')")
    started = start("--workers", "2", cwd=tmp_path).wait_ready()
    assert started.get() == 200
    assert started.errors == ""


def test_a_worker_that_can_not_start_is_an_error_and_not_a_loop(start: Starter, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.symlink_to(tmp_path / "missing" / "log")  # looks free to who only checks
    started = start("--workers", "2", "--access-log", str(log))
    assert started.process.wait(timeout=20) in (1, 2)
    assert f"--access-log {log}" in started.errors
    assert "before it served" in started.errors or "No such file" in started.errors
    assert start.alive() == set()


def test_a_worker_has_the_options_of_its_supervisor_though_the_file_has_others_by_now(
    start: Starter, tmp_path: Path
) -> None:
    config = tmp_path / "toml"
    config.write_text("workers = 2")
    started = start("--config", str(config)).wait_ready()
    config.write_text("listen = 'nonsense'")
    killed, other = started.state()["pids"]
    started.kill(signal.SIGKILL, killed)
    eventually(lambda: len(start.workers() - {killed}) == 2, what="another one", timeout=15)
    with paused(other):
        assert started.get() == 200


def test_an_access_log_is_opened_again_by_all_of_them(start: Starter, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = start("--workers", "2", "--access-log", str(log)).wait_ready()
    assert started.get() == 200
    log.rename(tmp_path / "log.1")
    started.kill(signal.SIGUSR1)
    eventually(log.exists, what="a new file")
    files = [f"/proc/{pid}/fd" for pid in started.state()["pids"]]
    moved = str(tmp_path / "log.1")
    eventually(
        lambda: not any(moved in _open_files(folder) for folder in files), what="nobody has the old one"
    )
    with Connecting(f"{started.url}/experiment/") as connecting:
        connecting.more(5)
    eventually(lambda: len(log.read_text().splitlines()) == connecting.count)
    assert len((tmp_path / "log.1").read_text().splitlines()) == 1


def _open_files(folder: str) -> set[str]:
    found = set()
    for entry in Path(folder).iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found
