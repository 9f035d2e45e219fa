"""Sidecars as processes under test: started, heard as systemd hears them, looked at, and ended whatever became of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from discoclient.system.family import marked
from discoclient.system.process import is_stopped
from discoclient.system.waiting import wait_until
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes, PythonProcess

__all__ = ["Connecting", "Notified", "Started", "Starter", "is_alive", "paused"]

READY_TIMEOUT = 20.0


class Notified:
    """What a process says to ``$NOTIFY_SOCKET``, as lists of lines, with the pid of who said it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="disco-test-")
        self.path = str(Path(self._folder.name) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(self.path)
        self.said: list[tuple[int, list[str]]] = []

    def wait_for(self, line: str, *, timeout: float = READY_TIMEOUT) -> int:
        """Until a message with *line*, which none before had; who said it."""
        deadline = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, 256)
            except TimeoutError:
                raise AssertionError(f"nobody said {line!r} within {timeout:g} s, but {self.said}") from None
            pid = int.from_bytes(ancillary[0][2][:4], "little")
            self.said.append((pid, data.decode().splitlines()))
            if line in self.said[-1][1]:
                return pid

    def drain(self) -> list[tuple[int, list[str]]]:
        """All that was said."""
        with contextlib.suppress(AssertionError):
            self.wait_for("nothing that anybody says", timeout=0.01)
        return self.said

    def close(self) -> None:
        self._socket.close()
        self._folder.cleanup()


class Started:
    """A sidecar that was started, its addresses, and its successors."""

    def __init__(self, process: PythonProcess, notified: Notified, port: int, admin: int) -> None:
        self.process = process
        self.notified = notified
        self.port = port
        self.admin_port = admin
        self.url = f"http://127.0.0.1:{port}"
        self.admin = f"http://127.0.0.1:{admin}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        return self.process.errors

    def wait_ready(self) -> Self:
        self.notified.wait_for("READY=1")
        return self

    def kill(self, number: signal.Signals, pid: int | None = None) -> None:
        """A signal for this process alone, not for its group."""
        os.kill(self.pid if pid is None else pid, number)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.admin}/api/services", timeout=5.0).json()["sidecar"]
        return found

    def full_state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.admin}/api/services", timeout=5.0).json()
        return found

    def readiness(self) -> tuple[int, list[str]]:
        answer = httpx.get(f"{self.admin}/readyz", timeout=5.0)
        return answer.status_code, answer.json()["reasons"]

    def get(self, path: str = "/experiment/") -> int:
        """The status, over a connection of its own."""
        return httpx.get(self.url + path, timeout=10.0).status_code

    def hang_up(self) -> int:
        """SIGHUP; the pid of who serves from then on, when the old one has ended."""
        self.kill(signal.SIGHUP)
        assert self.process.wait(timeout=READY_TIMEOUT) == 0, self.errors
        pid: int = self.state()["pid"]
        return pid

    def said_error(self, text: str) -> str:
        assert wait_until(lambda: text in self.errors, timeout=15.0), f"no {text!r} in {self.errors}"
        return self.errors


class Starter:
    """Starts sidecars for one test. All of them, with their workers and successors, bear a mark, and are ended by it."""

    def __init__(self, processes: Processes, registry: str) -> None:
        self._processes = processes
        self._mark = f"disco-test-{uuid.uuid4().hex}"
        self.env = {"DISCO_TEST_MARK": self._mark}
        """What marks a process as one to be ended with the others."""
        self._notified: list[Notified] = []
        self.registry = registry

    def __call__(
        self,
        *options: str,
        port: int | None = None,
        admin: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        registry: str | None = None,
    ) -> Started:
        notified = Notified()
        self._notified.append(notified)
        port, admin = port or free_port(), admin or free_port()
        process = self._processes.python(
            *("-P", "-m", "disco_sidecar"),
            *("--registry", registry or self.registry) if registry != "" else (),
            *("--bind", str(port), "--admin", str(admin)),
            *options,
            env={**self.env, "NOTIFY_SOCKET": notified.path, **(env or {})},
            cwd=cwd,
        )
        return Started(process, notified, port, admin)

    def alive(self) -> set[int]:
        """All that live of what was started."""
        return {pid for pid in marked(f"DISCO_TEST_MARK={self._mark}") if is_alive(pid)}

    def workers(self) -> set[int]:
        """Those of them that are workers, once they have become a program of their own."""
        return {pid for pid in self.alive() if b"DISCO_SIDECAR_WORKER=" in _environ(pid)}

    def told(self, pid: int) -> dict[str, Any]:
        """What a worker was told by its supervisor."""
        variables = dict(line.split(b"=", 1) for line in _environ(pid).split(b"\0") if line)
        found: dict[str, Any] = json.loads(variables[b"DISCO_SIDECAR_WORKER"])
        return found

    def successors(self) -> set[int]:
        """Those of them that are to follow another, and have become a program of their own."""
        return {pid for pid in self.alive() if b"DISCO_SIDECAR_READY=" in _environ(pid)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        def end() -> bool:
            left = self.alive()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        assert wait_until(end, timeout=5.0), self.alive()
        for notified in self._notified:
            notified.close()


class Connecting(threading.Thread):
    """Requests, one after the other and each over a connection of its own, while a ``with`` block lasts."""

    def __init__(self, url: str) -> None:
        super().__init__(name="test-connecting", daemon=True)
        self._url = httpx.URL(url)
        self._stopping = threading.Event()
        self.count = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        eventually(lambda: self.count >= 5, what="requests are sent")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self.join()

    def more(self, count: int = 10) -> None:
        """Until *count* more were sent."""
        wanted = self.count + count
        eventually(lambda: self.count >= wanted, what="more requests are sent", timeout=10)

    def run(self) -> None:
        request = f"GET {self._url.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        while not self._stopping.wait(0.002):
            try:
                with socket.create_connection(
                    (self._url.host, self._url.port or 80), timeout=10
                ) as connection:
                    connection.sendall(request)
                    answer = b"".join(iter(lambda: connection.recv(65536), b""))
                if not answer.startswith(b"HTTP/1.1 200"):
                    self.failures.append(answer[:60].decode(errors="replace"))
            except OSError as error:
                self.failures.append(repr(error))
            self.count += 1


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stop a process while a ``with`` block lasts."""
    os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: is_stopped(pid), timeout=5.0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
