"""Many workers on one host: one watch for all of them (``?share=1``), beside one watch each.

Both sides are the same forked processes with a `DiscoClient` each, one side after the other, against the same etcd: it is
measured too, and must serve one side at a time.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from discoclient.dev import EtcdCluster

from .bare_etcd import BareEtcd, record
from .changes import Change, known_at
from .children import Child, cpu_seconds
from .figures import Row, Section, compare, percentile

__all__ = ["run"]

_SIDES = {"alone": ("", "a watch each"), "shared": ("?share=1", "one for all")}
_INSTANCES = 20
_RATE = 20.0
_SETTLE = 20.0
"""Seconds at most until the workers have found each other: on a busy machine one that waited too long begins alone."""
_AIM_WATCHES = 1.0
_AIM_SENT = 0.15
_AIM_LATE = 50.0


@dataclass(frozen=True, slots=True)
class Plan:
    workers: int
    rounds: int
    seconds: float
    """Of changes, in each round on each side."""
    patience: float
    """Seconds that the last change may take to be known everywhere, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One side in one round."""

    watches: int
    etcd: float
    """% of a core, as the next two; while changes come."""
    all_workers: float
    busiest: float
    memory: float
    """MB of a worker's own, and its part of what it has together with others."""
    sent: float
    """KB a second, by etcd."""
    delays: list[float]
    """Milliseconds from the put's return to the view."""


def run(*, quick: bool) -> Iterator[Section]:
    plan = Plan(4, 2, 0.25, 0.5) if quick else Plan(32, 5, 6.0, 3.0)
    measured: dict[str, list[Measured]] = {side: [] for side in _SIDES}
    with EtcdCluster(nodes=1) as etcd, _meeting_place():
        for round in range(plan.rounds):
            for side in _SIDES:
                measured[side].append(_measure(etcd, f"{side}-{round}", side, plan))
    yield _section(plan, measured)


def _measure(etcd: EtcdCluster, service: str, side: str, plan: Plan) -> Measured:
    member = etcd.members[0]
    asyncio.run(_stand(etcd.registry_url, service))
    before = _watches(member.client_port)
    with Child("watchers", "disco", plan.workers, etcd.registry_url + _SIDES[side][0], service) as child:
        pids: list[int] = child.wait_ready().hello["pids"]
        watches = _settled(member.client_port, before, 1 if side == "shared" else plan.workers)
        assert member.pid is not None
        all_pids = [member.pid, *pids]
        spent = {pid: -cpu_seconds(pid) for pid in all_pids}
        sent, began = -_sent(member.client_port), monotonic()
        made = asyncio.run(_change(etcd.registry_url, service, side, plan))
        elapsed = monotonic() - began
        sent += _sent(member.client_port)
        for pid in all_pids:
            spent[pid] += cpu_seconds(pid)
        memory = sum(map(_memory, pids)) / len(pids)
        time.sleep(plan.patience)
        noted = child.collect()
    share = {pid: 100 * seconds / elapsed for pid, seconds in spent.items()}
    return Measured(
        watches=watches,
        etcd=share[member.pid],
        all_workers=sum(share[pid] for pid in pids),
        busiest=max(share[pid] for pid in pids),
        memory=memory,
        sent=sent / 1000 / elapsed,
        delays=[1000 * (known_at(each, change) - change.returned) for change in made for each in noted],
    )


async def _stand(registry: str, service: str) -> None:
    async with BareEtcd(registry) as etcd:
        await etcd.put_all([record(service, number) for number in range(_INSTANCES)], await etcd.lease())


async def _change(registry: str, service: str, side: str, plan: Plan) -> list[Change]:
    """A new instance in the place of the oldest, at an even rate."""
    made = []
    async with BareEtcd(registry) as etcd:
        lease, began = await etcd.lease(), monotonic()
        for number in range(int(plan.seconds * _RATE)):
            await asyncio.sleep(max(0.0, began + number / _RATE - monotonic()))
            old, _ = record(service, number)
            sent = monotonic()
            revision = await etcd.replace(old, *record(service, number + _INSTANCES), lease)
            made.append(Change(side, 0, revision, sent, monotonic()))
    return made


def _section(plan: Plan, measured: Mapping[str, Sequence[Measured]]) -> Section:
    rows: list[Row] = []

    def pair(name: str, unit: str, figure: Callable[[Measured], float], aim: float | None = None) -> None:
        both = {
            side: Row(
                f"{words}: {name}",
                "ours" if side == "shared" else "reference",
                unit,
                tuple(map(figure, measured[side])),
            )
            for side, (_, words) in _SIDES.items()
        }
        rows.extend([both["alone"], replace(both["shared"], aim=aim)])

    def ratio(name: str, aim: float | None = None) -> None:
        rows.append(
            compare(
                f"{name}, one for all in terms of a watch each",
                lambda ours, alone: ours / max(alone, 1e-9),
                rows[-1],
                rows[-2],
                unit="x",
                aim=aim,
            )
        )

    pair("watches at etcd", "watches", lambda each: each.watches, _AIM_WATCHES)
    pair("etcd sends", "KB/s", lambda each: each.sent)
    ratio("etcd sends", _AIM_SENT)
    pair("CPU of etcd", "% of a core", lambda each: each.etcd)
    ratio("CPU of etcd")
    pair("CPU of all workers", "% of a core", lambda each: each.all_workers)
    ratio("CPU of all workers")
    pair("CPU of the busiest worker", "% of a core", lambda each: each.busiest)
    pair("memory of a worker", "MB", lambda each: each.memory)
    pair("put to view, p50", "ms", lambda each: percentile(each.delays, 0.5))
    pair("put to view, p99", "ms", lambda each: percentile(each.delays, 0.99), _AIM_LATE)
    return Section(
        f"{plan.workers} workers on one host, {_RATE:g} changes a second",
        rows,
        [
            (
                f"{plan.rounds} rounds of {plan.seconds:g} s; one service of {_INSTANCES} instances, of which each change "
                "replaces one; etcd: one member on this machine, without fsync."
            ),
            "Memory is PSS: pages that forked workers have together are divided among them. Presence is on in both.",
        ],
    )


@contextmanager
def _meeting_place() -> Iterator[None]:
    """A folder of this run's own, for workers that end without a goodbye."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before


def _settled(port: int, before: int, expected: int) -> int:
    """How many watches there are when what the start left to do is done."""
    deadline = monotonic() + _SETTLE
    time.sleep(0.2)
    while (found := _watches(port) - before) != expected and monotonic() < deadline:
        time.sleep(0.1)
    return found


def _watches(port: int) -> int:
    return int(_metric(port, "etcd_debugging_mvcc_watcher_total"))


def _sent(port: int) -> float:
    return _metric(port, "etcd_network_client_grpc_sent_bytes_total")


def _metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{name}\S* (\S+)$", answer.read().decode(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"etcd does not tell {name}")
    return float(found[1])


def _memory(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
