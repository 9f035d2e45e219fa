"""``python -m benchmarks.sim [NAME...] [--quick] [--seed N] [--out DIR]``: the simulator's tables and pictures.

Ends with 1 if a result that is proven did not come out: then nothing else here is to be believed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import bins, queues, selection, standing, stories
from .pictures import draw
from .report import Plan, Report

__all__ = ["EXPERIMENTS", "main"]

EXPERIMENTS: Mapping[str, Callable[[Plan], Report]] = {
    "bins": bins.run,
    "queues": queues.run,
    "selection": selection.run,
    "standing": standing.run,
    "stories": stories.run,
}
OUT = Path("build/sim")
PAGE = Path("docs/simulator.md")
IMAGES = Path("docs/images")
BEGIN = "<!-- tables: written by `python -m benchmarks.sim --docs`, not by hand -->"
END = "<!-- end of tables -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sim", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(EXPERIMENTS)} (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes: to see that it works"
    )
    parser.add_argument("--seed", default="1", metavar="N", help="of all chance (default: 1)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"where to (default: {OUT})")
    parser.add_argument(
        "--docs", action="store_true", help=f"also put the tables into {PAGE}, and the pictures beside it"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    if options.docs and (options.quick or options.names):
        parser.error("--docs wants all of it, in full length")
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.quick, options.seed)
    reports = []
    for name in options.names or EXPERIMENTS:
        began = time.monotonic()
        report = EXPERIMENTS[name](plan)
        reports.append(report)
        print(f"{markdown([report])}\n", flush=True)
        for folder in [options.out, *([IMAGES] if options.docs else [])]:
            if draw(name, report.data, folder) is None:
                print("no picture: matplotlib is not there (dependency group bench)", file=sys.stderr)
        print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    found = {"seed": plan.seed, "quick": plan.is_quick, "reports": [report.to_json() for report in reports]}
    (options.out / "sim.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "sim.md").write_text(markdown(reports) + "\n")
    if options.docs:
        PAGE.write_text(replace_tables(PAGE.read_text(), markdown(reports)))
    wrong = [
        check.what for report in reports for check in report.checks if check.is_theory and not check.holds
    ]
    for what in wrong:
        print(f"proven, and not reproduced: {what}", file=sys.stderr)
    return 1 if wrong else 0


def markdown(reports: Sequence[Report]) -> str:
    tables = []
    for report in reports:
        checks = report.check_table()
        tables += [*report.tables, *([checks] if checks is not None else [])]
    return "\n\n".join(table.markdown() for table in tables)


def replace_tables(text: str, tables: str) -> str:
    """*text* with *tables* between the markers. Raises `ValueError` if they are not there once, in this order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the markers {BEGIN!r} and {END!r} are not there once each, in this order")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
