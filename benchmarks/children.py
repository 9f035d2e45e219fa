"""The processes that a benchmark needs beside its own (`server`, `watchers`, ...). They end with us, whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from discoclient.system.process import end, spawn

__all__ = ["Child", "cpu_seconds", "family_cpu", "thread_count"]

_ROOT = Path(__file__).resolve().parents[1]


class Child:
    """``python -m benchmarks.MODULE ARGUMENTS``: it says one line of JSON when it is ready, and ends when its input does."""

    def __init__(self, module: str, *arguments: object) -> None:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._process = spawn(
            [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=2,  # ours
        )
        self.pid = self._process.pid
        self.hello: Any = None
        """What it said when it was ready; see `wait_ready`."""

    def wait_ready(self) -> Self:
        self.hello = self._read()
        return self

    def ask(self, question: Any) -> Any:
        """Send one line of JSON, and return the one that it says to that."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def collect(self) -> Any:
        """End its input, and return what it says last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process, grace=2.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child of the benchmark ended early: {self._process.args!r}")
        return json.loads(line)


def cpu_seconds(pid: int) -> float:
    """What the threads of a process that still run have used so far, user and system, to the nanosecond (Linux)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def family_cpu(pid: int) -> float:
    """The same for a process and its children, such as nginx's workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(cpu_seconds, [pid, *map(int, children)]))


def thread_count(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
