"""One process and its surroundings: systemd's sockets, what it is told, limits, the log."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from disco_sidecar.running import process
from tests.sidecar.running.starting import Notified, Starter
from tests.support.eventually import eventually
from tests.support.ports import free_port

# What systemd does: sockets as descriptors 3 and on, and the pid of who is to have them.
ACTIVATE = """
import os, sys
count, pid, *command = sys.argv[1:]
os.environ |= {"LISTEN_FDS": count, "LISTEN_PID": pid if pid != "own" else str(os.getpid())}
os.execv(sys.executable, [sys.executable, *command])
"""


def test_it_says_when_it_is_ready_who_it_is_and_when_it_ends(start: Starter) -> None:
    started = start()
    assert started.notified.wait_for("READY=1") == started.pid
    assert started.get() == 200
    started.kill(signal.SIGTERM)
    assert started.process.wait() == 0
    assert started.notified.drain() == [
        (started.pid, ["READY=1", f"MAINPID={started.pid}"]),
        (started.pid, ["STOPPING=1"]),
    ]


class Activated:
    """A sidecar that is handed a Unix socket, as number 3."""

    def __init__(self, starter: Starter, path: Path, pid: str, *options: str) -> None:
        self.notified = Notified()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self._errors = path.with_name("errors")
        command = ["-P", "-m", "disco_sidecar", "--registry", starter.registry, "--admin", "off", *options]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _dup(self.socket.fileno()), "1", pid, *command],
                env={**os.environ, **starter.env, "NOTIFY_SOCKET": self.notified.path},
                pass_fds=(self.socket.fileno(),),
                stderr=errors,
            )
        self.pid = self._process.pid

    def wait(self) -> tuple[int, str]:
        code = self._process.wait(15)
        return code, self._errors.read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.socket.close()
        self.notified.close()


def _dup(descriptor: int) -> str:
    move = f"import os; {descriptor} != 3 and os.dup2({descriptor}, 3); os.set_inheritable(3, True)"
    return f"{move}\n{ACTIVATE}"


def get(path: Path) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        return client.get("/experiment/").status_code


def test_a_socket_of_systemds_is_used_kept_over_restarts_and_left_where_it_is(
    start: Starter, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    activated = Activated(start, path, "own", "--bind", f"unix:{path}")
    try:
        activated.notified.wait_for("READY=1")
        assert get(path) == 200
        os.kill(activated.pid, signal.SIGHUP)
        activated.notified.wait_for("READY=1")
        assert activated.wait() == (0, "")
        (second,) = eventually(start.alive, what="the successor")
        assert get(path) == 200
        os.kill(second, signal.SIGTERM)
        eventually(lambda: not start.alive(), what="it has ended")
        assert path.exists()  # it is systemd's, also after its first user has gone
    finally:
        activated.close()


def test_a_socket_that_was_handed_to_another_process_is_not_taken(start: Starter, tmp_path: Path) -> None:
    activated = Activated(start, tmp_path / "a", "1", "--bind", f"unix:{tmp_path}/b")
    try:
        activated.notified.wait_for("READY=1")
        assert get(tmp_path / "b") == 200
        os.kill(activated.pid, signal.SIGTERM)
        assert activated.wait() == (0, "")
    finally:
        activated.close()


def test_a_socket_that_nothing_is_configured_for_is_wrong_usage(start: Starter, tmp_path: Path) -> None:
    activated = Activated(start, tmp_path / "a", "own", "--bind", f"unix:{tmp_path}/b")
    try:
        code, errors = activated.wait()
        assert code == 2
        assert f"handed over ($LISTEN_FDS) for unix:{tmp_path}/a, and nothing is configured" in errors
        assert not (tmp_path / "b").exists()
    finally:
        activated.close()


def test_as_many_files_may_be_open_as_the_system_admits(start: Starter) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    started = start().wait_ready()
    assert resource.prlimit(started.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_too_low_a_limit_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: pytest.fail("there is nothing to raise"))
    process._raise_limit(1024)
    assert caplog.records == []
    process._raise_limit(1025)
    assert "at most 1024 files may be open, and --max-connections can take 1025" in caplog.text


def test_a_limit_that_can_not_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*limit: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    process._raise_limit(100)


def test_the_access_log_goes_to_a_pipe_whose_end_does_not_end_the_traffic(start: Starter) -> None:
    reading, writing = os.pipe()
    notified, port = Notified(), free_port()
    sidecar = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "disco_sidecar", "--registry", start.registry),
            *("--access-log", "-", "--bind", str(port), "--admin", "off"),
        ],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, **start.env, "NOTIFY_SOCKET": notified.path},
        text=True,
    )
    os.close(writing)
    try:
        notified.wait_for("READY=1")
        url = f"http://127.0.0.1:{port}/experiment/users?token=secret"
        assert httpx.get(url).status_code == 200
        line = os.read(reading, 65536).decode()
        assert json.loads(line)["path"] == "/experiment/users"
        assert "secret" not in line
        os.close(reading)
        for _ in range(3):
            assert httpx.get(url).status_code == 200
        sidecar.terminate()
        _, errors = sidecar.communicate(timeout=15)
        assert sidecar.returncode == 0
        assert errors.count("the access log - can't be written") == 1
        assert "Traceback" not in errors
    finally:
        sidecar.kill()
        sidecar.communicate()
        notified.close()
