"""Commands that check and reload: by the shell, for a bounded time, with what they said."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

__all__ = ["Outcome", "names_the_file", "run"]

GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for a command that takes too long."""
KEPT = 4096
"""Bytes of what a command said: the last ones."""
LOOK_AROUND = 0.1
"""Seconds between looks at whether to go on."""

_VARIABLE = re.compile(r"\$F\b|\$\{F\}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: ``problem`` is empty if it went well, ``output`` is the end of what it said."""

    problem: str
    output: str
    seconds: float = 0.0


def names_the_file(command: str) -> bool:
    """Whether the file has a place in *command*: ``$F``, or ``{}``."""
    return bool(_VARIABLE.search(command)) or "{}" in command


def run(
    command: str,
    file: Path,
    *,
    timeout: float,
    clock: Callable[[], float],
    is_over: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run *command* by ``/bin/sh``, for *timeout* seconds at most, and no longer than until *is_over*.

    *file* is in ``$F``, and in the place of each ``{}`` if ``$F`` does not stand in *command* (``events {}`` is nginx's).
    """
    text = command if _VARIABLE.search(command) else command.replace("{}", shlex.quote(str(file)))
    began = clock()
    with tempfile.TemporaryFile() as said:  # not a pipe: what the command leaves running may hold it open
        process = spawn(
            ["/bin/sh", "-c", text], env=os.environ | {"F": str(file)}, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None and clock() - began < timeout and not is_over():
                left = max(0.0, timeout - (clock() - began))
                wait_until(lambda: process.poll() is not None, timeout=min(LOOK_AROUND, left))
            code = process.poll()
        finally:
            if process.poll() is None:
                end(process, grace=GRACE)
        said.seek(max(0, said.seek(0, os.SEEK_END) - KEPT))
        output = said.read().decode(errors="replace").strip()
    return Outcome(_problem(code, timeout, is_over()), output, clock() - began)


def _problem(code: int | None, timeout: float, is_over: bool) -> str:
    if code is None:
        return "broken off" if is_over else f"it took more than {timeout:g} s, and was ended"
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit code {code}" if code else ""
