"""Children die with us, however we go; and they start with a clean slate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from discoclient.dev.folder import DataFolder, sweep
from discoclient.system import process as process_module
from discoclient.system.process import end, is_stopped, pause, send, spawn
from tests.dev.kv import is_alive
from tests.support.eventually import eventually
from tests.support.processes import Processes

SHIM = Path(process_module.__file__).with_name("_spawn.py")

OWNER = """
import signal, sys, threading
from discoclient.dev import EtcdCluster

etcd = EtcdCluster(1, heartbeat=0.05, election=0.25)
starter = threading.Thread(target=etcd.start)
starter.start()
starter.join()
etcd.wait_healthy()
print(etcd.members[0].pid, etcd.data_dir, flush=True)
"""


def wait_for_exec(pid: int, program: str) -> None:
    eventually(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == program, what=f"{pid} is {program}")


def status_of(pid: int, field: str) -> int:
    """A field of ``/proc/PID/status`` that is a mask of signals."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")), 16)


def test_an_owner_that_is_killed_takes_its_etcd_along_and_the_next_one_sweeps_up(
    processes: Processes,
) -> None:
    owner = processes.code(OWNER + "signal.pause()")
    pid_text, folder_text = owner.wait_for_line(timeout=30.0).split()
    pid, folder = int(pid_text), Path(folder_text)
    assert is_alive(pid)  # though the thread that started it has ended
    assert folder not in sweep()  # it has an owner
    assert folder.is_dir()
    owner.kill()
    eventually(lambda: not is_alive(pid), what="etcd is gone")
    sweep()
    eventually(lambda: not folder.exists(), what="another sweeper, who was there first, is done too")


def test_an_owner_that_ends_without_a_stop_leaves_nothing(processes: Processes) -> None:
    owner = processes.code(OWNER)
    pid_text, folder_text = owner.wait_for_line(timeout=30.0).split()
    assert owner.wait() == 0, owner.errors
    assert not is_alive(int(pid_text))
    assert not Path(folder_text).exists()


def test_a_forked_child_does_not_stop_its_parents_cluster(processes: Processes) -> None:
    code = """
import os
child = os.fork()
if child == 0:
    etcd.stop()
    raise SystemExit(0)  # with all that runs at exit
assert os.waitpid(child, 0)[1] == 0
etcd.wait_healthy()
assert etcd.data_dir.is_dir()
print("still healthy")
"""
    owner = processes.code(OWNER + code)
    owner.wait_for_line("still healthy", timeout=30.0)
    assert owner.wait() == 0, owner.errors


def test_a_forked_child_can_have_a_cluster_of_its_own(processes: Processes) -> None:
    code = """
import os
child = os.fork()
if child == 0:
    with EtcdCluster(1, heartbeat=0.05, election=0.25) as own:
        assert own.registry_url != etcd.registry_url
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
etcd.wait_healthy()
print("both")
"""
    owner = processes.code(OWNER + code)
    owner.wait_for_line("both", timeout=30.0)
    assert owner.wait() == 0, owner.errors


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def by_us() -> None:
        started.append(spawn(["sleep", "600"]))

    def by_the_thread_itself() -> None:
        shim = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), "9", "-", "sleep", "600"]
        started.append(subprocess.Popen(shim))
        wait_for_exec(started[-1].pid, "sleep")

    for target in (by_us, by_the_thread_itself):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    ours, negative_control = started
    try:
        assert negative_control.wait(5.0) == -signal.SIGKILL  # the kernel means the thread
        wait_for_exec(ours.pid, "sleep")
        assert ours.poll() is None
    finally:
        assert end(ours, grace=5.0) == -signal.SIGTERM


def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    """The parent died between the start of the shim and its request to be killed."""
    for parent, expected in ((os.getpid(), True), (os.getpid() + 1, False)):
        mark = tmp_path / str(parent)
        code = subprocess.run(
            [sys.executable, "-I", "-S", SHIM, str(parent), "9", "-", "touch", mark]
        ).returncode
        assert (code == 0, mark.exists()) == (expected, expected)


def test_a_program_that_does_not_exist_is_an_exit_code_and_a_word(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = spawn([tmp_path / "nothing"], stderr=log)
    assert process.wait(5.0) == 127
    assert "cannot run" in (tmp_path / "log").read_text()


def test_a_child_starts_with_no_signal_blocked_or_ignored(processes: Processes) -> None:
    """A thread that waits for signals has them blocked, and Python ignores SIGPIPE: an etcd must not inherit that."""
    code = """
import signal, subprocess, time
from discoclient.system.process import spawn
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print(spawn(["sleep", "600"]).pid, subprocess.Popen(["sleep", "600"], restore_signals=False).pid)
signal.sigwait({signal.SIGTERM})
"""
    parent = processes.code(code)
    ours, negative_control = (int(pid) for pid in parent.wait_for_line().split())
    try:
        for pid in (ours, negative_control):
            wait_for_exec(pid, "sleep")
        term, pipe = 1 << (signal.SIGTERM - 1), 1 << (signal.SIGPIPE - 1)
        assert status_of(negative_control, "SigBlk") & term
        assert status_of(negative_control, "SigIgn") & pipe
        assert status_of(ours, "SigBlk") == 0
        assert not status_of(ours, "SigIgn") & pipe
    finally:
        os.kill(negative_control, signal.SIGKILL)


def test_a_child_that_nobody_waited_for_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C came between the order and the start."""
    started: list[subprocess.Popen[bytes]] = []
    is_starting, is_interrupted = threading.Event(), threading.Event()
    start = subprocess.Popen

    def slow_start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        is_starting.set()
        assert is_interrupted.wait(10.0)
        started.append(start(*args, **options))
        return started[-1]

    def interrupted(future: Future[Any]) -> None:
        assert is_starting.wait(10.0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", slow_start)
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spawn(["sleep", "600"])
    is_interrupted.set()
    eventually(lambda: started and started[0].returncode == -signal.SIGKILL)


def test_a_child_that_does_not_listen_to_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    code = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(tmp_path / 'up')!r}, 'w'); signal.pause()"
    process = spawn([sys.executable, "-c", code])
    eventually((tmp_path / "up").exists)
    assert end(process, grace=0.1) == -signal.SIGKILL
    assert end(process, grace=0.1) == -signal.SIGKILL  # again


def test_a_paused_child_has_stopped_and_can_be_ended() -> None:
    process = spawn(["sleep", "600"])
    wait_for_exec(process.pid, "sleep")
    assert not is_stopped(process.pid)
    pause(process)
    assert is_stopped(process.pid)
    assert end(process, grace=5.0) == -signal.SIGTERM
    assert not send(process, signal.SIGTERM)


def test_a_pause_takes_as_long_as_threads_take_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    process = spawn(["sleep", "600"])
    looks = iter([False, False, True])
    monkeypatch.setattr(process_module, "is_stopped", lambda pid: next(looks))
    pause(process)
    assert next(looks, None) is None
    end(process, grace=0.0)


@pytest.fixture
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_only_folders_without_an_owner_are_swept(temporary_root: Path) -> None:
    living = DataFolder.temporary()
    (dead := temporary_root / "disco-etcd-dead" / "m0").mkdir(parents=True)
    (dead.parent / "owner.lock").touch()
    (unknown := temporary_root / "disco-etcd-without-a-lock").mkdir()
    (other := temporary_root / "somebody-elses").mkdir()
    (other / "owner.lock").touch()
    (temporary_root / "disco-etcd-link").symlink_to(other)
    assert sweep() == [dead.parent]
    assert not dead.parent.exists()
    assert living.path.is_dir()
    assert unknown.is_dir()
    assert other.is_dir()
    living.close()
    living.close()
    assert not living.path.exists()


def test_a_new_folder_is_the_occasion_to_sweep(temporary_root: Path) -> None:
    (dead := temporary_root / "disco-etcd-dead").mkdir()
    (dead / "owner.lock").touch()
    DataFolder.temporary().close()
    assert list(temporary_root.iterdir()) == []
