"""``python -m benchmarks.report RESULTS.json...``: write the figures of a run into the READMEs, and its picture beside them.

Each benchmark has a place of its own in benchmarks/README.md, between two markers; those that were not run stay as they are.
The comparison of the clients is in README.md too, in short. A later file's benchmarks replace those of an earlier one. Runs
with ``--quick`` are refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .__main__ import BENCHMARKS, describe
from .figures import tables
from .report_performance import performance
from .report_picture import draw

__all__ = ["main", "markdown", "markers", "replace_figures"]

_HERE = Path(__file__).resolve().parent
_SEEN = "DiscoClient beside httpx through nginx and other clients: how far each aim is met, requests per second, latency, CPU"
"""For who can't see the picture."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="such as build/bench/report.json"
    )
    parser.add_argument("--readme", type=Path, default=_HERE / "README.md", help="with all figures")
    parser.add_argument(
        "--short", type=Path, default=_HERE.parent / "README.md", help="with the clients', in short"
    )
    parser.add_argument("--picture", type=Path, default=_HERE.parent / "docs" / "images" / "clients.png")
    options = parser.parse_args(arguments)
    runs = [json.loads(path.read_text()) for path in options.results]
    try:
        texts = {options.readme: options.readme.read_text(), options.short: options.short.read_text()}
        for run in runs:
            for name, figures in markdown(run).items():
                if name == "clients":
                    figures = f"{figures}\n\n{_image(options.picture, options.readme)}"
                texts[options.readme] = replace_figures(texts[options.readme], name, figures)
            if short := performance(run):
                text = (
                    f"{short}\n\nMeasured with {describe(run)}.\n\n{_image(options.picture, options.short)}"
                )
                texts[options.short] = replace_figures(texts[options.short], "performance", text)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    everything = runs[-1] | {"benchmarks": {k: v for run in runs for k, v in run["benchmarks"].items()}}
    if "clients" in everything["benchmarks"] and not draw(everything, options.picture):
        print(f"{parser.prog}: no picture without matplotlib, nginx and all sections", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text)
    return 0


def _image(picture: Path, readme: Path) -> str:
    return f"![{_SEEN}]({Path(os.path.relpath(picture, readme.parent)).as_posix()})"


def markdown(run: Mapping[str, Any]) -> dict[str, str]:
    """The figures of each benchmark of *run* as Markdown. Raises `ValueError` for a quick run."""
    if run["quick"]:
        raise ValueError("figures of a --quick run show that it works, and nothing else; run it without")
    measured = f"Measured with {describe(run)}."
    return {
        name: "\n\n".join([measured, *map(_section, run["benchmarks"][name])])
        for name in BENCHMARKS
        if name in run["benchmarks"]
    }


def markers(name: str) -> tuple[str, str]:
    """What stands before and behind the figures of *name*."""
    return (
        f"<!-- figures of {name}: written by `python -m benchmarks.report`, not by hand -->",
        f"<!-- end of {name} -->",
    )


def replace_figures(text: str, name: str, figures: str) -> str:
    """*text* with *figures* between the markers of *name*. Raises `ValueError` if they are not there once, in this order."""
    begin, end = markers(name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in rest or end in after:
        raise ValueError(f"the markers {begin!r} and {end!r} are not there once each, in this order")
    return f"{before}{begin}\n\n{figures}\n\n{end}{after}"


def _section(section: dict[str, Any]) -> str:
    parts = [f"### {section['title']}"]
    for heading, *rows in tables(section):
        rule = ["---", *("---" if name in ("unit", "aim") else "--:" for name in heading[1:])]
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in (heading, rule, *rows)))
    return "\n\n".join([*parts, " ".join(section["notes"])])


if __name__ == "__main__":
    sys.exit(main())
