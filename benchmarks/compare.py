"""``python -m benchmarks.compare [A.json B.json]``: what changed from one report to another, beyond the spread of both.

Without names: from the report before (``build/bench/previous.json``) to the last one. A change counts if the rounds of the two
don't overlap, and if there are at least three of them on both sides: less have no spread to speak of.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .__main__ import PREVIOUS, REPORT, describe
from .figures import format_number

__all__ = ["Change", "changes", "main"]

_ROUNDS = 3
_MORE_IS_BETTER = ("per second", "MB/s")
"""Units. Of all others less is better, unless the row's aim says otherwise."""


class Change(NamedTuple):
    where: str
    """Benchmark and section."""
    name: str
    unit: str
    before: float
    after: float
    is_beyond_spread: bool
    is_better: bool

    @property
    def ratio(self) -> float:
        return self.after / self.before

    def __str__(self) -> str:
        told = f"{format_number(self.before)} -> {format_number(self.after)} {self.unit}"
        word = ("better" if self.is_better else "WORSE") if self.is_beyond_spread else "within the spread"
        return f"{format_number(self.ratio):>6}x  {word:17}  {self.where}: {self.name}: {told}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Of every figure that both have, and that is not 0 in the first."""
    known = dict(_rows(before))
    for key, row in _rows(after):
        old = known.get(key)
        if old is None or not old["median"]:
            continue
        is_more = row["unit"] in _MORE_IS_BETTER or row.get("sense") == ">="
        yield Change(
            ", ".join(key[:2]),
            row["name"],
            row["unit"],
            old["median"],
            row["median"],
            is_beyond_spread=(row["low"] > old["high"] or row["high"] < old["low"])
            and min(len(row["rounds"]), len(old["rounds"])) >= _ROUNDS,
            is_better=(row["median"] > old["median"]) is is_more,
        )


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    for benchmark, sections in results["benchmarks"].items():
        for section in sections:
            for row in section["rows"]:
                yield (benchmark, section["title"], row["name"]), row


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("before", nargs="?", type=Path, default=PREVIOUS, metavar="A.json")
    parser.add_argument("after", nargs="?", type=Path, default=REPORT, metavar="B.json")
    parser.add_argument("--all", action="store_true", help="also what stayed within the spread")
    options = parser.parse_args(arguments)
    try:
        before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    except OSError as error:
        parser.error(str(error))
    print(f"A: {describe(before)}\nB: {describe(after)}\n")
    found = list(changes(before, after))
    beyond = [each for each in found if each.is_beyond_spread]
    for each in sorted(found if options.all else beyond, key=lambda change: change.ratio):
        print(each)
    worse = sum(not each.is_better for each in beyond)
    print(
        f"{len(found)} figures in both; {len(beyond)} changed beyond the spread: "
        f"{len(beyond) - worse} for the better, {worse} for the worse"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
