"""What a program uses, with all the processes and threads that it started: CPU and resident memory, from ``/proc`` (Linux).

`discoclient.system.process.spawn` gives each program a session of its own, so the processes of that session are the program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Usage", "cores", "on_core", "read_core", "read_stat", "read_status", "usage", "worked"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    cpu: float
    """Seconds of user and system time so far, of threads that have ended too; to the kernel's tick of 10 ms."""
    resident: float
    """MB now. Pages that processes share are counted for each of them."""
    peak: float
    """MB at most so far, as the sum of what each process had at most."""
    processes: int


def usage(session: int) -> Usage:
    """What the processes of that session use. One that ends while it is looked at counts as nothing."""
    cpu, resident, peak, processes = 0.0, 0.0, 0.0, 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            owner, spent = read_stat((folder / "stat").read_text())
            if owner != session:
                continue
            now, most = read_status((folder / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        cpu, resident, peak, processes = cpu + spent, resident + now, peak + most, processes + 1
    return Usage(cpu, resident, peak, processes)


def read_stat(text: str) -> tuple[int, float]:
    """Session and seconds of CPU from ``/proc/PID/stat``."""
    fields = text.rpartition(")")[2].split()  # "pid (name) S ...": the name may hold spaces and parentheses
    return int(fields[3]), (int(fields[11]) + int(fields[12])) * _TICK


def read_status(text: str) -> tuple[float, float]:
    """MB that are resident, and that were at most, from ``/proc/PID/status``; zeros for a process that has ended."""
    found = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("Vm"))
    now, most = (int(found.get(name, "0 kB").split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, most


def worked(core: int) -> float:
    """Seconds that this core has worked since the machine started, for whomever."""
    return read_core(Path("/proc/stat").read_text(), core)


def read_core(text: str, core: int) -> float:
    """The same from ``/proc/stat``; idle, waiting for disks and taken by the machine's host are not work."""
    (line,) = (each for each in text.splitlines() if each.startswith(f"cpu{core} "))
    user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) * _TICK


def cores() -> tuple[int, int]:
    """The core for the proxy, and the one for everything else: the last two that we may use; the same one if there is one."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[-1], ours[max(0, len(ours) - 2)]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Inside, all threads of this process run on that core, and what it starts does unless it is told otherwise."""
    before = os.sched_getaffinity(0)
    _pin({core})
    try:
        yield
    finally:
        _pin(before)


def _pin(allowed: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), allowed)
        except ProcessLookupError:
            continue
