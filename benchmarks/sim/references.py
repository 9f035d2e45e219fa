"""Rules to compare with, which are no part of the package."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from math import exp
from random import Random
from typing import TYPE_CHECKING

from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker, TwoChoicesPicker
from discoclient.balancing.weights import Candidates, WeightClasses
from discoclient.model.outcome import Outcome

if TYPE_CHECKING:
    from .world import World

__all__ = ["AlwaysFirst", "LeastLoaded", "OnePair", "Oracle", "PlainEwma"]


class PlainEwma:
    """The textbook's two choices by ``latency * (in_flight + 1)``, without what ours has beside: the average takes a peak
    as any other latency, it does not decay while idle, the lower cost always wins, and there is no second look. One for
    each client: it learns.
    """

    SECONDS = 10.0
    """After which an old latency weighs 1/e."""

    def __init__(self) -> None:
        self._averages: dict[Endpoint, tuple[float, float]] = {}

    def learn(self, endpoint: Endpoint, outcome: Outcome, now: float) -> None:
        average, stamp = self._averages.get(endpoint, (outcome.latency, now))
        weight = exp((stamp - now) / self.SECONDS)
        self._averages[endpoint] = average * weight + outcome.latency * (1.0 - weight), now

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return _Two(endpoints, rng, self._cost)

    def _cost(self, endpoint: Endpoint, now: float) -> float:
        return self._averages.get(endpoint, (0.0, now))[0] * (endpoint.in_flight + 1)


class LeastLoaded:
    """The one with fewest requests of our own in flight among *all*, at random among equals: nginx's and Envoy's least
    connections with a full scan, and *LeastLoaded* in the comparison of Prequal's authors.
    """

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return _Scan(endpoints, rng, lambda endpoint: endpoint.in_flight)


class Oracle:
    """Knows how much every server has to do, from all clients, and how fast it is. Nobody can; it shows what is left to
    gain.
    """

    def __init__(self, world: World) -> None:
        self._servers = world.servers

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return _Scan(endpoints, rng, self._wait)

    def _wait(self, endpoint: Endpoint) -> float:
        server = self._servers[endpoint.id]
        # A new one waits for its turn at the workers, and then takes its own time.
        turns = max(0, server.load + 1 - server.workers) / server.workers
        return (1.0 + turns) / server.speed


class AlwaysFirst:
    """The broken picker, for a negative control."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return _Scan(endpoints[:1], rng, lambda endpoint: 0.0)


class OnePair:
    """Our ``least_request`` without its second look: the textbook's two choices, for which there is theory."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return TwoChoicesPicker(
            WeightClasses(endpoints), lambda endpoint, now: endpoint.in_flight + 1, rng, pairs=1
        )


class _Two:
    """Two at random, and the lower cost wins."""

    def __init__(
        self, endpoints: Sequence[Endpoint], rng: Random, cost: Callable[[Endpoint, float], float]
    ) -> None:
        self._endpoints = endpoints
        self._rng = rng
        self._cost = cost

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        left = [each for each in self._endpoints if each.id not in tried] if tried else self._endpoints
        able = [each for each in left if not each.is_ejected(now)] or left
        if not able:
            return None
        return min(self._rng.sample(able, min(2, len(able))), key=lambda endpoint: self._cost(endpoint, now))


class _Scan:
    def __init__(
        self, endpoints: tuple[Endpoint, ...], rng: Random, cost: Callable[[Endpoint], float]
    ) -> None:
        self._endpoints = endpoints
        self._rng = rng
        self._cost = cost

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        left = [each for each in self._endpoints if each.id not in tried] if tried else self._endpoints
        able = [each for each in left if not each.is_ejected(now)] or left
        if not able:
            return None
        costs = [self._cost(each) for each in able]
        least = min(costs)
        best = [each for each, cost in zip(able, costs) if cost == least]
        return best[int(self._rng.random() * len(best))]
