"""A balancer builds pickers: on the slow path, once for every change of the set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, runtime_checkable

from ..model.errors import ConfigError
from .endpoint import Endpoint
from .picker import Picker, RandomPicker, RoundRobinPicker, TwoChoicesPicker

__all__ = ["BALANCERS", "Balancer", "LeastRequest", "PeakEwma", "RandomChoice", "RoundRobin", "find_balancer"]


@runtime_checkable
class Balancer(Protocol):
    """How to choose. Write your own by giving this one method; pass the object as ``balancer=``."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        """A picker over *endpoints*, all of them callable. What has to last longer stands in the endpoints."""


class PeakEwma:
    """The lower ``latency * (in_flight + 1)`` of two, where a new peak of latency counts at once and decays over 10 s.

    Finagle's ``PeakEwma``, with a comparison that allows for noise (`TwoChoicesPicker`); failures count as slow.
    """

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return TwoChoicesPicker(endpoints, Endpoint.cost, rng, is_noisy=True)


class LeastRequest:
    """The one of two with fewer requests in flight (Envoy's ``least_request`` with 2 choices)."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return TwoChoicesPicker(endpoints, _in_flight, rng)


class RoundRobin:
    """One after the other, whatever their weight and load."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return RoundRobinPicker(endpoints, rng)


class RandomChoice:
    """Any, in proportion to the weights."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return RandomPicker(endpoints, rng)


def _in_flight(endpoint: Endpoint, now: float) -> float:
    return endpoint.in_flight


BALANCERS: dict[str, Callable[[], Balancer]] = {
    "peak_ewma": PeakEwma,
    "least_request": LeastRequest,
    "round_robin": RoundRobin,
    "random": RandomChoice,
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
