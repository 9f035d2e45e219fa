"""What workers that are gone have counted, so that a sum over all workers never goes down. PURE.

A counter that goes down reads, to whoever takes the difference of two looks, as a process that began anew: everything that the
others had counted would be counted again.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["Remembered"]

State = dict[str, Any]

_NUMBERS = ("requests", "retries", "received", "sent", "failed")
_MAPPINGS = ("statuses", "reasons", "counts")


class Remembered:
    """States are those of `admin.state`; none of them is changed."""

    def __init__(self) -> None:
        self._sidecar: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._services: dict[str, State] = {}

    def keep(self, state: State) -> None:
        """The last *state* of a worker that is gone."""
        for name in ("connections_total", "requests"):
            self._sidecar[name] += state["sidecar"][name]
        self._refused.update(state["sidecar"]["refused"])
        for service in state["services"]:
            name = service["service"]
            before = self._services.get(name)
            self._services[name] = service if before is None else _together(service, before)

    def add_to(self, state: State) -> State:
        """*state*, with what is remembered on top."""
        sidecar = state["sidecar"]
        return {
            **state,
            "sidecar": {
                **sidecar,
                **{name: sidecar[name] + count for name, count in self._sidecar.items()},
                "refused": _sum(sidecar["refused"], self._refused),
            },
            "services": [
                _together(each, self._services[each["service"]])
                if each["service"] in self._services
                else each
                for each in state["services"]
            ],
        }


def _together(now: State, gone: State) -> State:
    histogram, before = now["histogram"], gone["histogram"]
    return {
        **now,
        **{name: now[name] + gone[name] for name in _NUMBERS},
        **{name: _sum(now[name], gone[name]) for name in _MAPPINGS},
        "histogram": {
            **histogram,
            "counts": [one + other for one, other in zip(histogram["counts"], before["counts"], strict=True)],
            "sum": histogram["sum"] + before["sum"],
        },
    }


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    total = Counter(one)
    total.update(other)
    return dict(total)
