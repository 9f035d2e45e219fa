"""Changes in etcd, made for one side and the other in turn, and when watchers knew of them."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from .bare_etcd import BareEtcd
from .watchers import Noted

__all__ = ["Change", "MakeChange", "alternate", "known_at"]

MakeChange: TypeAlias = Callable[[BareEtcd, int, int], Awaitable[int]]
"""Makes one change with this connection, this lease and this number; returns the revision."""


@dataclass(frozen=True, slots=True)
class Change:
    side: str
    round: int
    revision: int
    sent: float
    returned: float
    """Seconds of `monotonic`."""


async def alternate(
    registry: str, sides: Mapping[str, MakeChange], *, rounds: int, changes: int, pause: float
) -> list[Change]:
    """*changes* in each of the *rounds* on each side, *pause* seconds apart: A B A B."""
    made = []
    async with BareEtcd(registry) as etcd:
        lease = await etcd.lease()
        for number in range(rounds * changes):
            for side, make in sides.items():
                sent = monotonic()
                revision = await make(etcd, lease, number)
                made.append(Change(side, number // changes, revision, sent, monotonic()))
                await asyncio.sleep(pause)
    return made


def known_at(noted: Noted, change: Change) -> float:
    """When this watcher knew of the change, or of a later one that came together with it."""
    return noted[bisect_left(noted, change.revision, key=lambda note: note[0])][1]
