"""What a benchmark gives: rows of figures, each measured in several rounds. And how they are written down.

A figure that stands alone says little, since machines differ more than programs do: so every section has reference rows,
measured in the same run, and aims are set on what follows from both (a ratio or a difference) where that makes sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal, TypeAlias

__all__ = ["Role", "Row", "Section", "Sense", "compare", "format_number", "percentile", "tables"]

Role: TypeAlias = Literal["ours", "reference", "compared"]
Sense: TypeAlias = Literal["<=", ">="]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``rounds`` holds its value in each round; what is quoted is the median, with the least and the most."""

    name: str
    role: Role
    unit: str
    rounds: tuple[float, ...]
    aim: float | None = None
    """What the median should be at most; or at least, as ``sense`` says."""
    sense: Sense = "<="

    def __post_init__(self) -> None:
        if not self.rounds or not all(math.isfinite(value) for value in self.rounds):
            raise ValueError(f"{self.name!r} was not measured: {self.rounds}")

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is reached; ``None`` where none is set."""
        if self.aim is None:
            return None
        return self.median <= self.aim if self.sense == "<=" else self.median >= self.aim

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.rounds),
            "high": max(self.rounds),
            "rounds": list(self.rounds),
            "aim": self.aim,
            "sense": self.sense,
            "is_met": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """The rows that belong together, and ``notes`` on how they came about."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())
    by_side: bool = False
    """The rows are named ``SIDE: FIGURE``: a side's figures are shown beside each other."""

    def with_notes(self, more: Sequence[str]) -> Section:
        return replace(self, notes=[*self.notes, *more])

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
            "by_side": self.by_side,
        }


def compare(
    name: str,
    how: Callable[[float, float], float],
    ours: Row,
    reference: Row,
    *,
    unit: str,
    aim: float | None = None,
    sense: Sense = "<=",
) -> Row:
    """What follows from two rows, round by round: what disturbed one round disturbed both sides of it."""
    pairs = zip(ours.rounds, reference.rounds, strict=True)
    return Row(name, "compared", unit, tuple(how(mine, its) for mine, its in pairs), aim=aim, sense=sense)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that *share* of all are not above (the nearest-rank percentile; nothing is interpolated)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def format_number(value: float) -> str:
    """Three digits that mean something, and thousands apart."""
    size = abs(value)
    if size >= 100 or value == round(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.1e}"


def tables(section: dict[str, Any]) -> list[list[tuple[str, ...]]]:
    """The tables of a section in its JSON form: cells, the heading first."""
    rows = section["rows"]
    if not section.get("by_side"):  # files of older runs don't say it
        return [_list(rows)] if rows else []
    sides = [row for row in rows if row["role"] != "compared"]
    others = [row for row in rows if row["role"] == "compared" or row["aim"] is not None]
    return [_beside(sides), *([_list(others)] if others else [])]


def _list(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A figure in a line."""
    cells: list[tuple[str, ...]] = [("", "median", "spread", "unit", "aim")]
    for row in rows:
        aim = ""
        if row["aim"] is not None:
            sense = row.get("sense", "<=")  # files of older runs don't say it
            aim = f"{sense} {format_number(row['aim'])} {'met' if row['is_met'] else 'MISSED'}"
        cells.append(
            (f"{row['name']} ({row['role']})", format_number(row["median"]), _spread(row), row["unit"], aim)
        )
    return cells


def _beside(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A side in a line, and in each cell the median with the spread."""
    sides: dict[str, dict[str, str]] = {}
    units: dict[str, str] = {}
    for row in rows:
        side, _, figure = row["name"].rpartition(": ")
        units[figure] = row["unit"]
        named = f"**{side}**" if row["role"] == "ours" else side
        sides.setdefault(named, {})[figure] = f"{format_number(row['median'])} ({_spread(row)})"
    heading = ("", *(name if unit == "per second" else f"{name}, {unit}" for name, unit in units.items()))
    return [heading, *((side, *(cells.get(each, "") for each in units)) for side, cells in sides.items())]


def _spread(row: dict[str, Any]) -> str:
    return f"{format_number(row['low'])} to {format_number(row['high'])}"
