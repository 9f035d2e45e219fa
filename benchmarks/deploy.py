"""Deploys at noon: a service is replaced again and again under load; the way of 2014, the careful way, and with ``disco run``.

The same service, the same callers, the same moments on all sides: GETs and POSTs in an open loop, half of them over kept
connections and half over fresh ones. Everything is in new processes for each run. Then deploys that go wrong, and many hosts
at once. ``python -m benchmarks.deploy`` runs parts of the first, with what one wants to look into.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .deploy_bad import KINDS, BadPlan, bad_section
from .deploy_figures import Run
from .deploy_hosts import HostsPlan, hosts_section
from .deploy_picture import draw
from .deploy_scene import Plan, measure
from .deploy_tables import SIDES, failures, latencies, present
from .deploy_ways import QUIET
from .figures import Section

__all__ = ["PICTURE", "QUICK", "run"]

PICTURE = Path("build/deploy.png")


class Plans(NamedTuple):
    rounds: int
    deploys: Plan
    bad: BadPlan
    hosts: HostsPlan


_FULL = Plans(
    3,
    Plan(deploys=10, lead=2.0, period=6.0, rate=300.0),
    BadPlan(moods=tuple(KINDS), rounds=3, rate=300.0, lead=1.0, seconds=6.0),
    HostsPlan(counts=(1, 4, 16), rounds=3, bake=5.0, quiet=QUIET, rate=50.0, seconds=20.0),
)
QUICK = Plans(
    1,
    Plan(deploys=1, lead=1.0, period=4.0, rate=100.0),
    BadPlan(moods=("exits",), rounds=1, rate=50.0, lead=0.2, seconds=1.0),
    HostsPlan(counts=(1, 2), rounds=1, bake=0.2, quiet=0.2, rate=20.0, seconds=1.0),
)


def run(*, quick: bool) -> Iterator[Section]:
    plans = QUICK if quick else _FULL
    runs = _take_turns(present(), plans.rounds, plans.deploys)
    yield failures(runs, plans.deploys)
    section = latencies(runs)
    if not quick and draw(runs, PICTURE):
        section = Section(section.title, section.rows, [*section.notes, f"The picture is {PICTURE}."])
    yield section
    yield bad_section(plans.bad)
    yield hosts_section(plans.hosts)


def _take_turns(sides: Sequence[str], rounds: int, plan: Plan) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            runs[side].append(measure(side, plan, f"round {number}"))
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Some sides, some deploys: to look into something, not to quote."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=main.__doc__)
    parser.add_argument("sides", nargs="*", metavar="SIDE", help=f"which: {', '.join(SIDES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--deploys", type=int, default=3, help="in each round")
    parser.add_argument("--period", type=float, default=6.0, help="seconds from one deploy to the next")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    unknown = [side for side in options.sides if side not in SIDES]
    if unknown:
        parser.error(f"no side is called {unknown[0]}; there are {', '.join(SIDES)}")
    plan = Plan(options.deploys, lead=2.0, period=options.period, rate=options.rate)
    runs = _take_turns(options.sides or present(), options.rounds, plan)
    for section in (failures(runs, plan), latencies(runs)):
        print(f"\n{section.title}")
        for row in section.rows:
            print(f"{row.name:70} {row.median:10.3f} {row.unit}")
        print(*section.notes, sep="\n")
    print(f"picture: {draw(runs, options.picture)}")


if __name__ == "__main__":
    main()
