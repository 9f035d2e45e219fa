"""The processes of the demo: services that register themselves, and those that ``disco run`` starts and replaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system.family import family
from ..system.process import Process, end, pause, spawn
from ..system.waiting import wait_until
from .demo_service import SERVICE

__all__ = ["Run", "Service", "Words", "end_run", "show_run", "start_run", "start_service"]

FAMILY_TIMEOUT = 5.0
MOST_WORDS = 20
RUN = f"run {SERVICE} --replace --bake {{bake:g}} --version 2 --hostname {{hostname}} --health-path /healthz"
SCRIPT = Path(__file__).with_name("demo_service.py")


@dataclass(frozen=True, slots=True)
class Service:
    """One instance of version 1: its process, the number that it answers with, and when it was registered (monotonic clock)."""

    process: Process
    words: Words
    hostname: str
    number: int
    registered_at: float


@dataclass(frozen=True, slots=True)
class Run:
    """One ``disco run``: its process, and the number that its service answers with."""

    process: Process
    words: Words
    hostname: str
    number: int
    started_at: float

    @property
    def exit_code(self) -> int | None:
        """Once all is over and said."""
        return self.process.poll() if self.words.is_over else None


class Words:
    """Reads what a process prints, to the end, so that it never waits for us: lines of JSON, and what is for people."""

    def __init__(self, process: Process, on_done: Callable[[int], None]) -> None:
        """*on_done* is called for each POST that was done there, with what it carried."""
        assert process.stdout is not None
        self._lines = process.stdout
        self._on_done = on_done
        self.found: dict[str, Any] = {}
        self.said: list[str] = []
        self.is_over = False
        threading.Thread(target=self._read, name="demo-words", daemon=True).start()

    def _read(self) -> None:
        with self._lines:
            for line in self._lines:
                if not line.startswith(b"{"):
                    self.said = [*self.said[-MOST_WORDS:], line.decode(errors="replace").rstrip()]
                    continue
                record = json.loads(line)
                if "done" in record:
                    self._on_done(record["done"])
                else:
                    self.found.update(record)
        self.is_over = True


def start_service(number: int, hostname: str, *, registry: str, ttl: float, is_hasty: bool) -> Process:
    """Version 1, which registers itself. *is_hasty*: it does not drain when it is asked to retire."""
    service = [sys.executable, "-m", f"{__package__}.{SCRIPT.stem}", "--number", str(number)]
    words = ["--hostname", hostname, "--registry", registry, "--ttl", str(ttl)]
    return _spawn([*service, *words, *(["--hasty"] if is_hasty else [])], {})


def start_run(number: int, hostname: str, *, registry: str, bake: float, is_broken: bool) -> Process:
    """Version 2, under ``disco run``."""
    command = [sys.executable, "-m", f"{__package__}", *RUN.format(bake=bake, hostname=hostname).split()]
    # What a person would leave out: a probe or two while it is baked, and where our callers show who answered.
    command += ["--health-interval", "0.5", "--metadata", f"number={number}"]
    service = [sys.executable, "-I", "-S", str(SCRIPT), "--number", str(number), "--port", "{port}"]
    return _spawn(
        [*command, "--", *service, *(["--broken"] if is_broken else [])], {"DISCO_REGISTRY": registry}
    )


def show_run(hostname: str, bake: float) -> str:
    """The command of `start_run`, as a person would write it."""
    words = RUN.format(bake=bake, hostname=hostname).replace(" --health", " \\\n    --health")
    return f"disco {words} -- python {SCRIPT.name} --port {{port}}"


def end_run(process: Process) -> None:
    """End a ``disco run`` and all of its family, at once: there is no etcd to sign off from, at the end."""
    others: set[int] = set()
    try:
        pause(process)  # it starts nothing while we look, and keeps the pids of those that end
        if process.poll() is None:
            others = family(process.pid) - {process.pid}
    finally:  # also when somebody is impatient
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end(process, grace=0.0)
    wait_until(lambda: all(map(_is_gone, others)), timeout=FAMILY_TIMEOUT)


def _spawn(words: list[str], environment: dict[str, str]) -> Process:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DISCO_")}
    return spawn(words, env=env | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _is_gone(pid: int) -> bool:
    try:
        # "pid (name) S ...": the name may hold spaces and parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
