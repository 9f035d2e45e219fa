"""Several quick runs at the same time: most of a benchmark's time is waiting, and a quick run's figures are not for quoting.

Each is a process of its own, as if somebody had called ``python -m benchmarks NAME --quick``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from discoclient.system.process import Process, end, spawn

__all__ = ["Done", "run_at_once"]

_ROOT = Path(__file__).resolve().parents[1]
_AT_ONCE = 3
_PATIENCE = 300.0
"""Seconds after which something hangs."""


class Done(NamedTuple):
    name: str
    sections: list[dict[str, Any]]
    seconds: float


def run_at_once(names: Sequence[str]) -> Iterator[Done]:
    """The quick runs of *names*, in this order; each when it and those before it have ended.

    Raises:
        RuntimeError: one failed; with what it said. The others are ended.
    """
    with TemporaryDirectory(prefix="disco-bench-") as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        running: set[Process] = set()
        jobs = [pool.submit(_run, name, Path(folder), running) for name in names]
        try:
            for job in jobs:
                yield job.result()
        finally:
            for job in jobs:
                job.cancel()
            for process in list(running):
                end(process, grace=2.0)


def _run(name: str, folder: Path, running: set[Process]) -> Done:
    file, said = folder / f"{name}.json", folder / f"{name}.said"
    began = time.monotonic()
    with said.open("wb") as output:
        process = spawn(
            [sys.executable, "-m", "benchmarks", name, "--quick", "--json", str(file)],
            cwd=_ROOT,
            env=os.environ,
            stdout=output,
            stderr=output,
        )
    running.add(process)
    try:
        code = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        end(process, grace=2.0)
        running.discard(process)
    if code != 0:
        raise RuntimeError(f"{name} failed ({code}): {said.read_text()}")
    return Done(name, json.loads(file.read_text())["benchmarks"][name], time.monotonic() - began)
