"""The tables of deploys under load: what failed, how long it took, and how that came about. The sides, by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import truediv
from typing import TypeAlias

from .deploy_figures import AFTER, Call, Run, latency
from .deploy_load import SERVICE
from .deploy_scene import Plan
from .deploy_service import WORK
from .deploy_ways import BAKE, CAREFUL_PAUSE, QUIET
from .figures import Role, Row, Section, compare
from .sidecar_sides import find_sidecar
from .trouble_figures import FAILED_COUNTS
from .trouble_proxies import find, version

__all__ = ["OLD_WAY", "OURS", "SIDES", "Runs", "failures", "latencies", "present"]

SIDES: dict[str, tuple[str, Role]] = {
    "kill": ("nginx, reload, kill -9", "reference"),
    "term": (f"nginx, reload, {CAREFUL_PAUSE:g} s, SIGTERM", "reference"),
    "disco": ("disco run --replace", "ours"),
    "sidecar": ("disco run --replace, callers of the sidecar", "ours"),
}
"""Title and role by the names of `deploy_scene.WAYS`."""
OLD_WAY = "kill"
OURS = "disco"
_BEHIND_NGINX = ("kill", "term")
_AIM_FAILED = 0.0
_AIM_P99 = 1.5
_LATE = 20.0
"""Milliseconds at the 99th percentile from which on the generator itself is suspect."""

Runs: TypeAlias = "Mapping[str, Sequence[Run]]"


def present() -> list[str]:
    """The sides that can be measured here."""
    needs = {**dict.fromkeys(_BEHIND_NGINX, find("nginx")), "sidecar": find_sidecar()}
    return [side for side in SIDES if needs.get(side, "nothing")]


def failures(runs: Runs, plan: Plan) -> Section:
    """Sums over all rounds: a median would hide the one deploy that went wrong."""
    groups = (
        _rows(runs, "GETs that failed", "requests", _sum(lambda run: run.failed("GET")), _AIM_FAILED),
        _rows(runs, "POSTs that failed", "requests", _sum(lambda run: run.failed("POST")), _AIM_FAILED),
        _rows(runs, "failed in the worst deploy", "requests", _most),
        _rows(
            runs, "POSTs executed though they failed", "requests", _sum(lambda run: run.executed_and_failed)
        ),
        _rows(runs, "POSTs executed twice", "requests", _sum(lambda run: run.executed_twice), _AIM_FAILED),
        _rows(runs, "old versions that were killed", "deploys", _sum(lambda run: run.killed), _AIM_FAILED),
    )
    return Section(
        "Deploys under load: what failed",
        [row for group in groups for row in group.values()],
        _about_failures(runs, plan),
    )


def latencies(runs: Runs) -> Section:
    rows: list[Row] = []
    for name, share in (("p99", 0.99), ("p99.9", 0.999)):
        during = _rows(runs, f"{name} during a deploy", "ms", _each(share, lambda run: run.during))
        outside = _rows(runs, f"{name} outside", "ms", _each(share, lambda run: run.outside))
        rows += [*during.values(), *outside.values()]
        rows += [
            compare(
                f"{SIDES[side][0]}: {name}, during in terms of outside",
                truediv,
                during[side],
                outside[side],
                unit="times",
                aim=_AIM_P99 if (SIDES[side][1], name) == ("ours", "p99") else None,
            )
            for side in runs
        ]
    times = _rows(runs, "from its start to the old one gone", "s", _times)
    return Section("Deploys under load: latency and time", [*rows, *times.values()], _about_latencies(runs))


def _rows(
    runs: Runs,
    name: str,
    unit: str,
    values: Callable[[Sequence[Run]], Iterable[float]],
    aim: float | None = None,
) -> dict[str, Row]:
    """A row for each side; *aim* is for ours, the sidecar's callers included."""
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


def _sum(value: Callable[[Run], int]) -> Callable[[Sequence[Run]], Iterable[float]]:
    return lambda taken: (sum(map(value, taken)),)


def _each(share: float, calls: Callable[[Run], Sequence[Call]]) -> Callable[[Sequence[Run]], Iterable[float]]:
    return lambda taken: [latency(calls(run), share) for run in taken]


def _most(taken: Sequence[Run]) -> Iterable[float]:
    return (max(count for run in taken for count in run.failed_by_deploy),)


def _times(taken: Sequence[Run]) -> Iterable[float]:
    return (time for run in taken for time in run.times)


def _about_failures(runs: Runs, plan: Plan) -> list[str]:
    rounds = max(map(len, runs.values()))
    least = min(sum(len(run.calls) for run in taken) for taken in runs.values())
    shortest, longest = (each * 1e3 for each in WORK)
    notes = [
        (
            f"Rounds: {rounds}; in each {plan.deploys} deploys on each side, {plan.period:g} s apart, at {plan.rate:g} "
            f"requests a second (Poisson): half of them POSTs, half on fresh connections. Sums over all rounds, of {least:,} "
            f"requests on each side. The service takes {shortest:g} to {longest:g} ms for each."
        ),
    ]
    program = find("nginx")
    if program is None:
        notes += ["nginx is not installed here: the sides behind it are left out."]
    elif set(_BEHIND_NGINX) & runs.keys():
        notes += [
            (
                f"nginx: {version(program)}, called through the wire of `AsyncDiscoClient`. kill -9: "
                "uswitch/etcd-experiment, read in its favour (rendered on a watch, not every 5 s; reload first, then kill). "
                "What it loses is what was in flight, and what the old workers still send to the old port: nginx lets them "
                f"go 0.1 s after it has started the new ones. SIGTERM: {CAREFUL_PAUSE:g} s after the reload, to a service "
                "that finishes what it has."
            )
        ]
    for side, taken in runs.items():
        errors = sum((run.errors for run in taken), Counter[str]())
        if errors:
            told = ", ".join(f"{count} {error}" for error, count in errors.most_common())
            notes.append(f"{SIDES[side][0]}: {told}.")
    if OURS in runs:
        again = sum(run.tried_again for run in runs[OURS])
        notes.append(f"{SIDES[OURS][0]}, requests that took more than one attempt: {again}.")
    if "sidecar" in runs:
        notes.append(
            f"{SIDES['sidecar'][0]}: plain httpx over the same wire, to /{SERVICE}/work on the sidecar's port."
        )
    return notes


def _about_latencies(runs: Runs) -> list[str]:
    worst = max(run.late(0.99) for taken in runs.values() for run in taken)
    told = f"99 % of the requests of each run were sent at most {worst:.1f} ms late."
    unloaded = sum(run.unloaded for taken in runs.values() for run in taken)
    is_suspect = worst > _LATE or unloaded > 0
    if unloaded:
        told += f" Deploys that were not over when the load was: {unloaded}."
    return [
        (
            f"During: from the start of the new version to {AFTER:g} s after the old one was gone; outside: all else but the "
            f"first second. Counted from when a request should have been sent; a failed one counts as {FAILED_COUNTS:g} s. "
            f"`disco run` with `--bake {BAKE:g} --quiet {QUIET:g}`: by default it bakes for 5 s, which takes {5 - BAKE:g} s "
            "longer."
        ),
        f"{told} That is too much: don't quote this run." if is_suspect else told,
    ]
