"""The comparison of the clients in short, for README.md: one line for a figure, and in it all sides by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .figures import format_number

__all__ = ["performance"]

_LINES = (
    ("Async, 32 in flight", "requests/s", "async, 32 in flight: requests/s"),
    ("Async, 32 in flight", "p99", "async, 32 in flight: p99, ms"),
    ("Async, 1 in flight", "p50", "async, 1 in flight: p50, ms"),
    ("Sync, 1 thread", "requests/s", "sync, 1 thread: requests/s"),
    ("Sync, 16 threads", "requests/s", "sync, 16 threads: requests/s"),
)
"""Section, figure, how it is called here."""
_SIDES = (
    ("DiscoClient", ("AsyncDiscoClient", "DiscoClient")),
    ("httpx through nginx", ("httpx through nginx",)),
    ("httpx, direct", ("httpx, direct",)),
    ("httpx2, direct", ("httpx2, direct",)),
    ("aiohttp (async), requests (sync), direct", ("aiohttp, direct", "requests, direct")),
)
"""A column, and which sides are meant by it."""


def performance(run: Mapping[str, Any]) -> str | None:
    """A table in Markdown; ``None`` where the clients were not compared, or not through nginx."""
    sections = {section["title"]: section["rows"] for section in run["benchmarks"].get("clients", ())}
    lines = []
    for title, figure, name in _LINES:
        medians = {row["name"]: row["median"] for row in sections.get(title, ())}
        cells = [
            next(
                (format_number(medians[row]) for side in sides if (row := f"{side}: {figure}") in medians), ""
            )
            for _, sides in _SIDES
        ]
        if not all(cells[:2]):
            return None
        lines.append(f"| {name} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    heading = "| | " + " | ".join(column for column, _ in _SIDES) + " |"
    return "\n".join([heading, "|---|" + "--:|" * len(_SIDES), *lines])
