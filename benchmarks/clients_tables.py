"""The rows of the comparison: figures by side, and what they are in terms of each other, with the aims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import truediv
from statistics import median
from typing import NamedTuple

from .clients_sides import Side, absent
from .clients_turns import Runs
from .figures import Row, Section, Sense, compare, format_number

__all__ = ["ASYNC_1", "ASYNC_32", "OPEN", "SYNC_1", "SYNC_16", "Ratio", "clients_section"]

_BUSY = 0.9
"""The share of their core from which on the servers are what was measured."""

_OTHERS = 0.1
"""The share of the clients' core from which on somebody else is a part of what was measured."""

_FIGURES = {
    "rate": ("requests/s", "per second"),
    "p50": ("p50", "ms"),
    "p99": ("p99", "ms"),
    "p999": ("p99.9", "ms"),
    "cpu": ("CPU", "us/request"),
    "servers": ("servers' CPU", "us/request"),
}
_CLOSED = ("rate", "p50", "p99", "cpu", "servers")
_OPEN = ("p50", "p99", "p999", "cpu")


class Ratio(NamedTuple):
    """One side in terms of another one."""

    figure: str
    ours: str
    reference: str
    aim: float | None = None
    sense: Sense = ">="


ASYNC_32 = (
    Ratio("rate", "disco", "httpx_nginx", 6.0),
    Ratio("p99", "disco", "httpx_nginx", 1 / 6, "<="),
    Ratio("rate", "disco", "httpx2", 2.0),
    Ratio("rate", "disco", "aiohttp", 0.4),
    Ratio("rate", "disco", "httpx_aiohttp"),
    Ratio("rate", "disco", "floor"),
    Ratio("rate", "disco_paths", "httpx_nginx"),
    Ratio("rate", "disco_paths", "aiohttp"),
    Ratio("rate", "disco_etcd", "disco"),
    Ratio("rate", "disco_64", "disco", 0.9),
    Ratio("rate", "disco_uvloop", "httpx_nginx_uvloop"),
    Ratio("rate", "disco_uvloop", "aiohttp_uvloop"),
)
ASYNC_1 = (
    Ratio("p50", "disco", "httpx_nginx", 0.45, "<="),
    Ratio("rate", "disco", "httpx2"),
    Ratio("rate", "disco", "aiohttp"),
    Ratio("rate", "disco_64", "disco", 0.9),
)
SYNC_1 = (
    Ratio("rate", "disco", "httpx_nginx", 1.8),
    Ratio("rate", "disco", "httpx"),
    Ratio("rate", "disco_paths", "httpx_nginx"),
    Ratio("rate", "disco", "requests"),
    Ratio("rate", "disco_64", "disco", 0.9),
)
SYNC_16 = SYNC_1
OPEN = (
    Ratio("p99", "disco", "httpx_nginx", None, "<="),
    Ratio("p99", "disco", "aiohttp", None, "<="),
)


def clients_section(
    title: str,
    sides: Mapping[str, Side],
    runs: Runs,
    ratios: Sequence[Ratio],
    notes: Sequence[str],
    *,
    is_open: bool = False,
    left_out: Sequence[Side] = (),
) -> Section:
    """*title* also begins the names of what is compared, which must tell it from other sections'."""
    figures = _OPEN if is_open else _CLOSED
    rows = {
        (key, figure): Row(
            f"{sides[key].name}: {_FIGURES[figure][0]}",
            sides[key].role,
            _FIGURES[figure][1],
            tuple(turn.figure(figure) for turn in turns),
        )
        for key, turns in runs.items()
        for figure in figures
    }
    compared = [
        compare(
            f"{title}: {_FIGURES[each.figure][0]}, {sides[each.ours].name} / {sides[each.reference].name}",
            truediv,
            rows[each.ours, each.figure],
            rows[each.reference, each.figure],
            unit="times",
            aim=each.aim,
            sense=each.sense,
        )
        for each in ratios
        if {each.ours, each.reference} <= runs.keys()
    ]
    told = [*notes, _busy(sides, runs), *_others(runs), *_failures(sides, runs), *absent(left_out)]
    return Section(title, [*rows.values(), *compared], told, by_side=True)


def _failures(sides: Mapping[str, Side], runs: Runs) -> list[str]:
    notes = []
    for key, turns in runs.items():
        failed = sum((Counter(turn.told["failed"]) for turn in turns), Counter[str]())
        if failed:
            what = ", ".join(f"{count:,} {error}" for error, count in failed.most_common())
            notes.append(f"{sides[key].name}, failed: {what}: don't quote this run.")
    return notes


def _busy(sides: Mapping[str, Side], runs: Runs) -> str:
    """Whether the servers, or the proxy with them, could have been what limits."""
    shares = {key: median(turn.servers_busy for turn in turns) for key, turns in runs.items()}
    busiest = max(shares, key=shares.__getitem__)
    told = (
        f"The servers, and nginx in front, were busy for at most {shares[busiest]:.0%} of their core "
        f"(with {sides[busiest].name})"
    )
    if shares[busiest] > _BUSY:
        return f"{told}: that side would be faster with faster ones."
    clients = min(
        median(turn.told["busy"] for turn in turns) for key, turns in runs.items() if key != "floor"
    )
    return f"{told}; the clients for at least {format_number(clients * 100)} % of theirs."


def _others(runs: Runs) -> list[str]:
    shares = [turn.others for turns in runs.values() for turn in turns if turn.others is not None]
    if not shares:
        return []
    disturbed = sum(share > _OTHERS for share in shares)
    told = f"Somebody else had more than {_OTHERS:.0%} of the clients' core in {disturbed} of {len(shares)} turns."
    return [f"{told} That is too much: don't quote this run." if disturbed > len(shares) / 10 else told]
