"""What an experiment gives: tables, comparisons with what is known, and the data that its pictures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Check", "Plan", "Report", "Table", "milliseconds", "number", "percent"]


@dataclass(frozen=True, slots=True)
class Plan:
    """``is_quick``: seconds instead of minutes, to see that it works. ``seed``: of all chance."""

    is_quick: bool
    seed: str


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        rule = ["---", *("--:" for _ in self.head[1:])]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.head, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, *(f"\n{note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "head": list(self.head),
            "rows": [list(row) for row in self.rows],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Check:
    """A known result, and what came out here. ``is_theory``: proven, so that if it is missed the simulator is wrong."""

    what: str
    known: str
    found: str
    holds: bool
    is_theory: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "known": self.known,
            "found": self.found,
            "holds": self.holds,
            "is_theory": self.is_theory,
        }


@dataclass(frozen=True, slots=True)
class Report:
    name: str
    tables: Sequence[Table]
    data: dict[str, Any]
    checks: Sequence[Check] = field(default=())

    def check_table(self) -> Table | None:
        if not self.checks:
            return None
        rows = [
            (check.what, check.known, check.found, "yes" if check.holds else "**no**")
            for check in self.checks
        ]
        return Table(f"{self.name}: what is known, and what came out", ("", "known", "here", "holds"), rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "tables": [table.to_json() for table in self.tables],
            "checks": [check.to_json() for check in self.checks],
            "data": self.data,
        }


def number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    if value == 0 or size >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}" if digits < 7 else f"{value:.1e}"


def milliseconds(seconds: float) -> str:
    return number(seconds * 1e3)


def percent(share: float) -> str:
    return "0" if share == 0 else f"{share:.2%}" if share >= 0.0001 else f"{share:.4%}"
