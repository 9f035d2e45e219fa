"""Neighbours that take capacity in phases: what makes the servers of a fleet unequal, and differently so each few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .servers import Server
from .world import World

__all__ = ["BRIEF", "LASTING", "Neighbours", "Phase", "antagonists", "capacity"]


@dataclass(frozen=True, slots=True)
class Phase:
    """What a server has while its neighbours leave it so much. ``share``: of the time. ``workers``: as a multiple of what it is
    promised.
    """

    share: float
    workers: float
    speed: float


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the neighbours of all servers do. ``dwell``: mean seconds of a phase."""

    phases: tuple[Phase, ...]
    dwell: float


LASTING = Neighbours(
    (
        Phase(share=0.35, workers=4.0, speed=1.0),  # the machine has room: more than it was promised
        Phase(share=0.55, workers=1.0, speed=1.0),  # just what it was promised
        Phase(share=0.10, workers=1.0, speed=0.6),  # hobbled: less than that
    ),
    dwell=120.0,
)
"""Most machines are full and stay so, longer than any request waits: an even spread above what is promised must fail."""
BRIEF = Neighbours(
    (
        Phase(share=0.7, workers=2.5, speed=1.0),
        Phase(share=0.2, workers=1.0, speed=1.0),
        Phase(share=0.1, workers=1.0, speed=0.6),
    ),
    dwell=5.0,
)
"""Most machines have room, and which of them changes all the time: who learns slowly knows what was."""


def capacity(neighbours: Neighbours) -> float:
    """What the servers have on average, in multiples of what they are promised."""
    return sum(phase.share * phase.workers * phase.speed for phase in neighbours.phases)


def antagonists(neighbours: Neighbours) -> Callable[[World], None]:
    """Every server goes through the phases on its own, at random."""

    def script(world: World) -> None:
        for id, server in world.servers.items():
            _next(world, server, world.rng(f"antagonist/{id}"), neighbours)

    return script


def _next(world: World, server: Server, rng: Random, neighbours: Neighbours) -> None:
    if world.loop.now >= world.setup.seconds:
        return
    (phase,) = rng.choices(neighbours.phases, [phase.share for phase in neighbours.phases])
    server.change(workers=round(phase.workers * world.setup.workers), speed=phase.speed)
    world.loop.after(rng.expovariate(1.0 / neighbours.dwell), _next, world, server, rng, neighbours)
