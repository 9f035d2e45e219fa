"""Replica selection under uneven load: the experiment of Prequal's authors (NSDI 2024, figures 6 and 7), with our rules in
it.

Neighbours leave a server more workers than it is promised, or just these, or hobble it (`antagonists`). Load is a share of
what is promised, as in the paper: from 100 % on, an even spread overloads the servers that have no more than that. The rules
stand alone: nothing is retried or ejected, and a request is given up after five seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from discoclient.calling.ledger import Policies
from discoclient.model.policy import OutlierPolicy

from .antagonists import BRIEF, LASTING, Neighbours, antagonists, capacity
from .measure import Summary, summarize
from .prequal import Prequal
from .references import LeastLoaded, Oracle, PlainEwma
from .report import Check, Plan, Report, Table, milliseconds, percent
from .work import truncated_normal
from .world import Maker, Setup, simulate

__all__ = ["DEADLINE", "LOADS", "RULES", "run", "select"]

LOADS = (0.70, 0.80, 0.90, 1.03, 1.20, 1.41, 1.74)
"""Of what is promised; the paper goes from 0.75 to 1.74."""
QUICK_LOADS = (0.70, 1.03, 1.41)
MEAN = 0.075
"""Seconds of work, the median time in the paper; spread as there: a normal distribution as wide as its mean, cut off at 0."""
DEADLINE = 5.0


class Shape(NamedTuple):
    servers: int
    clients: int
    workers: int
    """That each server is promised."""
    seconds: float
    warm_up: float
    """Of these, that are not counted."""
    neighbours: Neighbours


SHAPES: Mapping[str, Shape] = {
    "wide": Shape(24, 60, 4, 40.0, 10.0, LASTING),
    "sparse": Shape(50, 80, 2, 17.0, 5.0, BRIEF),
    "narrow": Shape(10, 3, 2, 45.0, 5.0, BRIEF),
}
"""*wide*: what a client sends to a server comes to one to two requests a second, and who has room stays the same for a while,
as in the paper. *sparse*: one in two to four seconds, to small servers: a client alone knows next to nothing. *narrow*: a few
clients, some ten a second, which is more usual for us.
"""
QUICK_SHAPES: Mapping[str, Shape] = {
    "wide": Shape(12, 20, 3, 17.0, 8.0, LASTING),
    "sparse": Shape(24, 30, 1, 7.0, 5.0, BRIEF),
    "narrow": Shape(10, 3, 2, 7.0, 5.0, BRIEF),
}

_ALONE = Policies(outlier=OutlierPolicy(max_ejected=0.0))

RULES: Mapping[str, str | Maker] = {
    "round_robin": "round_robin",
    "random": "random",
    "least_request": "least_request",
    "least loaded of all": lambda world, rng: LeastLoaded(),
    "plain EWMA": lambda world, rng: PlainEwma(),
    "peak_ewma": "peak_ewma",
    "Prequal": lambda world, rng: Prequal(world),
    "oracle": lambda world, rng: Oracle(world),
}
PUBLISHED = ("round_robin", "random", "least_request", "least loaded of all", "Prequal")
"""Those of them that the paper has."""
SUBSET = "peak_ewma, 10 of them"
"""Each client uses ten servers, and so knows more of each."""


def run(plan: Plan) -> Report:
    loads = QUICK_LOADS if plan.is_quick else LOADS
    tables, checks, data, titles = [], [], {}, {}
    for name, shape in (QUICK_SHAPES if plan.is_quick else SHAPES).items():
        rules = [*RULES, *([SUBSET] if name == "sparse" else [])]
        found = {rule: [select(rule, load, shape, plan.seed) for load in loads] for rule in rules}
        tables += [_table(name, shape, loads, found, what) for what in ("p50", "p99", "p999", "errors")]
        data[name] = {rule: [each.to_json() for each in summaries] for rule, summaries in found.items()}
        titles[name] = f"{name}: {shape.servers} servers, {shape.clients} clients"
        if name == "wide":
            checks = _checks(loads, found)
    return Report("selection", tables, {"loads": list(loads), "shapes": data, "titles": titles}, checks)


def select(rule: str, load: float, shape: Shape, seed: str) -> Summary:
    """One rule at one load."""
    setup = Setup(
        seed=f"{seed}/selection/{shape.servers}",
        balancer="peak_ewma" if rule == SUBSET else RULES[rule],
        servers=shape.servers,
        clients=shape.clients,
        rate=load * shape.servers * shape.workers / MEAN,
        seconds=shape.seconds,
        work=truncated_normal(MEAN),
        workers=shape.workers,
        script=antagonists(shape.neighbours),
        policies=_ALONE,
        retries=0,
        timeout=DEADLINE,
        deadline=DEADLINE,
        notices=True,
        subset=10 if rule == SUBSET else None,
    )
    return summarize(simulate(setup).samples, after=shape.warm_up)


def _table(
    name: str, shape: Shape, loads: Sequence[float], found: Mapping[str, Sequence[Summary]], what: str
) -> Table:
    titles = {"p50": "p50, ms", "p99": "p99, ms", "p999": "p99.9, ms", "errors": "requests that failed"}
    rows = []
    for rule, summaries in found.items():
        cells: list[str] = []
        for each in summaries:
            value: float = getattr(each, what)
            cells.append(percent(value) if what == "errors" else _latency(value))
        rows.append((rule, *cells))
    return Table(
        f"Selection, {name} ({shape.servers} servers, {shape.clients} clients): {titles[what]}",
        ("load", *(f"{load:.0%}" for load in loads)),
        rows,
        [f"The fleet could do {capacity(shape.neighbours):.0%} of what is promised, on average over time."]
        if what == "p50"
        else [],
    )


def _latency(seconds: float) -> str:
    return "> 5 s" if seconds >= DEADLINE else milliseconds(seconds)


def _checks(loads: Sequence[float], found: Mapping[str, Sequence[Summary]]) -> list[Check]:
    """What the paper shows, as far as its rules stand here too."""
    first, above, last = 0, loads.index(1.03), len(loads) - 1

    def p99(rule: str, index: int) -> float:
        return found[rule][index].p99

    def shown(names: Sequence[str], index: int) -> str:
        return ", ".join(f"{name} {_latency(p99(name, index))}" for name in names)

    order = ("Prequal", "least loaded of all", "round_robin")
    best = [min(PUBLISHED, key=lambda rule: p99(rule, index)) for index in range(len(loads))]
    growth = [p99(rule, above) / p99(rule, first) for rule in order[:2]]
    even = found["round_robin"]
    return [
        Check(
            "70 %: p99 of Prequal < least loaded < round robin",
            "281 ms, 1,804 ms, > 5 s",
            shown(order, first),
            p99(order[0], first) < p99(order[1], first) < p99(order[2], first),
        ),
        Check(
            "up to 103 %: Prequal's p99 hardly moves",
            "times 1.02 (to 90 %)",
            f"times {growth[0]:.2f}",
            growth[0] < 1.2,
        ),
        Check(
            "what a client sees of its own requests does not keep up: least loaded grows",
            "times 1.5 (to 90 %)",
            f"times {growth[1]:.2f}",
            growth[1] > 1.3,
        ),
        Check(
            "103 %: p99.9 of an even spread is at the limit",
            "> 5 s",
            _latency(even[above].p999),
            even[above].p999 >= DEADLINE,
        ),
        Check(
            f"{loads[-1]:.0%}: of an even spread fails",
            "more than 25 %",
            percent(even[last].errors),
            even[last].errors > 0.25,
        ),
        Check(
            "Prequal fails nothing at any load",
            "0",
            percent(max(each.errors for each in found["Prequal"])),
            not any(each.errors for each in found["Prequal"]),
        ),
        Check(
            "Prequal has the lowest p99 of the paper's rules at every load",
            "at 70 % and 90 %",
            ", ".join(f"{load:.0%}: {rule}" for load, rule in zip(loads, best)),
            set(best) == {"Prequal"},
        ),
    ]
