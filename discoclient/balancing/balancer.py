"""A balancer builds pickers: on the slow path, once for every change of the set."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol, runtime_checkable

from ..model.errors import ConfigError
from .endpoint import Endpoint
from .picker import Picker, RandomPicker, TwoChoicesPicker
from .rendezvous import RendezvousPicker
from .round_robin import RoundRobinPicker
from .weights import Candidates, WeightClasses

__all__ = [
    "BALANCERS",
    "Balancer",
    "LeastRequest",
    "PeakEwma",
    "RandomChoice",
    "Rendezvous",
    "RoundRobin",
    "find_balancer",
]


LATENCY_PAIRS = 3
"""Pairs that `PeakEwma` compares at most. With a third one p99 is 78 ms in place of 110, beside one that is ten times slower,
one that hangs and one that fails (median of 12 simulated fleets of eight); without bad ones it changes nothing.
"""


@runtime_checkable
class Balancer(Protocol):
    """How to choose. Write your own by giving this one method; pass the object as ``balancer=``."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        """A picker over *endpoints*, all of them callable. What has to last longer stands in the endpoints.

        They are a tuple; its attribute ``weights`` has what each is to get just now, which is less for a newcomer.
        """


class PeakEwma:
    """The lower ``latency * (in_flight + 1)`` of two (of four or six, if that is dear), where a new peak of latency counts at
    once and decays over 10 s.

    Finagle's ``PeakEwma``, with a comparison that allows for noise (`TwoChoicesPicker`); failures count as slow.
    """

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return TwoChoicesPicker(
            WeightClasses(endpoints), Endpoint.cost, rng, is_noisy=True, pairs=LATENCY_PAIRS
        )


class LeastRequest:
    """The one of two with fewer requests in flight (Envoy's ``least_request``), and of two more where both have many."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return TwoChoicesPicker(WeightClasses(endpoints), _in_flight, rng)


class RoundRobin:
    """One after the other, evenly spaced, each as often as its weight says, whatever its load (gRPC's static stride)."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return RoundRobinPicker(endpoints, rng)


class RandomChoice:
    """Any, in proportion to the weights."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return RandomPicker(WeightClasses(endpoints), rng)


class Rendezvous:
    """Requests with equal ``hash_key`` go to the same instance, unless it has far more to do than the others."""

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        return RendezvousPicker(WeightClasses(endpoints), rng)


def _in_flight(endpoint: Endpoint, now: float) -> float:
    return endpoint.in_flight + 1


BALANCERS: dict[str, Callable[[], Balancer]] = {
    "peak_ewma": PeakEwma,
    "least_request": LeastRequest,
    "round_robin": RoundRobin,
    "random": RandomChoice,
    # Weights count in round robin too: the name is for those who look for it.
    "weighted_round_robin": RoundRobin,
    "rendezvous": Rendezvous,
}


def find_balancer(balancer: str | Balancer) -> Balancer:
    """The balancer of that name, or *balancer* itself. Raises `ConfigError`, which names the choices."""
    if isinstance(balancer, str) and balancer in BALANCERS:
        return BALANCERS[balancer]()
    if not isinstance(balancer, str | type) and isinstance(balancer, Balancer):
        return balancer
    raise ConfigError(
        f"{balancer!r} is no balancer; use one of {', '.join(BALANCERS)}, or an object with a method picker(endpoints, rng)"
    )
