"""Requests as fast as answers come: what each side makes of one core, by kind of request and number of connections.

In a round every side has its turn, with new processes. What CPU it takes is read when the load has ended, as is its memory; the
requests are counted by wrk, and once more by the instances: a cache that answers would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import truediv
from statistics import median
from typing import NamedTuple, TypeAlias

from .figures import Row, Section, Sense, compare, format_number
from .sidecar_scene import LARGE, SMALL, SMALL_BODY, Scene
from .sidecar_sides import SIDES, absent
from .usage import Usage, worked
from .wrk import MIX, Load, run_wrk

__all__ = ["WORKLOADS", "Measured", "Plan", "Runs", "Workload", "load_section", "measure", "take_turns"]


class Workload(NamedTuple):
    title: str
    path: str
    connections: int
    fresh: bool = False
    """A new connection for each request."""


WORKLOADS: dict[str, Workload] = {
    "small32": Workload("41 bytes, 32 connections", SMALL, 32),
    "small256": Workload("41 bytes, 256 connections", SMALL, 256),
    "large32": Workload("1 MB, 32 connections", LARGE, 32),
    "large256": Workload("1 MB, 256 connections", LARGE, 256),
    "mix": Workload("a mix, 32 connections", MIX, 32),
    "fresh": Workload("41 bytes, fresh connections, 32 at a time", SMALL, 32, fresh=True),
}

_AIM_RATE = 0.6
_AIM_CPU = 1.7
_AIM_ENVOY = 1.0
_AIM_TCP = 0.9
_AIM_MEMORY = 60.0
"""MB."""
_AIMED_MEMORY = 256
"""The number of connections for which that is promised."""
_OTHERS = 0.1
"""The share of the proxy's core from which on somebody else is a part of what was measured."""


class Plan(NamedTuple):
    rounds: int
    seconds: int
    warm_up: int
    """Seconds of the same load that count for nothing: connections are made, and code gets warm."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of one side."""

    load: Load
    cpu: float
    """Seconds that the proxy spent while the load ran."""
    after: Usage
    served: int
    """What the instances counted."""
    others: float
    """Seconds that somebody else had of the proxy's core meanwhile."""
    is_direct: bool

    @property
    def cpu_each(self) -> float:
        """Microseconds for a request."""
        return self.cpu / self.load.requests * 1e6

    @property
    def busy(self) -> float:
        """The share of its core."""
        return self.cpu / self.load.seconds


Runs: TypeAlias = "Mapping[str, Sequence[Measured]]"


def measure(scene: Scene, side: str, work: Workload, plan: Plan) -> Measured:
    """One side from its start to its end.

    Raises:
        RuntimeError: no request was answered.
    """
    with scene.front(side) as front:

        def load(seconds: int) -> Load:
            return run_wrk(
                front.port,
                work.path,
                connections=work.connections,
                seconds=seconds,
                fresh=work.fresh,
                folder=scene.folder,
            )

        if plan.warm_up:
            load(plan.warm_up)
        counts, before, had = scene.counts(), front.usage(), worked(scene.core)
        done = load(plan.seconds)
        after, had = front.usage(), worked(scene.core) - had
        served = sum(scene.served(counts))
    if not done.requests:
        raise RuntimeError(f"{SIDES[side][0]}, {work.title}: nothing was answered: {done}")
    cpu = after.cpu - before.cpu
    return Measured(done, cpu, after, served, max(0.0, had - cpu), front.session is None)


def take_turns(scene: Scene, sides: Sequence[str], work: Workload, plan: Plan) -> dict[str, list[Measured]]:
    runs: dict[str, list[Measured]] = {side: [] for side in sides}
    for number in range(plan.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            runs[side].append(measure(scene, side, work, plan))
    return runs


def load_section(work: Workload, runs: Runs, plan: Plan, *, is_shared: bool = False) -> Section:
    rate = _rows(runs, "requests", "per second", lambda run: run.load.rate)
    cpu = _rows(runs, "CPU", "us per request", lambda run: run.cpu_each, direct=False)
    groups = (
        rate,
        cpu,
        _rows(runs, "p50", "ms", lambda run: run.load.p50),
        _rows(runs, "p99", "ms", lambda run: run.load.p99),
        _rows(
            runs,
            "memory, at most",
            "MB",
            lambda run: run.after.peak,
            direct=False,
            aim=_AIM_MEMORY if work.connections == _AIMED_MEMORY else None,
        ),
        _rows(runs, "memory, at the end", "MB", lambda run: run.after.resident, direct=False),
    )
    rows = [row for group in groups for row in group.values()]
    return Section(
        f"Through the sidecar and beside it: {work.title}",
        [*rows, *_compared(rate, cpu, is_aimed=not work.fresh)],
        _about(work, runs, plan, is_shared),
    )


def _rows(
    runs: Runs,
    name: str,
    unit: str,
    value: Callable[[Measured], float],
    *,
    direct: bool = True,
    aim: float | None = None,
) -> dict[str, Row]:
    """A row for each side; *aim* is for ours. *direct*: also where there is no proxy."""
    return {
        side: Row(
            f"{SIDES[side][0]}: {name}",
            SIDES[side][1],
            unit,
            tuple(map(value, taken)),
            aim=aim if SIDES[side][1] == "ours" else None,
        )
        for side, taken in runs.items()
        if direct or not taken[0].is_direct
    }


def _compared(rate: Mapping[str, Row], cpu: Mapping[str, Row], *, is_aimed: bool) -> list[Row]:
    """Ours in terms of the others, round by round. The aims are for kept connections."""
    wanted: tuple[tuple[str, str, str, Mapping[str, Row], float | None, Sense], ...] = (
        ("sidecar", "nginx", "requests", rate, _AIM_RATE, ">="),
        ("sidecar", "nginx", "CPU", cpu, _AIM_CPU, "<="),
        ("sidecar", "haproxy", "requests", rate, None, ">="),
        ("sidecar", "envoy", "requests", rate, _AIM_ENVOY, ">="),
        ("sidecar", "envoy", "CPU", cpu, None, "<="),
        ("sidecar_tcp", "nginx", "requests", rate, _AIM_TCP, ">="),
        ("sidecar_tcp", "stream", "requests", rate, None, ">="),
        ("sidecar_tcp", "stream", "CPU", cpu, None, "<="),
    )
    return [
        compare(
            f"{name}, {SIDES[ours][0]} in terms of {SIDES[other][0]}",
            truediv,
            rows[ours],
            rows[other],
            unit="times",
            aim=aim if is_aimed else None,
            sense=sense,
        )
        for ours, other, name, rows, aim, sense in wanted
        if ours in rows and other in rows and min(rows[other].rounds) > 0
    ]


def _about(work: Workload, runs: Runs, plan: Plan, is_shared: bool) -> list[str]:
    what = {
        SMALL: f"GETs of the same {len(SMALL_BODY)} bytes",
        LARGE: "GETs of the same 1 MB",
        MIX: "GETs of 200 paths, with a header that is never twice the same, and each answer repeats both",
    }[work.path]
    busy = ", ".join(
        f"{SIDES[side][0]} {median(run.busy for run in taken):.0%}"
        for side, taken in runs.items()
        if not taken[0].is_direct
    )
    counted = min(run.served / run.load.requests for taken in runs.values() for run in taken)
    notes = [
        (
            f"Rounds: {plan.rounds}, of {plan.seconds} s for each side after {plan.warm_up} s of the same load, with new "
            f"processes each time; {what}, by wrk{', which makes a new connection for each' if work.fresh else ''}."
        ),
        "All on one core, proxies, wrk and instances: there is no second one here."
        if is_shared
        else "The proxy has one core, and wrk, the three instances and all else share another one.",
        f"Busy, of the proxy's core: {busy or 'nobody'}.",
        f"Of the requests that wrk counted, the instances had {counted:.1%} or more: nobody answered from a cache."
        if counted >= 0.999
        else f"The instances had only {format_number(100 * counted)} % of what wrk counted: don't quote this run.",
    ]
    others = max((run.others / run.load.seconds for taken in runs.values() for run in taken), default=0.0)
    if not is_shared:
        told = f"Somebody else had at most {others:.0%} of that core in a round."
        notes.append(f"{told} That is too much: don't quote this run." if others > _OTHERS else told)
    for side, taken in runs.items():
        if failed := sum(run.load.failed for run in taken):
            notes.append(
                f"{SIDES[side][0]}: {failed:,} of {sum(run.load.requests for run in taken):,} failed: don't quote this run."
            )
    return [*notes, *absent()]
