"""What processes use between two moments, and how figures grow from size to size."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from discoclient.dev import EtcdCluster

from .bare_etcd import BareEtcd, record
from .changes import Change, known_at
from .children import cpu_seconds
from .figures import Row
from .usage import read_status
from .watchers import Noted

__all__ = ["Made", "Meter", "delays", "growth", "own_memory", "resident", "stand"]

Made = list[tuple[int, float, float]]
"""What `scale_churn` prints: revision, sent, returned."""


class Meter:
    """CPU of some processes from now on, in % of a core."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.began = time.monotonic()
        self._spent = self._cpu()

    @classmethod
    def of(cls, cluster: EtcdCluster) -> Self:
        return cls([member.pid for member in cluster.members if member.pid is not None])

    def read(self) -> float:
        return 100 * (self._cpu() - self._spent) / (time.monotonic() - self.began)

    def seconds(self) -> float:
        """Of CPU, not of time."""
        return self._cpu() - self._spent

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self._pids))


def resident(*pids: int) -> float:
    """MB."""
    return sum(read_status(Path(f"/proc/{pid}/status").read_text())[0] for pid in pids)


def own_memory(pid: int) -> float:
    """MB that a process has for itself alone, of pages shared with others its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = next(line for line in lines if line.startswith("Pss:"))
    return int(found.split()[1]) * 1024 / 1e6


def stand(registry: str, services: Sequence[str], instances: int) -> None:
    """Put *instances* of each service, under one lease."""

    async def put() -> None:
        async with BareEtcd(registry) as etcd:
            lease = await etcd.lease()
            await etcd.put_all(
                [record(service, number) for service in services for number in range(instances)], lease
            )

    asyncio.run(put())


def delays(noted: Noted, made: Made, *, since: float) -> list[float]:
    """Milliseconds from each put's return to when it was known, for the puts sent after *since* that were known in time.

    If there were none, as in a quick run on a busy machine, those before.
    """
    last = noted[-1][0] if noted else 0
    known = [Change("", 0, *each) for each in made if each[0] <= last]
    if not known:
        raise RuntimeError("no change was known")
    late = [change for change in known if change.sent >= since] or known
    return [1000 * (known_at(noted, change) - change.returned) for change in late]


def growth(name: str, values: Sequence[float], sizes: Sequence[int], *, aim: float | None) -> Row:
    """How many times as much for twice the size: the least-squares slope over all sizes, in logarithms."""
    xs = [math.log2(size) for size in sizes]
    ys = [math.log2(max(value, 1e-9)) for value in values]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - middle) ** 2 for x in xs
    )
    return Row(f"growth per doubling: {name}", "compared", "x", (2**slope,), aim=aim)
