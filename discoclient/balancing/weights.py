"""Weights act on the sampling: classes of equal weight, and a class is drawn in proportion to its total weight.

Never on the cost: at low load the cost hardly differs, and dividing it by the weight would starve whatever weighs little
(Finagle's WeightClass).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping
from itertools import accumulate
from operator import itemgetter
from random import Random
from types import MappingProxyType

from .endpoint import Endpoint

__all__ = ["Candidates", "WeightClasses"]


class Candidates(tuple[Endpoint, ...]):
    """Endpoints, with what each one weighs just now: what the registry says, and less for a newcomer."""

    weights: tuple[float, ...]

    @classmethod
    def of(
        cls, endpoints: Iterable[Endpoint], factors: Mapping[str, float] = MappingProxyType({})
    ) -> Candidates:
        """*factors* of the weights, by id, where they are not 1."""
        if isinstance(endpoints, Candidates) and not factors:
            return endpoints
        made = cls(endpoints)
        if factors:
            factor = factors.get
            made.weights = tuple([endpoint.weight * factor(endpoint.id, 1.0) for endpoint in made])
        else:
            made.weights = tuple([endpoint.weight for endpoint in made])
        return made


class WeightClasses:
    """Classes of *candidates*; all alike if every one weighs nothing."""

    __slots__ = ("_bounds", "classes", "everyone", "weights")

    def __init__(self, candidates: Iterable[Endpoint]) -> None:
        self.everyone = Candidates.of(candidates)
        self.weights = self.everyone.weights
        if len(set(self.weights)) == 1:  # nearly always, and there may be thousands
            self.classes: tuple[tuple[Endpoint, ...], ...] = (self.everyone,)
            self._bounds = [1.0]
            return
        groups: dict[float, list[Endpoint]] = {}
        group, group_weight = list[Endpoint](), -1.0
        for endpoint, weight in zip(self.everyone, self.weights, strict=True):
            if weight != group_weight:  # seldom: most weigh the same
                group, group_weight = groups.setdefault(weight, []), weight
            group.append(endpoint)
        if not any(groups):
            groups = {1.0: list(self.everyone)} if self.everyone else {}
        ordered = sorted(
            ((weight, group) for weight, group in groups.items() if weight > 0), key=itemgetter(0)
        )
        self.classes = tuple(tuple(group) for _, group in ordered)
        totals = list(accumulate(weight * len(group) for weight, group in ordered))
        self._bounds = [total / totals[-1] for total in totals]

    def draw(self, rng: Random) -> tuple[Endpoint, ...]:
        """A class. Not for none."""
        if len(self.classes) == 1:
            return self.classes[0]
        return self.classes[min(bisect(self._bounds, rng.random()), len(self.classes) - 1)]

    def sample(self, rng: Random) -> Endpoint:
        """One endpoint, in proportion to its weight. Not for none."""
        group = self.draw(rng)
        return group[int(rng.random() * len(group))]

    def only(self, endpoints: Iterable[Endpoint]) -> WeightClasses:
        """The same for some of them."""
        weights = {endpoint.id: weight for endpoint, weight in zip(self.everyone, self.weights, strict=True)}
        some = Candidates(endpoints)
        some.weights = tuple(weights[endpoint.id] for endpoint in some)
        return WeightClasses(some)
