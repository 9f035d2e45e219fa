"""``disco run`` with a command of ours below it, both as real processes that a test can look at and harm."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.running.keys import Keys
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess

__all__ = [
    "HEALTH",
    "PROGRAMS",
    "QUICK",
    "SLOW",
    "Deploy",
    "Stage",
    "command",
    "holds",
    "is_alive",
    "is_refused",
    "listener_of",
]

PROGRAMS = Path(__file__).with_name("programs")
SLOW = 30.0
"""Seconds that a busy machine may take for what takes it a moment."""
IMPATIENT = """
import sys
from discoclient.cli import main
from discoclient.serving import runner
runner.REGISTRY_TIMEOUT = {patience}
sys.exit(main())
"""
QUICK = ("--quiet", "0.2", "--health-interval", "0.4", "--ttl", "5")
HEALTH = ("--health-path", "/healthz", "--health-interval", "0.1")


def command(folder: Path, *arguments: str) -> list[str]:
    """`programs/service.py`, started as fast as Python can be."""
    return [sys.executable, "-I", "-S", str(PROGRAMS / "service.py"), str(folder), *arguments]


def is_alive(pid: int, born: int) -> bool:
    """Whether that very process is there, and not as a zombie that nobody has waited for yet."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z" and int(fields[19]) == born


class Deploy:
    """One ``disco run``, and the service below it."""

    def __init__(self, process: PythonProcess, folder: Path, keys: Keys, service: str) -> None:
        self.process = process
        self.folder = folder
        self.service = service
        self._keys = keys
        self._facts: dict[str, Any] = {}
        self._born = 0

    def __repr__(self) -> str:
        return f"<Deploy {self.folder.name}: {self.process!r}>\n{self.words}"

    @property
    def words(self) -> str:
        """What it printed."""
        return f"--- output\n{self.process.output}\n--- errors\n{self.process.errors}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the command was given, waited for."""
        if not self._facts:
            path = self.folder / "facts.json"
            eventually(lambda: path.exists() or not self.process.is_running, timeout=SLOW)
            assert path.exists(), f"the command was not started: {self!r}"
            self._facts = json.loads(path.read_text())
            fields = _stat(self._facts["pid"])
            self._born = int(fields[19]) if fields is not None else 0
        return self._facts

    @property
    def pid(self) -> int:
        """The command's."""
        return int(self.facts["pid"])

    @property
    def id(self) -> str:
        return str(self.facts["env"]["DISCO_INSTANCE"])

    @property
    def is_serving(self) -> bool:
        """Whether the command's process is there."""
        return is_alive(self.pid, self._born)

    @property
    def was_started(self) -> bool:
        return (self.folder / "facts.json").exists()

    @property
    def state(self) -> str:
        return self._keys.state(self.id, self.service)

    @property
    def record(self) -> dict[str, Any]:
        found = self._keys.record(self.id, self.service)
        assert found is not None, f"not registered: {self!r}"
        return found

    @property
    def port(self) -> int:
        return int(self.record["port"])

    @property
    def probes(self) -> int:
        return self._count("probes")

    @property
    def requests(self) -> int:
        return self._count("requests")

    def wait_for(self, state: str, *, timeout: float = SLOW) -> None:
        """Until the registry says *state* (or ``gone``) of it. An `AssertionError` with its words if it ends before."""

        def is_there() -> bool:
            if self.state == state:
                return True
            if state != "gone" and not self.process.is_running:
                raise RuntimeError(f"it has ended: {self!r}")
            return False

        try:
            eventually(is_there, timeout=timeout, what=f"{state} in the registry")
        except (AssertionError, RuntimeError) as error:
            raise AssertionError(f"{error}\n{self!r}") from None

    def wait(self, *, timeout: float = SLOW) -> int:
        """The exit code of ``disco run``."""
        return self.process.wait(timeout=timeout)

    def has(self, name: str) -> bool:
        """Whether a file of that name is in its folder: ``TERM`` when the command has got a SIGTERM."""
        return (self.folder / name).exists()

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def untouch(self, name: str) -> None:
        (self.folder / name).unlink()

    def send(self, number: signal.Signals) -> None:
        """To ``disco run`` itself and to nobody else, as a service manager does."""
        assert self.process.is_running, repr(self)
        os.kill(self.process.pid, number)

    def send_child(self, number: signal.Signals) -> None:
        if self.is_serving:
            os.kill(self.pid, number)

    def get(self, path: str = "/", *, timeout: float = 10.0) -> httpx.Response:
        """Past the registry, straight to it."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout, trust_env=False)

    def _count(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0


class Stage:
    """Starts `Deploy`s, and leaves nothing of them."""

    def __init__(self, processes: Processes, folder: Path, keys: Keys, url: str) -> None:
        self._processes = processes
        self._folder = folder
        self.keys = keys
        self.url = url
        self.deploys: list[Deploy] = []

    def run(
        self,
        *options: str,
        program: Sequence[str] = (),
        service: str = "experiment",
        command_line: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        registry: str | None = None,
        name: str | None = None,
        patience: float | None = None,
    ) -> Deploy:
        """``disco run SERVICE OPTIONS -- COMMAND``, quick if not said otherwise. *program*: arguments of the service's.
        *patience*: seconds that the registry may take to answer, in place of 10.
        """
        folder = self._folder / (name or f"run-{len(self.deploys)}")
        folder.mkdir()
        given = {option for option in options if option.startswith("--")}
        quick = [word for pair in zip(QUICK[::2], QUICK[1::2]) if pair[0] not in given for word in pair]
        words = command_line if command_line is not None else command(folder, *program)
        disco = ["-m", "discoclient.cli"] if patience is None else ["-c", IMPATIENT.format(patience=patience)]
        process = self._processes.python(
            *disco, "--registry", registry or self.url,
            "run", service, *quick, *options, "--", *(word.replace("FOLDER", str(folder)) for word in words),
            env=env,
        )  # fmt: skip
        deploy = Deploy(process, folder, self.keys, service)
        self.deploys.append(deploy)
        return deploy

    def ready(self, *options: str, **rest: Any) -> Deploy:
        """As `run`, and registered as ready when this returns."""
        deploy = self.run(*options, **rest)
        deploy.wait_for("ready")
        return deploy

    def disco(self, *arguments: str) -> PythonProcess:
        """Another ``disco`` command."""
        return self._processes.python("-m", "discoclient.cli", "--registry", self.url, *arguments)

    def close(self) -> None:
        """End all of them the hard way. A command that outlived its ``disco run`` is ended, and is an `AssertionError`."""
        ended = [deploy for deploy in self.deploys if not deploy.process.is_running]
        orphans = [deploy for deploy in ended if deploy.was_started and deploy.is_serving]
        for deploy in self.deploys:
            # What is below goes first, or it would keep the pipes open that are read to their ends.
            deploy.process.signal(signal.SIGKILL)
            if deploy.was_started:
                deploy.send_child(signal.SIGKILL)
        for deploy in self.deploys:
            deploy.process.kill()
        assert not orphans, f"commands outlived their disco run: {orphans}"


def listener_of(port: int) -> str | None:
    """The inode of the socket that listens on 127.0.0.1 or everywhere at *port*."""
    wanted = f"{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].rpartition(":")[2] == wanted and fields[3] == "0A":
            return fields[9]
    return None


def holds(pid: int, inode: str) -> bool:
    """Whether the process has that socket open."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry) == f"socket:[{inode}]":
                return True
        except OSError:
            continue
    return False


def is_refused(port: int) -> bool:
    """Whether a connection is refused at once. `TimeoutError` if nobody answers at all."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
    except ConnectionRefusedError:
        return True
    return False


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
