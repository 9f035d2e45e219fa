"""Neighbours that take capacity in phases: what makes the servers of a fleet unequal, and differently so each few seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .servers import Server
from .world import World

__all__ = ["PHASES", "Phase", "antagonists", "capacity"]


@dataclass(frozen=True, slots=True)
class Phase:
    """What a server has while its neighbours leave it so much. ``share``: of the time. ``workers``: as a multiple of what it is
    promised.
    """

    share: float
    workers: float
    speed: float


PHASES = (
    Phase(share=0.7, workers=2.5, speed=1.0),  # the machine has room: more than it was promised
    Phase(share=0.2, workers=1.0, speed=1.0),  # just what it was promised
    Phase(share=0.1, workers=1.0, speed=0.6),  # hobbled: less than that
)
DWELL = 5.0
"""Mean seconds of a phase."""


def capacity(phases: Sequence[Phase] = PHASES) -> float:
    """What the servers have on average, in multiples of what they are promised."""
    return sum(phase.share * phase.workers * phase.speed for phase in phases)


def antagonists(phases: Sequence[Phase] = PHASES, dwell: float = DWELL) -> Callable[[World], None]:
    """Every server goes through *phases* on its own, at random."""

    def script(world: World) -> None:
        for id, server in world.servers.items():
            _next(world, server, world.rng(f"antagonist/{id}"), phases, dwell)

    return script


def _next(world: World, server: Server, rng: Random, phases: Sequence[Phase], dwell: float) -> None:
    if world.loop.now >= world.setup.seconds:
        return
    (phase,) = rng.choices(phases, [phase.share for phase in phases])
    server.change(workers=round(phase.workers * world.setup.workers), speed=phase.speed)
    world.loop.after(rng.expovariate(1.0 / dwell), _next, world, server, rng, phases, dwell)
