"""Python programs under test, as real processes: started, listened to, and ended by the pid that we recorded."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from discoclient.system.process import Process, end, pause, send, spawn

__all__ = ["Processes", "PythonProcess", "running"]

_ROOT = Path(__file__).resolve().parents[2]
_running: set[PythonProcess] = set()


class PythonProcess:
    """A Python interpreter of ours. It dies with us; it must be ended before the test is over all the same.

    What it prints is read all the time, so that it never waits for us to read. Usable as a context manager.
    """

    def __init__(
        self,
        *arguments: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        """Run ``python ARGUMENTS``, with this repository importable. *env* is added to our environment."""
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._process: Process = spawn(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(env or {}),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._lines = _Lines(self._process.stdout)
        self._errors = _Lines(self._process.stderr)
        self._read = 0
        self._command = [str(argument) for argument in arguments]
        _running.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<PythonProcess {self.pid}: {' '.join(self._command)[:60]!r}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "\n".join(self._lines.all())

    @property
    def errors(self) -> str:
        """All that it has written to standard error so far."""
        return "\n".join(self._errors.all())

    def wait_for_line(self, wanted: str | Callable[[str], bool] = "", *, timeout: float = 10.0) -> str:
        """The next line it prints that holds *wanted* (a text, or a predicate), after the one found last time.

        Raises `AssertionError` when its output ends or *timeout* seconds are over, with all it said.
        """
        is_wanted = wanted if callable(wanted) else lambda line: wanted in line
        found = self._lines.wait_for(is_wanted, start=self._read, timeout=timeout)
        if found is None:
            if self._lines.is_at_end:
                # Its output has ended, so it is ending: its last words are the ones that matter.
                self._errors.join(timeout=1.0)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1.0)
            how = "still running" if self.is_running else f"ended with {self._process.returncode}"
            raise AssertionError(
                f"{self!r} ({how}) did not print {wanted!r} within {timeout:g} s\n"
                f"--- output\n{self.output}\n--- errors\n{self.errors}"
            )
        self._read, line = found
        return line

    def wait(self, *, timeout: float = 10.0) -> int:
        """The exit code, when it has ended and all its output is read. Negative: the signal that ended it."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self!r} still runs after {timeout:g} s\n--- output\n{self.output}\n--- errors\n{self.errors}"
            ) from None
        self._forget()
        return code

    def stop(self, *, grace: float = 5.0) -> int:
        """SIGTERM, and SIGKILL after *grace* seconds. Returns the exit code; can be called again."""
        code = end(self._process, grace=grace)
        self._forget()
        return code

    def kill(self) -> int:
        """SIGKILL, and wait until it is gone."""
        return self.stop(grace=0.0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, and do not wait."""
        send(self._process, number)

    def pause(self) -> None:
        """SIGSTOP. Returns when every thread has stopped."""
        pause(self._process)

    def resume(self) -> None:
        """SIGCONT."""
        send(self._process, signal.SIGCONT)

    def _forget(self) -> None:
        _running.discard(self)
        # A grandchild may hold the other end of the pipes for longer: what it prints is not what we wait for.
        self._lines.join(timeout=1.0)
        self._errors.join(timeout=1.0)


class Processes:
    """Starts `PythonProcess`es and ends them all at the end of a ``with`` block, the youngest first."""

    def __init__(self) -> None:
        self._all: list[PythonProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._all):
            process.stop()

    def python(
        self,
        *arguments: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> PythonProcess:
        """Run ``python ARGUMENTS``."""
        process = PythonProcess(*arguments, env=env, cwd=cwd)
        self._all.append(process)
        return process

    def code(self, source: str, *arguments: str, env: Mapping[str, str] | None = None) -> PythonProcess:
        """Run *source* as a program, with *arguments* in its ``sys.argv[1:]``."""
        return self.python("-c", source, *arguments, env=env)


def running() -> set[PythonProcess]:
    """All processes of ours that nobody has waited for or stopped, and that still run."""
    return {process for process in _running if process.is_running}


class _Lines:
    """Reads a pipe to its end in a thread of its own."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._is_at_end = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="test-process-output", daemon=True)
        self._thread.start()

    def all(self) -> Sequence[str]:
        with self._changed:
            return list(self._lines)

    def wait_for(
        self, is_wanted: Callable[[str], bool], *, start: int, timeout: float
    ) -> tuple[int, str] | None:
        """The first wanted line from line number *start* on, and the number of the line after it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for number in range(start, len(self._lines)):
                    if is_wanted(self._lines[number]):
                        return number + 1, self._lines[number]
                start = len(self._lines)
                left = deadline - time.monotonic()
                if self._is_at_end or left <= 0:
                    return None
                self._changed.wait(left)

    @property
    def is_at_end(self) -> bool:
        with self._changed:
            return self._is_at_end

    def join(self, *, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\r\n"))
                    self._changed.notify_all()
        with self._changed:
            self._is_at_end = True
            self._changed.notify_all()


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.kill()
