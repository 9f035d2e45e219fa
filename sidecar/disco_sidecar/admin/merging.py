"""The states of several worker processes, added up to one. PURE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .trail import LENGTH, quantile

__all__ = ["merge"]

State = dict[str, Any]

KEPT = 100
"""Events."""
TOGETHER = 3.0
"""Seconds within which the same words from two workers are one event: each of them watches the registry."""

_PHASES = ("empty", "syncing", "suspect", "live")
_STANDINGS = ("ready", "weight 0", "unready", "vanished", "draining")


def merge(states: Sequence[State]) -> State:
    """What *states* (one of each worker, at least one) say together; none of them is changed.

    What is counted is added. What is known is as old, and as doubtful, as the worst of them has it; an ejection is shown if one
    of them ejected, with the longest time left and how many did (``ejected_in``). An instance's EWMA is the mean, weighted
    by requests. Of the history's quantiles it is the worst worker's, for those can't be added.
    """
    if len(states) == 1:
        return states[0]
    by_service = _group((each for state in states for each in state["services"]), "service")
    return {
        "sidecar": _sidecar([state["sidecar"] for state in states]),
        "services": [_service(by_service[service]) for service in sorted(by_service)],
        "events": _events([state["events"] for state in states]),
    }


def _sidecar(parts: list[State]) -> State:
    first = parts[0]
    ways: list[State] = []
    for part in parts:
        ways += [way for way in part["ways"] if way not in ways]
    return {
        **first,
        "pids": [part["pid"] for part in parts],
        "started_at": min(part["started_at"] for part in parts),
        "uptime": max(part["uptime"] for part in parts),
        "ways": ways,
        **{name: _sum(parts, name) for name in ("connections", "connections_total", "requests")},
        "refused": _added(part["refused"] for part in parts),
        "is_draining": any(part["is_draining"] for part in parts),
        "unready": sorted({reason for part in parts for reason in part.get("unready", ())}),
    }


def _service(parts: list[State]) -> State:
    first = parts[0]
    bounds = first["histogram"]["bounds"]
    buckets = _columns(part["recent"]["buckets"] for part in parts)
    worst = min(parts, key=lambda part: _rank(_PHASES, part["phase"]))
    instances = _group((each for part in parts for each in part["instances"]), "id")
    merged = [_instance(found) for found in instances.values()]
    return {
        **first,
        "is_known": all(part["is_known"] for part in parts),
        "problem": next((part["problem"] for part in parts if part["problem"]), None),
        "phase": worst["phase"],
        "age": _worst_age(parts),
        "revision": min(part["revision"] for part in parts),
        "is_suspect": any(part["is_suspect"] for part in parts),
        "is_panic": any(part["is_panic"] for part in parts),
        "balancer": next((part["balancer"] for part in parts if part["balancer"]), ""),
        **{
            name: _sum(parts, name)
            for name in ("requests", "retries", "in_flight", "tunnels", "received", "sent", "failed")
        },
        **{name: _added(part[name] for part in parts) for name in ("statuses", "reasons", "counts")},
        "latency": {"p50": quantile(bounds, buckets, 0.5), "p99": quantile(bounds, buckets, 0.99)},
        "recent": {
            "seconds": max(part["recent"]["seconds"] for part in parts),
            **{
                name: sum(part["recent"][name] for part in parts) for name in ("requests", "errors", "failed")
            },
            "buckets": buckets,
        },
        "histogram": {
            "bounds": bounds,
            "counts": _columns(part["histogram"]["counts"] for part in parts),
            "sum": sum(part["histogram"]["sum"] for part in parts),
        },
        "history": _history([part["history"] for part in parts]),
        "instances": sorted(merged, key=lambda each: (_rank(_STANDINGS, each["standing"]), each["id"])),
    }


def _instance(parts: list[State]) -> State:
    ejected = [part for part in parts if part["ejected_for"] is not None]
    longest = max(ejected, key=lambda part: float(part["ejected_for"]), default=None)
    return {
        **parts[0],
        "standing": max((part["standing"] for part in parts), key=lambda each: _rank(_STANDINGS, each)),
        "weight": _mean(parts, "weight", lambda part: 1),
        **{name: _sum(parts, name) for name in ("in_flight", "requests", "failures", "answers")},
        "latency": _mean(parts, "latency", lambda part: part["requests"]),
        "cost": _mean(parts, "cost", lambda part: part["requests"]),
        "success_rate": _mean(parts, "success_rate", lambda part: part["answers"]),
        "failures_in_a_row": max(part["failures_in_a_row"] for part in parts),
        "ejected_for": longest and longest["ejected_for"],
        "reason": longest and longest["reason"],
        "ejected_in": len(ejected),
        "known_for": max(part["known_for"] for part in parts),
    }


def _events(lists: list[list[State]]) -> list[State]:
    """Newest first. The same from several workers within moments is one: its time is the latest."""
    kept: list[State] = []
    newest: dict[tuple[Any, ...], tuple[float, int]] = {}
    found = [(event, worker) for worker, events in enumerate(lists) for event in events]
    for event, worker in sorted(found, key=lambda each: str(each[0]["at"]), reverse=True):
        key = (event["service"], event["kind"], event["text"])
        at = _seconds(event["at"])
        before = newest.get(key)
        if before is not None and before[1] != worker and before[0] - at <= TOGETHER:
            continue
        newest[key] = (at, worker)
        kept.append(event)
    return kept[:KEPT]


def _history(lists: list[list[list[Any]]]) -> list[list[Any]]:
    by_time: dict[int, list[Any]] = {}
    for points in lists:
        for t, *rates, p50, p99 in points:
            had = by_time.get(t)
            if had is not None:
                rates = [round(one + other, 2) for one, other in zip(had[1:4], rates, strict=True)]
                p50, p99 = _most(had[4], p50), _most(had[5], p99)
            by_time[t] = [t, *rates, p50, p99]
    return [by_time[t] for t in sorted(by_time)][-LENGTH:]


def _worst_age(parts: list[State]) -> float | None:
    ages = [part["age"] for part in parts]
    return None if None in ages else max(ages)


def _mean(parts: list[State], name: str, weight: Callable[[State], float]) -> float | None:
    known = [(part[name], weight(part)) for part in parts if part[name] is not None]
    total = sum(share for _, share in known)
    if not known:
        return None
    if total <= 0:
        return float(sum(value for value, _ in known) / len(known))
    return float(sum(value * share for value, share in known) / total)


def _most(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _rank(order: Sequence[str], word: str) -> int:
    """A word that we do not know is the worst."""
    return order.index(word) if word in order else -1


def _sum(parts: list[State], name: str) -> Any:
    return sum(part[name] for part in parts)


def _added(mappings: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in mappings:
        total.update(each)
    return dict(total)


def _columns(rows: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _group(rows: Iterable[State], name: str) -> dict[str, list[State]]:
    found: dict[str, list[State]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


def _seconds(at: str) -> float:
    """Since midnight, which is enough to tell moments apart: a day's turn shows two entries in place of one."""
    hours, minutes, seconds = at[11:].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
