"""10 MB down and up: throughput, and by how much memory grows; streamed, as a program does that must not grow, and whole.

Each figure of a round is that of a new process, because memory that was had once is not given back for sure: what one
transfer has left would hide what the next one takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from operator import truediv
from typing import Any, NamedTuple

from .children import Child
from .clients_bulk_child import SIZE
from .clients_scene import TEN, UPLOAD, Scene
from .figures import Role, Row, Section, compare

__all__ = ["TITLE", "BulkPlan", "bulk_section"]

TITLE = "10 MB, down and up"
_AIM_RATE = 1.0
_AIM_GROWN = 2.0
"""MB: a fifth of one body, and whatever the body's size."""

_CLIENTS: dict[tuple[str, str], tuple[str, Role]] = {
    ("threads", "disco"): ("DiscoClient", "ours"),
    ("threads", "httpx"): ("httpx, sync, direct", "reference"),
    ("asyncio", "disco"): ("AsyncDiscoClient", "ours"),
    ("asyncio", "httpx"): ("httpx, async, direct", "reference"),
}
_FIGURES = {"rate": ("throughput", "MB/s"), "cpu": ("CPU", "ms/transfer"), "grown": ("memory grown", "MB")}
_PATHS = {"download": TEN, "upload": UPLOAD}
_SHAPES = ("streamed", "whole")


class BulkPlan(NamedTuple):
    rounds: int
    transfers: int
    """One after the other, by each process."""


class Case(NamedTuple):
    kind: str
    client: str
    direction: str
    shape: str

    @property
    def name(self) -> str:
        return f"{_CLIENTS[self.kind, self.client][0]}, {self.direction}, {self.shape}"


CASES = [
    Case(kind, client, direction, shape)
    for direction, shape, (kind, client) in product(_PATHS, _SHAPES, _CLIENTS)
]


def bulk_section(here: Scene, plan: BulkPlan) -> Section:
    if here.front is None:
        return Section(TITLE, [], ["Left out, since nginx is not installed here: it has the bodies."])
    runs: dict[Case, list[dict[str, Any]]] = {case: [] for case in CASES}
    for number in range(plan.rounds):
        for case, told in _round(here, plan, CASES if number % 2 == 0 else CASES[::-1]):
            runs[case].append(told)
    rows = {
        (case, figure): Row(
            f"{case.name}: {name}",
            _CLIENTS[case.kind, case.client][1],
            unit,
            tuple(each[figure] for each in told),
            aim=_AIM_GROWN
            if figure == "grown" and (case.client, case.shape) == ("disco", "streamed")
            else None,
        )
        for case, told in runs.items()
        for figure, (name, unit) in _FIGURES.items()
    }
    compared = [
        compare(
            f"{case.direction} of 10 MB, {case.shape}: {_FIGURES['rate'][0]}, {mine} / {its}",
            truediv,
            rows[case, "rate"],
            rows[case._replace(client="httpx"), "rate"],
            unit="times",
            aim=_AIM_RATE,
            sense=">=",
        )
        for case in CASES
        if case.client == "disco"
        for mine, its in [(_CLIENTS[case.kind, "disco"][0], _CLIENTS[case.kind, "httpx"][0])]
    ]
    return Section(TITLE, [*rows.values(), *compared], [_about(plan)], by_side=True)


def _round(here: Scene, plan: BulkPlan, cases: list[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
    """The processes start together, a few at a time, and then work one after the other."""
    for first in range(0, len(cases), len(_CLIENTS)):
        with ExitStack() as stack:
            children = {}
            for case in cases[first : first + len(_CLIENTS)]:
                where = "memory" if case.client == "disco" else "direct"
                target = json.dumps(asdict(here.target(where, _PATHS[case.direction])))
                children[case] = stack.enter_context(Child("clients_bulk_child", *case, here.core, target))
            for child in children.values():
                child.wait_ready()
            for case, child in children.items():
                yield case, child.ask(plan.transfers)


def _about(plan: BulkPlan) -> str:
    return (
        f"Rounds: {plan.rounds}, each with new processes: {plan.transfers} transfers of {SIZE:,} bytes, one after the other. "
        "Streamed: read piece by piece (`iter_bytes`), or sent from a generator of pieces of 64 KiB; whole: `content`. Memory "
        "grown: the most that was resident, beyond what was before the first of them. The service takes an upload in to its "
        "end before it answers, and says how much that was."
    )
