"""Membership changes under load: an instance comes or goes every second. The registry tells the sidecar, a reload tells nginx.

The instance itself runs all the time, so that nothing fails but what the change breaks. Requests come on a schedule
(`open_loop`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from operator import truediv
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from discoclient import Registration

from .children import Child
from .figures import Row, Section, compare, percentile
from .open_loop import PLAIN, Report, Sample
from .sidecar_scene import Scene, register, scene
from .sidecar_sides import SIDES, Front, absent
from .trouble_figures import FAILED_COUNTS

__all__ = ["ChangesPlan", "Run", "changes_section", "measure", "section_of"]

_SIDES = ("nginx", "sidecar")
_AFTER = 0.4
"""Seconds from the begin of a change that belong to it."""
_AIM_FAILED = 0.0
_AIM_P99 = 1.5
_LATE = 20.0
"""Milliseconds at the 99th percentile from which on the generator itself is suspect."""


class ChangesPlan(NamedTuple):
    rounds: int
    changes: int
    """In a round, a second apart."""
    rate: float
    """Requests a second."""
    lead: float = 1.0
    """Seconds of load before the first one; they count for failures only."""

    @property
    def seconds(self) -> float:
        return self.lead + self.changes


@dataclass(frozen=True, slots=True)
class Run:
    report: Report
    changes: Sequence[float]
    """When each began, counted from the begin of the load."""
    share: float
    """Of the requests, what the instance had that comes and goes: 0 if nobody noticed that it came."""
    processes: int
    """Of the proxy, after the last change."""
    resident: float
    """MB, of all of them."""

    def latency(self, share: float, *, during: bool) -> float:
        """Milliseconds, of the requests that were due while something changed, or while nothing did."""
        found = [each for each in self.report.samples if self._is_during(each.due) is during]
        return percentile((_waited(each) for each in found), share) * 1e3

    @property
    def errors(self) -> Counter[str]:
        return Counter(each.error for each in self.report.samples if each.error is not None)

    @property
    def late(self) -> float:
        """Milliseconds, at the 99th percentile."""
        return percentile((each.late for each in self.report.samples), 0.99) * 1e3

    def _is_during(self, due: float) -> bool | None:
        """``None`` before the first change, where everybody is new to everybody."""
        if due < self.changes[0]:
            return None
        return any(each <= due < each + _AFTER for each in self.changes)


Runs: TypeAlias = "Mapping[str, Sequence[Run]]"


def _waited(sample: Sample) -> float:
    """Who fails fast is not fast."""
    return sample.latency if sample.error is None else max(sample.latency, FAILED_COUNTS)


def changes_section(plan: ChangesPlan, sides: Sequence[str]) -> Section:
    """Of those *sides* that this is about."""
    sides = [side for side in _SIDES if side in sides]
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    with ExitStack() as stack:
        here = stack.enter_context(scene(registered=False))
        for port in here.ports[:-1]:
            stack.callback(register(here.registry, port).leave)
        for number in range(plan.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                runs[side].append(measure(here, side, plan, f"round {number}"))
    return section_of(runs, plan)


def measure(here: Scene, side: str, plan: ChangesPlan, seed: str) -> Run:
    """One side from its start to its end. The last instance of *here* is the one that comes and goes; it is away at first."""
    with ExitStack() as stack:
        front = stack.enter_context(here.front(side, ports=here.ports[:-1]))
        change = _nginx_changes(front, here.ports) if side == "nginx" else _registry_changes(here, stack)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        load = stack.enter_context(
            Child("open_loop", PLAIN, plan.rate, plan.seconds, seed, front.port)
        ).wait_ready()
        counts = here.counts()
        began = monotonic()
        told = pool.submit(load.collect)
        changes = []
        for number in range(plan.changes):
            time.sleep(max(0.0, began + plan.lead + number - monotonic()))
            changes.append(monotonic())
            change(number % 2 == 0)
        after = front.usage()
        report = _read(told.result())
        served = here.served(counts)
        share = served[-1] / max(1, sum(served))
        return Run(report, [each - report.began for each in changes], share, after.processes, after.resident)


def _nginx_changes(front: Front, ports: Sequence[int]) -> Callable[[bool], None]:
    return lambda comes: front.reload(ports if comes else ports[:-1])


def _registry_changes(here: Scene, stack: ExitStack) -> Callable[[bool], None]:
    standing: list[Registration] = []

    def clear() -> None:
        for each in standing:
            each.leave()

    def change(comes: bool) -> None:
        if comes:
            standing.append(register(here.registry, here.ports[-1]))
        else:
            standing.pop().leave()

    stack.callback(clear)
    return change


def _read(told: Any) -> Report:
    began, cpu, wall, samples = told
    return Report(began, cpu, wall, [Sample(*each) for each in samples])


def section_of(runs: Runs, plan: ChangesPlan) -> Section:
    """What failed is summed over all rounds: a median would hide the one that went wrong."""
    during = _rows(
        runs, "p99 around a change", "ms", lambda taken: [r.latency(0.99, during=True) for r in taken]
    )
    outside = _rows(
        runs, "p99 at other times", "ms", lambda taken: [r.latency(0.99, during=False) for r in taken]
    )
    groups = (
        _rows(
            runs,
            "failed",
            "requests",
            lambda taken: [sum(run.errors.total() for run in taken)],
            aim=_AIM_FAILED,
        ),
        during,
        outside,
        _rows(
            runs,
            "had by the one that comes and goes",
            "% of requests",
            lambda taken: [run.share * 100 for run in taken],
        ),
        _rows(
            runs,
            "processes after the last change",
            "processes",
            lambda taken: [run.processes for run in taken],
        ),
        _rows(runs, "their memory", "MB", lambda taken: [run.resident for run in taken]),
    )
    rows = [row for group in groups for row in group.values()]
    rows += [
        compare(
            f"{SIDES[side][0]}: p99, around a change in terms of other times",
            truediv,
            during[side],
            outside[side],
            unit="times",
            aim=_AIM_P99 if SIDES[side][1] == "ours" else None,
        )
        for side in runs
    ]
    return Section("An instance comes or goes every second", rows, _about(runs, plan))


def _rows(
    runs: Runs,
    name: str,
    unit: str,
    values: Callable[[Sequence[Run]], Iterable[float]],
    *,
    aim: float | None = None,
) -> dict[str, Row]:
    return {
        side: Row(
            f"{SIDES[side][0]}: {name}",
            SIDES[side][1],
            unit,
            tuple(values(taken)),
            aim=aim if SIDES[side][1] == "ours" else None,
        )
        for side, taken in runs.items()
    }


def _about(runs: Runs, plan: ChangesPlan) -> list[str]:
    made = plan.rounds * plan.changes
    asked = min((sum(len(run.report.samples) for run in taken) for taken in runs.values()), default=0)
    notes = [
        (
            f"Rounds: {plan.rounds}, each with new processes and {plan.changes} changes, {made} in all; {plan.rate:g} GETs a "
            f"second (Poisson) over kept connections, {asked:,} in all on each side. Failed: the sum over all rounds. Around a "
            f"change: {_AFTER:g} s from its begin. A failed request counts as {FAILED_COUNTS:g} s. The sidecar learns of it "
            "from the registry; for nginx the configuration is written anew, then `nginx -s reload`, and old workers may take "
            "as long as they like to end."
        )
    ]
    for side, taken in runs.items():
        errors = sum((run.errors for run in taken), Counter[str]())
        if errors:
            told = ", ".join(f"{count} {error}" for error, count in errors.most_common())
            notes.append(f"{SIDES[side][0]}: {told}.")
    worst = max((run.late for taken in runs.values() for run in taken), default=0.0)
    late = f"99 % of the requests of each run were sent at most {worst:.1f} ms late."
    notes.append(f"{late} That is too much: don't quote this run." if worst > _LATE else late)
    return [*notes, *absent(_SIDES)]
