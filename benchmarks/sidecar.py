"""The sidecar beside nginx, HAProxy and Envoy, and beside nobody: one core each, the same load, the same instances behind.

``python -m benchmarks.sidecar`` runs parts of it, with what one wants to look into.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .figures import Section
from .sidecar_changes import ChangesPlan, changes_section
from .sidecar_load import WORKLOADS, Plan, Runs, load_section, take_turns
from .sidecar_memory import MemoryPlan, memory_section
from .sidecar_picture import draw
from .sidecar_scene import scene
from .sidecar_sides import SIDES, about, present
from .trouble_proxies import find

__all__ = ["PARTS", "PICTURE", "Plans", "run"]

PICTURE = Path("build/sidecar.png")
PARTS = (*WORKLOADS, "memory", "changes")


class Plans(NamedTuple):
    load: Plan
    memory: MemoryPlan
    changes: ChangesPlan


_FULL = Plans(
    Plan(rounds=5, seconds=3, warm_up=1),
    MemoryPlan(rounds=5, seconds=5.0, clients=8),
    ChangesPlan(rounds=5, changes=12, rate=300.0),
)
_QUICK = Plans(
    Plan(rounds=1, seconds=1, warm_up=0),
    MemoryPlan(rounds=1, seconds=0.5, clients=2),
    ChangesPlan(rounds=1, changes=2, rate=100.0),
)
_QUICK_PARTS = ("small32", "memory", "changes")


def run(*, quick: bool) -> Iterator[Section]:
    return run_parts(_QUICK_PARTS if quick else PARTS, present(), _QUICK if quick else _FULL, PICTURE)


def run_parts(
    parts: Sequence[str], sides: Sequence[str], plans: Plans, picture: Path | None
) -> Iterator[Section]:
    """The sections of *parts*, each when it is measured; *picture*: where that of the load is put."""
    missing = [name for name in ("nginx", "wrk") if find(name) is None]
    if missing:  # then there is no instance, or no load
        note = f"Left out: {' and '.join(missing)} not installed here."
        yield Section("Through the sidecar and beside it", [], [note])
        return
    loads: dict[str, Runs] = {}
    for name in (each for each in parts if each in WORKLOADS):
        with scene() as here:
            loads[name] = take_turns(here, sides, WORKLOADS[name], plans.load)
            section = load_section(WORKLOADS[name], loads[name], plans.load, is_shared=here.is_shared)
        is_last = len(loads) == sum(each in WORKLOADS for each in parts)
        notes = [*section.notes, about()] if len(loads) == 1 else [*section.notes]
        if is_last and picture is not None and plans is not _QUICK and draw(loads, picture):
            notes.append(f"The picture of all of these is {picture}.")
        yield Section(section.title, section.rows, notes)
    if "memory" in parts:
        yield memory_section(plans.memory, sides)
    if "changes" in parts:
        yield changes_section(plans.changes, sides)


def main(arguments: Sequence[str] | None = None) -> None:
    """Some parts, some sides, some rounds: to look into something, not to quote."""
    from .__main__ import render

    parser = argparse.ArgumentParser(prog="python -m benchmarks.sidecar", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--side", action="append", metavar="SIDE", help=f"which: {', '.join(SIDES)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=2, help="of load, for each side in a round")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    for what, given, known in (("part", options.parts, PARTS), ("side", options.side, SIDES)):
        unknown = [each for each in given or () if each not in known]
        if unknown:
            parser.error(f"no {what} is called {unknown[0]}; there are {', '.join(known)}")
    plans = Plans(
        Plan(options.rounds, options.seconds, warm_up=1),
        MemoryPlan(options.rounds, float(options.seconds), clients=8),
        ChangesPlan(options.rounds, changes=max(2, options.seconds), rate=300.0),
    )
    sides = [side for side in options.side or present() if side in present()]
    for section in run_parts(options.parts or PARTS, sides, plans, options.picture):
        print(f"\n{render(section.to_json())}", flush=True)


if __name__ == "__main__":
    main()
