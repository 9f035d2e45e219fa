"""`DiscoClient` and `AsyncDiscoClient` beside what their users would call otherwise: through nginx in front, and directly.

Behind are three nginx instances that answer 41 bytes. Each client is a process of its own, with the settings that it has by
itself; they take turns on one core, and the servers have another one. ``python -m benchmarks.clients`` runs parts of it, with
what one wants to look into.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .clients_bulk import BulkPlan, bulk_section
from .clients_scene import Scene, scene
from .clients_sides import ASYNC_SIDES, OPEN_SIDES, SYNC_SIDES, Side, present
from .clients_tables import ASYNC_1, ASYNC_32, OPEN, SYNC_1, SYNC_16, Ratio, clients_section
from .clients_turns import Clients, standing, take_turns
from .clients_wrk import ceiling
from .figures import Section
from .trouble_proxies import find

__all__ = ["PARTS", "Plan", "run", "run_parts"]

PARTS = ("async", "sync", "open", "bulk")


class Plan(NamedTuple):
    rounds: int
    seconds: float
    """That each side has in a round."""
    warm_up: float
    """Seconds of the same load before that, which count for nothing."""
    rates: tuple[float, ...]
    """Requests a second, on a schedule."""
    open_seconds: float
    bulk: BulkPlan
    wrk_seconds: int
    """0: not at all."""


_FULL = Plan(
    rounds=7,
    seconds=0.4,
    warm_up=0.15,
    rates=(200.0, 800.0),
    open_seconds=1.5,
    bulk=BulkPlan(rounds=5, transfers=12),
    wrk_seconds=1,
)
_QUICK = Plan(
    rounds=2,
    seconds=0.03,
    warm_up=0.01,
    rates=(200.0,),
    open_seconds=0.15,
    bulk=BulkPlan(rounds=1, transfers=1),
    wrk_seconds=0,
)


def run(*, quick: bool) -> Iterator[Section]:
    return run_parts(PARTS, _QUICK if quick else _FULL)


def run_parts(parts: Sequence[str], plan: Plan, only: Sequence[str] = ()) -> Iterator[Section]:
    """The sections of *parts*, each when it is measured; *only*: these sides, by key, if there are any."""
    with scene(etcd="async" in parts) as here:
        if {"async", "open"} & set(parts):
            yield from _async(here, plan, parts, only)
        if "sync" in parts:
            sides = _chosen(present(SYNC_SIDES), only)
            with standing(here, sides) as clients:
                yield _closed("Sync, 1 thread", here, sides, clients, plan, 1, SYNC_1)
                yield _closed("Sync, 16 threads", here, sides, clients, plan, 16, SYNC_16)
        if "bulk" in parts:
            yield bulk_section(here, plan.bulk)


def _async(here: Scene, plan: Plan, parts: Sequence[str], only: Sequence[str]) -> Iterator[Section]:
    sides = _chosen(present(ASYNC_SIDES), only)
    if "async" not in parts:
        sides = {key: side for key, side in sides.items() if key in OPEN_SIDES}
    with standing(here, sides) as clients:
        if "async" in parts:
            section = _closed("Async, 32 in flight", here, sides, clients, plan, 32, ASYNC_32)
            if plan.wrk_seconds:
                section = section.with_notes(ceiling(here, plan.wrk_seconds))
            yield section
            yield _closed("Async, 1 in flight", here, sides, clients, plan, 1, ASYNC_1)
        if "open" in parts:
            callers = {key: client for key, client in clients.items() if key in OPEN_SIDES}
            for rate in plan.rates:
                yield _open(here, sides, callers, plan, rate)


def _closed(
    title: str,
    here: Scene,
    sides: Mapping[str, Side],
    clients: Clients,
    plan: Plan,
    width: int,
    ratios: Sequence[Ratio],
) -> Section:
    command = {"do": "closed", "width": width, "seconds": plan.seconds, "warm_up": plan.warm_up}
    runs = take_turns(here, clients, command, plan.rounds)
    notes = [
        (
            f"Rounds: {plan.rounds}, in each of them {plan.seconds:g} s for every side after {plan.warm_up:g} s of the same "
            f"load; {width} {'GET' if width == 1 else 'GETs'} of 41 bytes at a time, as fast as answers come."
        ),
        _about(here),
    ]
    every = SYNC_SIDES if title.startswith("Sync") else ASYNC_SIDES
    left_out = [side for key, side in every.items() if key not in present(every)]
    return clients_section(title, sides, runs, ratios, notes, left_out=left_out)


def _open(here: Scene, sides: Mapping[str, Side], clients: Clients, plan: Plan, rate: float) -> Section:
    command = {"do": "open", "rate": rate, "seconds": plan.open_seconds}
    runs = take_turns(here, clients, command, plan.rounds, seeded=True)
    late = max(turn.told["late"] for turns in runs.values() for turn in turns)
    notes = [
        (
            f"Rounds: {plan.rounds}, of {plan.open_seconds:g} s for each side; {rate:g} GETs a second at random moments "
            "(Poisson), the same ones for all, whatever became of those before. Counted from when one should have been sent."
        ),
        f"99 % of the requests of each run were sent at most {late:.1f} ms late: who is busy with one is late for the next.",
    ]
    return clients_section(
        f"Async, {rate:g} requests a second on a schedule", sides, runs, OPEN, notes, is_open=True
    )


def _about(here: Scene) -> str:
    where = (
        "Clients and servers share the only core there is."
        if here.is_shared
        else "Each client is a process of its own, and all of them have their turn on one core; the servers have another one."
    )
    what = "nginx" if find("nginx") else "the Python server of `overhead`, since nginx is not installed here"
    return f"{where} The three instances are {what}."


def _chosen(sides: Mapping[str, Side], only: Sequence[str]) -> dict[str, Side]:
    return {key: side for key, side in sides.items() if not only or key in only}


def main(arguments: Sequence[str] | None = None) -> None:
    """Some parts, some sides, some rounds: to look into something, not to quote."""
    from .__main__ import render

    known = sorted({*ASYNC_SIDES, *SYNC_SIDES})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--side", action="append", metavar="SIDE", help=f"which: {', '.join(known)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of load, for each side in a round")
    options = parser.parse_args(arguments)
    for what, given, names in (("part", options.parts, PARTS), ("side", options.side, known)):
        unknown = [each for each in given or () if each not in names]
        if unknown:
            parser.error(f"no {what} is called {unknown[0]}; there are {', '.join(names)}")
    plan = Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up=options.seconds / 4,
        rates=_FULL.rates,
        open_seconds=2 * options.seconds,
        bulk=BulkPlan(options.rounds, transfers=8),
        wrk_seconds=1,
    )
    for section in run_parts(options.parts or PARTS, plan, options.side or ()):
        print(f"\n{render(section.to_json())}", flush=True)


if __name__ == "__main__":
    main()
