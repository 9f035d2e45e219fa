"""Memory while one end is slow: a client that reads a large answer slowly, and an upload to a service that takes it slowly.

What is not passed on has to wait somewhere. If that is in the proxy, its memory grows by what the fast end can send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeAlias

from .figures import Row, Section
from .sidecar_scene import HUGE, HUGE_SIZE, LARGE, SMALL, register, scene
from .sidecar_sides import SIDES, Front, absent
from .slow_ends import PACE, SlowServer, read_slowly, write_fast
from .wrk import fetch

__all__ = ["MemoryPlan", "Watched", "memory_section"]

_SIDES = ("nginx", "sidecar", "sidecar_tcp")
_AIM = 1.0
"""MB for each connection: two buffers, and not a two-hundredth of what is on its way."""


class MemoryPlan(NamedTuple):
    rounds: int
    seconds: float
    clients: int


class Watched(NamedTuple):
    before: float
    """MB, when the proxy has done its first requests."""
    most: float
    passed: int
    """Bytes that came through, or were taken."""


Runs: TypeAlias = "Mapping[str, Sequence[Watched]]"


def memory_section(plan: MemoryPlan, sides: Sequence[str]) -> Section:
    """Of those *sides* that this is about."""
    sides = [side for side in _SIDES if side in sides]
    with scene() as one:

        def read(side: str) -> Watched:
            with one.front(side) as front:
                fetch(front.port, LARGE)
                return _watch(
                    front,
                    lambda look: read_slowly(
                        front.port, HUGE, clients=plan.clients, seconds=plan.seconds, look=look
                    ),
                )

        readers = _take_turns(sides, plan.rounds, read)
    with ExitStack() as stack:
        other = stack.enter_context(scene(registered=False))
        server = stack.enter_context(SlowServer())
        stack.callback(register(other.registry, server.port).leave)

        def write(side: str) -> Watched:
            with other.front(side, ports=[server.port]) as front:
                return _watch(
                    front,
                    lambda look: write_fast(
                        front.port, SMALL, HUGE_SIZE, clients=plan.clients, seconds=plan.seconds, look=look
                    ),
                )

        writers = _take_turns(sides, plan.rounds, write)
    rows = [*_rows(readers, "a slow reader", plan), *_rows(writers, "a slow service", plan)]
    return Section("Memory while one end is slow", rows, [_about(plan), *absent(_SIDES)])


def _watch(front: Front, run: Callable[[Callable[[], float]], tuple[int, float]]) -> Watched:
    before = front.usage().resident
    passed, most = run(lambda: front.usage().resident)
    return Watched(before, most, passed)


def _take_turns(
    sides: Sequence[str], rounds: int, measure: Callable[[str], Watched]
) -> dict[str, list[Watched]]:
    runs: dict[str, list[Watched]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            runs[side].append(measure(side))
    return runs


def _rows(runs: Runs, what: str, plan: MemoryPlan) -> list[Row]:
    values: tuple[tuple[str, Callable[[Watched], float], float | None], ...] = (
        ("memory before", lambda run: run.before, None),
        ("memory at most", lambda run: run.most, None),
        ("grown", lambda run: run.most - run.before, _AIM * plan.clients),
        ("passed on", lambda run: run.passed / 1e6, None),
    )
    return [
        Row(
            f"{SIDES[side][0]}, {what}: {name}",
            SIDES[side][1],
            "MB",
            tuple(map(value, taken)),
            aim=aim if SIDES[side][1] == "ours" else None,
        )
        for name, value, aim in values
        for side, taken in runs.items()
    ]


def _about(plan: MemoryPlan) -> str:
    return (
        f"Rounds: {plan.rounds}, each of {plan.seconds:g} s and with new processes. A slow reader: {plan.clients} clients GET "
        f"{HUGE_SIZE / 1e6:g} MB each, and read {PACE / 1e6:g} MB a second. A slow service: {plan.clients} clients POST as "
        "much, as fast as it is taken, to an instance that takes as little as they do. Passed on: what the readers got, or "
        "what the writers were rid of, a part of it into the kernel's buffers, which are nobody's memory here. Looked at "
        "every 0.05 s. nginx does not spool to disk, as `sidecar_configs` tunes it."
    )
