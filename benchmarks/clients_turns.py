"""The clients take turns: each is a process of its own for all rounds, and only one of them works at a time.

So nobody's garbage, modules or threads are paid for by another, and what disturbs the machine disturbs neighbours in the same
second. In every second round the order is reversed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from .children import Child
from .clients_scene import Scene
from .clients_sides import Side
from .usage import read_stat, worked

__all__ = ["Clients", "Runs", "Turn", "standing", "take_turns"]

_LONG = 0.5
"""Seconds: in shorter turns the kernel's ticks of 10 ms are too coarse."""
_GROUP = 8
"""Processes that start at the same time: on two cores more of them would only wait for each other."""


class Turn(NamedTuple):
    told: Mapping[str, Any]
    """By the client, see `clients_child`."""
    servers: float
    """Microseconds of CPU that the servers, and the proxy if there is one, spent for each request."""
    servers_busy: float
    """The share of their core."""
    others: float | None
    """The share of the clients' core that somebody else had; ``None`` for a turn that is too short to tell."""

    def figure(self, name: str) -> float:
        return self.servers if name == "servers" else float(self.told[name])


Runs: TypeAlias = "Mapping[str, Sequence[Turn]]"
Clients: TypeAlias = "Mapping[str, Child]"


@contextmanager
def standing(here: Scene, sides: Mapping[str, Side], path: str | None = None) -> Iterator[Clients]:
    """Inside the clients of all *sides* are connected and wait for their turn."""
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        keys = list(sides)
        for first in range(0, len(keys), _GROUP):
            group = keys[first : first + _GROUP]
            for key in group:
                side = sides[key]
                target = here.target(side.where, path) if path else here.target(side.where)
                children[key] = stack.enter_context(
                    Child("clients_child", side.kind, side.client, here.core, json.dumps(asdict(target)))
                )
            for key in group:
                children[key].wait_ready()
        yield children


def take_turns(
    here: Scene, clients: Clients, command: Mapping[str, Any], rounds: int, *, seeded: bool = False
) -> dict[str, list[Turn]]:
    """*command* for each of *clients*, round by round. *seeded*: with a seed for the round, the same one for all."""
    runs: dict[str, list[Turn]] = {side: [] for side in clients}
    for number in range(rounds):
        words = dict(command) | ({"seed": f"round {number}"} if seeded else {})
        for side in clients if number % 2 == 0 else reversed(list(clients)):
            runs[side].append(_take_turn(here, clients[side], words))
    return runs


def _take_turn(here: Scene, client: Child, words: Mapping[str, Any]) -> Turn:
    spent, began = here.servers_cpu(), monotonic()
    had, mine = worked(here.core), _spent(client)
    told = client.ask(words)
    had, mine = worked(here.core) - had, _spent(client) - mine
    spent, wall = here.servers_cpu() - spent, monotonic() - began
    others = max(0.0, had - mine) / wall if wall > _LONG and not here.is_shared else None
    return Turn(told, spent / told["served"] * 1e6, spent / wall, others)


def _spent(client: Child) -> float:
    return read_stat(Path(f"/proc/{client.pid}/stat").read_text())[1]
