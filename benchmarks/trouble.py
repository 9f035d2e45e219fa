"""A fleet in trouble under real traffic: `AsyncDiscoClient` beside round robin through itself, nginx and HAProxy.

Of eight instances five are well, one is ten times slower, one hangs, and one fails at once (`trouble_servers`). Requests come
on a schedule, at 60 % of what the fleet can do (`open_loop`). Every side may take a second for an attempt. Each run has new
processes, so that nobody knows anything beforehand; within a round all sides get the same moments and the same service times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from operator import truediv
from random import Random
from typing import NamedTuple, TypeAlias

from discoclient.system.ports import pick_ports

from .children import Child
from .figures import Role, Row, Section, compare
from .open_loop import ATTEMPT_TIMEOUT, PLAIN
from .trouble_figures import FAILED_COUNTS, LEFT_ALONE, Run
from .trouble_proxies import PROXIES, find, running, version
from .trouble_servers import MEAN_SERVICE, capacity

__all__ = ["FLEET", "Plan", "measure", "run"]

FLEET = ("normal",) * 5 + ("slow", "hung", "failing")
_WELL = ("normal",) * 5
_LOAD = 0.6
_LATE = 20.0
"""Milliseconds at the 99th percentile from which on the generator itself is suspect."""

_SIDES: dict[str, tuple[str, Role]] = {
    "peak_ewma": ("AsyncDiscoClient, peak_ewma", "ours"),
    "round_robin": ("AsyncDiscoClient, round_robin", "reference"),
    "nginx": ("nginx, least_conn", "reference"),
    "haproxy": ("HAProxy, leastconn", "reference"),
}
_OURS = "peak_ewma"
_AIM_P99 = 0.5
_AIM_FAILED = 0.0
_AIM_SENT = 1.2
_AIM_HUNG = 5.0
_AIM_FAILING = 1.0

Runs: TypeAlias = "dict[str, list[Run]]"


class Plan(NamedTuple):
    rounds: int
    seconds: float
    """Of load, for each side in a round."""
    learning: float
    """Seconds at the begin that are left out of what is called the steady state."""
    control: float
    """Seconds of load where nothing is wrong."""


def run(*, quick: bool) -> Iterator[Section]:
    plan = Plan(1, 1.0, 0.5, 0.5) if quick else Plan(3, 12.0, 3.0, 2.5)
    sides = [side for side in _SIDES if side not in PROXIES or find(side)]
    rate = _LOAD * capacity(*FLEET)
    trouble = _take_turns(sides, plan.rounds, FLEET, rate, plan.seconds)
    yield Section(
        "A fleet in trouble: latency", _latency(trouble, plan), [*_about(plan, rate), *_suspicions(trouble)]
    )
    yield Section("A fleet in trouble: what it took", _effort(trouble), _about_effort(trouble))
    control = _take_turns(sides, plan.rounds, _WELL, rate, plan.control)
    yield Section("The same load on a fleet that is well", _control(control), _about_control(control, plan))


def measure(side: str, fleet: Sequence[str], *, rate: float, seconds: float, seed: str) -> Run:
    """One side against a new *fleet*, with all that it needs in new processes, which are gone afterwards."""
    kinds = list(fleet)
    Random(seed).shuffle(kinds)  # the order in a list must be nobody's luck
    with ExitStack() as stack:
        servers = stack.enter_context(Child("trouble_servers", seed, *kinds)).wait_ready()
        ports = servers.hello["ports"]
        if side in PROXIES:
            (front,) = pick_ports()
            load = stack.enter_context(Child("open_loop", PLAIN, rate, seconds, seed, front)).wait_ready()
            # last of all, so that it learns nothing while the others start
            stack.enter_context(running(side, front, ports, timeout=ATTEMPT_TIMEOUT))
        else:
            load = stack.enter_context(Child("open_loop", side, rate, seconds, seed, *ports)).wait_ready()
        report = load.collect()
        return Run.read(seconds, report, kinds, servers.collect())


def _take_turns(sides: Sequence[str], rounds: int, fleet: Sequence[str], rate: float, seconds: float) -> Runs:
    runs: Runs = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            runs[side].append(measure(side, fleet, rate=rate, seconds=seconds, seed=f"round {number}"))
    return runs


def _rows(
    runs: Runs, name: str, unit: str, value: Callable[[Run], float], aim: float | None = None
) -> dict[str, Row]:
    """A row for each side; *aim* is for ours."""
    return {
        side: Row(
            f"{_SIDES[side][0]}: {name}",
            _SIDES[side][1],
            unit,
            tuple(value(each) for each in taken),
            aim=aim if side == _OURS else None,
        )
        for side, taken in runs.items()
    }


def _latency(runs: Runs, plan: Plan) -> list[Row]:
    p50 = _rows(runs, "p50", "ms", lambda run: run.latency(0.5))
    p99 = _rows(runs, "p99", "ms", lambda run: run.latency(0.99))
    p999 = _rows(runs, "p99.9", "ms", lambda run: run.latency(0.999))
    steady = f"p99 after the first {plan.learning:g} s"
    settled = _rows(runs, steady, "ms", lambda run: run.latency(0.99, after=plan.learning))
    rows = [row for group in (p50, p99, p999, settled) for row in group.values()]
    return rows + _ratios(p99, "p99", _AIM_P99) + _ratios(settled, steady)


def _ratios(rows: Mapping[str, Row], name: str, aim: float | None = None) -> list[Row]:
    """Ours in terms of each other side's; *aim* is for nginx."""
    return [
        compare(
            f"{name}, ours in terms of {_SIDES[side][0]}",
            truediv,
            rows[_OURS],
            row,
            unit="times",
            aim=aim if side == "nginx" else None,
        )
        for side, row in rows.items()
        if side != _OURS
    ]


def _effort(runs: Runs) -> list[Row]:
    groups = (
        _rows(runs, "failed", "requests", lambda run: run.errors.total(), _AIM_FAILED),
        _rows(runs, "sent for each request made", "requests", lambda run: run.amplification, _AIM_SENT),
        _rows(
            runs,
            "to the hung one until left alone",
            "requests",
            lambda run: run.until_left_alone,
            _AIM_HUNG,
        ),
        _rows(runs, "to the hung one in all", "requests", lambda run: len(run.at("hung"))),
        _rows(runs, "to the failing one, whole run", "fair shares", lambda run: run.failing_share()),
        _rows(
            runs,
            "to the failing one, worst second",
            "fair shares",
            lambda run: run.failing_share(worst_second=True),
            _AIM_FAILING,
        ),
    )
    return [row for group in groups for row in group.values()]


def _control(runs: Runs) -> list[Row]:
    groups = (
        _rows(runs, "p50", "ms", lambda run: run.latency(0.5)),
        _rows(runs, "p99", "ms", lambda run: run.latency(0.99)),
        _rows(runs, "p50 of the time outside servers", "ms", lambda run: run.outside(0.5)),
        _rows(runs, "p99 of the time outside servers", "ms", lambda run: run.outside(0.99)),
        _rows(runs, "sent late, p99", "ms", lambda run: run.late(0.99)),
        _rows(runs, "CPU of the caller", "% of a core", lambda run: run.busy),
    )
    return [row for group in groups for row in group.values()]


def _about(plan: Plan, rate: float) -> list[str]:
    normal, slow = (1 / MEAN_SERVICE[kind] for kind in ("normal", "slow"))
    notes = [
        (
            f"{plan.rounds} rounds of {plan.seconds:g} s for each side, in turns, with new processes each time. Each normal "
            f"instance can do {normal:.0f}/s, the slow one {slow:.0f}/s, the hung and the failing one nothing: in all "
            f"{capacity(*FLEET):.0f}/s. {_LOAD:.0%} of it are {rate:.0f} GETs a second, at random moments (Poisson)."
        ),
        (
            f"Counted from when a request should have been sent. A failed one counts as {FAILED_COUNTS:g} s, if it did not "
            f"take longer. {ATTEMPT_TIMEOUT:g} s for an attempt on every side; nginx and HAProxy may make three. They are "
            "called through the wire of `AsyncDiscoClient`, without discovery."
        ),
    ]
    for name in PROXIES:
        program = find(name)
        label = _SIDES[name][0]
        if program is None:
            notes.append(f"{label}: left out, since {name} is not installed here.")
        else:
            notes.append(f"{label}: {version(program)}, as `trouble_proxies` tunes it.")
    return notes


def _about_effort(runs: Runs) -> list[str]:
    notes = [
        (
            f"Counted by the servers; health checks (HAProxy has them) don't count. Left alone: no request for {LEFT_ALONE:g} "
            f"s. A fair share is {1 / len(FLEET):.1%} of what was sent. Requests in a round: "
            f"{', '.join(str(len(run.report.samples)) for run in runs[_OURS])}."
        )
    ]
    for side, taken in runs.items():
        errors = sum((run.errors for run in taken), Counter[str]())
        if errors:
            told = ", ".join(f"{count} {error}" for error, count in errors.most_common())
            notes.append(f"{_SIDES[side][0]}, failed in all rounds: {told}.")
    return notes


def _about_control(runs: Runs, plan: Plan) -> list[str]:
    notes = [
        (
            f"What limits when nothing is wrong: the five normal instances alone, {plan.rounds} rounds of {plan.control:g} s. "
            "Outside servers: latency without what the server says it had the request for, and without being sent late; that "
            "is httpx, the loop, and for the proxies the proxy."
        )
    ]
    return notes + _suspicions(runs)


def _suspicions(runs: Runs) -> list[str]:
    worst = max(run.late(0.99) for taken in runs.values() for run in taken)
    told = f"99 % of the requests of each run were sent at most {worst:.1f} ms late."
    disturbed = [
        f"{_SIDES[side][0]} (round {number})"
        for side, taken in runs.items()
        for number, run in enumerate(taken, start=1)
        if run.late(0.99) > _LATE
    ]
    if not disturbed:
        return [told]
    return [f"{told} More than {_LATE:g} ms is too much, don't quote this run: {', '.join(disturbed)}."]
