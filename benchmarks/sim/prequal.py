"""Prequal's rule, for comparison: B. Wydrowski, R. Kleinberg, S. Rumble, A. Archer, "Load is not what you should balance:
Introducing Prequal" (NSDI 2024).
 Each request sends a few probes to servers at random, and does not wait for them. A probe brings back how many requests
are there (RIF) and how long one takes at that load; answers are kept for later requests, in a small pool. A server is
*hot* if its RIF is above a quantile of those seen. Of the cold ones the fastest is chosen; if all are hot, the one with
the lowest RIF (hot-cold lexicographic rule).
"""

from __future__ import annotations

from bisect import bisect, insort
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker
from discoclient.balancing.weights import Candidates

if TYPE_CHECKING:
    from .world import World

__all__ = ["Prequal", "reuse_budget"]

POOL = 16
"""Answers that are kept for 100 servers or more."""
POOL_SHARE = 0.16
"""The same for fewer, as a share of them: that is what 16 are of the 100 in the paper. With half of the servers in every
pool all clients see the same best one, and run there together; the paper says that what prevents this is that pools are
small parts.
"""
LEAST_POOL = 4
PROBES = 3.0
"""Probes that a request sends."""
REMOVED = 1.0
"""Answers that a request removes beside the one that it uses."""
GROWTH = 1.0
"""The paper's delta: how fast the pool may fill up."""
HOT = 2**-0.25
"""Quantile of the RIF from which on a server is hot (Q_RIF)."""
MAX_AGE = 1.0
"""Seconds that an answer is of use."""
LEAST = 2
"""Answers in the pool below which chance decides."""
SEEN = 128
"""RIFs that the quantile is taken of."""


def reuse_budget(servers: int, pool: int) -> float:
    """How often an answer may be used: the paper's formula."""
    inflow = (1.0 - pool / servers) * PROBES - REMOVED
    return max(1.0, (1.0 + GROWTH) / inflow) if inflow > 0 else 1.0


@dataclass(slots=True, eq=False)
class _Probe:
    endpoint: Endpoint
    rif: int
    latency: float
    at: float
    uses: int


class Prequal:
    """One for each client."""

    def __init__(self, world: World) -> None:
        self._world = world

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return _Pool(endpoints, rng, self._world)


class _Pool:
    def __init__(self, endpoints: Candidates, rng: Random, world: World) -> None:
        self._endpoints = endpoints
        self._rng = rng
        self._world = world
        self._size = min(POOL, max(LEAST_POOL, round(POOL_SHARE * len(endpoints))))
        self._budget = reuse_budget(len(endpoints), self._size)
        self._probes: list[_Probe] = []
        self._seen: deque[int] = deque(maxlen=SEEN)
        self._sorted: list[int] = []
        """The same, in order."""
        self._is_oldest_next = True

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        if not self._endpoints:
            return None
        endpoint = self._choose(now, tried)
        self._ask()
        self._remove()
        return endpoint

    def _choose(self, now: float, tried: Container[str]) -> Endpoint | None:
        probes = self._probes = [probe for probe in self._probes if now - probe.at < MAX_AGE]
        able = [probe for probe in probes if probe.endpoint.id not in tried] if tried else probes
        if len(able) < LEAST:
            left = [endpoint for endpoint in self._endpoints if endpoint.id not in tried]
            return self._rng.choice(left) if left else None
        best = min(able, key=self._rank())
        best.rif += 1  # our own request, which the next answer will count
        best.uses -= 1
        if best.uses <= 0:
            probes.remove(best)
        return best.endpoint

    def _rank(self) -> Callable[[_Probe], tuple[bool, float]]:
        """The lower the better: cold ones by their latency, then hot ones by their RIF."""
        ordered = self._sorted
        threshold = ordered[int(HOT * (len(ordered) - 1))] if ordered else 0
        return lambda probe: (False, probe.latency) if probe.rif <= threshold else (True, probe.rif)

    def _remove(self) -> None:
        """In turn the oldest and the worst, so that what nobody chooses does not pile up."""
        if len(self._probes) > LEAST:
            worst = self._probes[0] if self._is_oldest_next else max(self._probes, key=self._rank())
            self._probes.remove(worst)
            self._is_oldest_next = not self._is_oldest_next

    def _ask(self) -> None:
        loop, trip = self._world.loop, self._world.setup.trip
        for endpoint in self._rng.sample(self._endpoints, min(int(PROBES), len(self._endpoints))):
            loop.after(trip / 2, self._reach, endpoint)

    def _reach(self, endpoint: Endpoint) -> None:
        server = self._world.servers[endpoint.id]
        self._world.loop.after(
            self._world.setup.trip / 2, self._answered, endpoint, server.load, server.estimate()
        )

    def _answered(self, endpoint: Endpoint, rif: int, latency: float) -> None:
        if len(self._seen) == SEEN:
            del self._sorted[bisect(self._sorted, self._seen[0]) - 1]
        self._seen.append(rif)
        insort(self._sorted, rif)
        whole = int(self._budget)
        uses = whole + (self._rng.random() < self._budget - whole)
        if len(self._probes) >= self._size:
            del self._probes[0]
        self._probes.append(_Probe(endpoint, rif, latency, self._world.loop.now, uses))
