"""How long until callers route on the new set: from a put's return to the published view, beside a bare etcd watch.

Each side follows a service of its own, from processes of its own, and the changes go to the one and the other in turn: both are
there all the time, and only one has something to do. One watcher on each side first, then many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from discoclient.dev import EtcdCluster

from .bare_etcd import BareEtcd, record
from .changes import Change, MakeChange, alternate, known_at
from .children import Child
from .figures import Role, Row, Section, compare, percentile
from .watchers import Noted

__all__ = ["run"]

_SIDES: dict[str, tuple[Role, str]] = {
    "bare": ("reference", "bare etcd watch"),
    "disco": ("ours", "DiscoClient"),
}
"""The kinds of `watchers`. Each follows a service of its own, and so does each plan."""
_INSTANCES = 3
_LEAST = 0.1
"""Milliseconds under which a reference is not divided by: on a good day an event is there before the put returns."""
_AIM_RATIO = 3.0
_AIM_MANY = 50.0

Delays: TypeAlias = "list[list[float]]"
"""Milliseconds: for each change, what each watcher needed."""


@dataclass(frozen=True, slots=True)
class Plan:
    watchers: int
    rounds: int
    changes: int
    """In each round, on each side."""
    pause: float
    """Seconds between two changes: the watchers must be through with one before the next comes."""


def run(*, quick: bool) -> Iterator[Section]:
    one = Plan(1, 5, 10, 0.01) if quick else Plan(1, 7, 200, 0.01)
    many = Plan(3, 5, 4, 0.05) if quick else Plan(50, 5, 40, 0.2)
    with EtcdCluster(nodes=1) as etcd:
        for plan in (one, many):
            yield _measure(etcd.registry_url, plan)


def _measure(registry: str, plan: Plan) -> Section:
    services = {side: f"{side}-{plan.watchers}" for side in _SIDES}
    asyncio.run(_stand(registry, services.values()))
    with (
        Child("watchers", "bare", plan.watchers, registry, services["bare"]) as bare,
        Child("watchers", "disco", plan.watchers, registry, services["disco"]) as disco,
    ):
        children = {"bare": bare.wait_ready(), "disco": disco.wait_ready()}
        made = asyncio.run(
            alternate(
                registry,
                {side: _deploy(service) for side, service in services.items()},
                rounds=plan.rounds,
                changes=plan.changes,
                pause=plan.pause,
            )
        )
        noted = {side: child.collect() for side, child in children.items()}
    return _section(plan, made, noted)


async def _stand(registry: str, services: Iterable[str]) -> None:
    async with BareEtcd(registry) as etcd:
        lease = await etcd.lease()
        for service in services:
            await etcd.put_all([record(service, number) for number in range(_INSTANCES)], lease)


def _deploy(service: str) -> MakeChange:
    """A new instance in the place of the oldest, in one transaction."""

    async def make(etcd: BareEtcd, lease: int, number: int) -> int:
        old, _ = record(service, number)
        return await etcd.replace(old, *record(service, number + _INSTANCES), lease)

    return make


_SINCE = {"returned": "return", "sent": "start"}
_LAST = "p50 of the last process"
_FIGURES: dict[str, Callable[[Delays], float]] = {
    "p50": lambda delays: percentile((each for all in delays for each in all), 0.5),
    "p99": lambda delays: percentile((each for all in delays for each in all), 0.99),
    _LAST: lambda delays: median(max(all) for all in delays),
}


def _section(plan: Plan, made: Sequence[Change], noted: dict[str, list[Noted]]) -> Section:
    is_many = plan.watchers > 1
    rows: list[Row] = []
    for since, event in _SINCE.items():
        delays = {side: _delays(plan, made, noted[side], side, since) for side in _SIDES}
        for what, figure in _FIGURES.items():
            if what == _LAST and not is_many:
                continue
            pair = {
                side: Row(
                    f"{name}, {what} from the put's {event}", role, "ms", tuple(map(figure, delays[side]))
                )
                for side, (role, name) in _SIDES.items()
            }
            if is_many and (what, since) == ("p99", "returned"):
                pair["disco"] = replace(pair["disco"], aim=_AIM_MANY)
            rows += pair.values()
            if what == "p99" and not is_many:
                aim = _AIM_RATIO if since == "returned" else None
                rows.append(
                    _ratio(
                        f"times the bare watch, p99 from the put's {event}", pair["disco"], pair["bare"], aim
                    )
                )
    return Section(
        f"Convergence, {plan.watchers} client process{'es' if is_many else ''}",
        rows,
        [
            (
                f"{plan.rounds} rounds of {plan.changes} changes on each side, {plan.pause * 1000:g} ms apart; "
                f"{_INSTANCES} instances; etcd: one member on this machine, without fsync."
            ),
            "An event may arrive before its put returns; the figure is negative then.",
        ],
    )


def _delays(plan: Plan, made: Sequence[Change], noted: list[Noted], side: str, since: str) -> list[Delays]:
    rounds: list[Delays] = [[] for _ in range(plan.rounds)]
    for change in made:
        if change.side == side:
            began = getattr(change, since)
            rounds[change.round].append([1000 * (known_at(watcher, change) - began) for watcher in noted])
    return rounds


def _ratio(name: str, ours: Row, bare: Row, aim: float | None) -> Row:
    return compare(name, lambda mine, its: mine / max(its, _LEAST), ours, bare, unit="x", aim=aim)
