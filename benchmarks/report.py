"""``python -m benchmarks.report RESULTS.json... [--readme FILE]``: write the figures of a run between README.md's markers.

Several files are taken together, a later one's benchmarks in the place of an earlier one's. Runs with ``--quick`` are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .__main__ import BENCHMARKS, describe
from .figures import table

__all__ = ["main", "markdown", "replace_figures"]

BEGIN = "<!-- figures: written by `python -m benchmarks.report`, not by hand -->"
END = "<!-- end of figures -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="what `--json` wrote")
    parser.add_argument("--readme", type=Path, default=Path(__file__).with_name("README.md"))
    options = parser.parse_args(arguments)
    runs = [json.loads(path.read_text()) for path in options.results]
    try:
        text = replace_figures(options.readme.read_text(), markdown(runs))
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    options.readme.write_text(text)
    return 0


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The figures of *runs* as Markdown. Raises `ValueError` for a quick run, and when a benchmark is missing."""
    if any(run["quick"] for run in runs):
        raise ValueError("figures of a --quick run show that it works, and nothing else; run it without")
    found = {name: (run, sections) for run in runs for name, sections in run["benchmarks"].items()}
    missing = [name for name in BENCHMARKS if name not in found]
    if missing:
        raise ValueError(f"no figures of {', '.join(missing)}: run these too, and give both files")
    parts = []
    described = ""
    for name in BENCHMARKS:
        run, sections = found[name]
        if describe(run) != described:  # once, unless the machine or a version changed between the runs
            described = describe(run)
            parts.append(f"Measured with {described}.")
        parts += [_section(section) for section in sections]
    return "\n\n".join(parts)


def replace_figures(text: str, figures: str) -> str:
    """*text* with *figures* between the markers. Raises `ValueError` if they are not there once, in this order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the markers {BEGIN!r} and {END!r} are not there once each, in this order")
    return f"{before}{begin}\n\n{figures}\n\n{end}{after}"


def _section(section: dict[str, Any]) -> str:
    heading, *rows = table(section)
    lines = [
        "| " + " | ".join(cells) + " |" for cells in (heading, ("---", "--:", "--:", "---", "---"), *rows)
    ]
    return "\n".join([f"### {section['title']}", "", *lines, "", " ".join(section["notes"])])


if __name__ == "__main__":
    sys.exit(main())
