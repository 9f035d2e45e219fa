"""A view: a snapshot and the pickers for it, published together by one assignment."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from ..model.snapshot import Snapshot
from .endpoint import Endpoint, Rank
from .picker import HashKey, Picker, pick_by
from .preferences import Preferences
from .shaping import newcomers, subset, zone_share
from .split import SplitPicker, SubsetPicker, ZonePicker
from .weights import Candidates, WeightClasses

__all__ = ["View", "build_view"]


@dataclass(frozen=True, slots=True)
class View:
    """Immutable. ``tiers`` are pickers in the order of preference; a later one is asked when the earlier ones have none, or
    only such as are ejected: standbys are there for when the others fail.

    ``rebuild_at``: when newcomers are to get more, and so another view is due; ``None`` if never.
    """

    snapshot: Snapshot
    endpoints: Mapping[str, Endpoint]
    tiers: tuple[Picker, ...]
    rebuild_at: float | None = None
    narrow: Callable[[str], tuple[Picker, ...]] = lambda version: ()
    """The tiers of one version alone, made when somebody asks for them."""
    _narrowed: dict[str, tuple[Picker, ...]] = field(default_factory=dict, repr=False, compare=False)

    def pick(
        self,
        now: float,
        tried: Container[str] = (),
        key: HashKey | None = None,
        version: str | None = None,
    ) -> Endpoint | None:
        """An endpoint that is not in *tried*; with *version*, of that version only. An ejected one if nothing else is left."""
        last_resort = None
        for picker in self.tiers if version is None else self._of(version):
            endpoint = picker.pick(now, tried) if key is None else pick_by(picker, key, now, tried)
            if endpoint is not None:
                if not endpoint.is_marked or not endpoint.is_ejected(now):
                    return endpoint
                last_resort = last_resort or endpoint
        return last_resort

    def _of(self, version: str) -> tuple[Picker, ...]:
        found = self._narrowed.get(version)
        if found is None:
            found = self._narrowed[version] = self.narrow(version)
        return found


def build_view(
    snapshot: Snapshot,
    endpoints: Mapping[str, Endpoint],
    preferences: Preferences,
    rng: Random,
    now: float = 0.0,
) -> View:
    """First what is ready; then what is ready with a weight of 0; then the unready; then the held; what drains never."""
    everyone = list(endpoints.values())
    ramps, rebuild_at = newcomers(_ranked(everyone).get(Rank.FIRST, ()), preferences.slow_start, now)

    def tiers(wanted: Sequence[Endpoint]) -> tuple[Picker, ...]:
        ranked = _ranked(wanted)
        return tuple(_by_version(ranked[rank], ramps, preferences, rng) for rank in sorted(ranked))

    return View(
        snapshot,
        endpoints,
        tiers(everyone),
        rebuild_at,
        lambda version: tiers([endpoint for endpoint in everyone if endpoint.instance.version == version]),
    )


def _ranked(endpoints: Iterable[Endpoint]) -> dict[Rank, list[Endpoint]]:
    """Those that may be called, by rank: in one go, for there may be thousands."""
    ranked: dict[Rank, list[Endpoint]] = {}
    for endpoint in endpoints:
        try:
            ranked[endpoint.rank].append(endpoint)
        except KeyError:
            ranked[endpoint.rank] = [endpoint]
    ranked.pop(Rank.NEVER, None)
    return ranked


def _by_version(
    endpoints: Sequence[Endpoint], ramps: Mapping[str, float], preferences: Preferences, rng: Random
) -> Picker:
    """The version first, then the instance: the other way round the load metric would defeat a canary's share."""
    if not preferences.versions:
        return _by_zone(endpoints, ramps, preferences, rng)
    groups: list[tuple[float, list[Endpoint]]] = []
    for version, share in preferences.versions.items():
        chosen = [endpoint for endpoint in endpoints if endpoint.instance.version == version]
        if chosen:
            groups.append((share, chosen))
    rest = [endpoint for endpoint in endpoints if endpoint.instance.version not in preferences.versions]
    if rest:
        groups.append((1.0 - sum(share for share, _ in groups), rest))
    if len(groups) <= 1:
        return _by_zone(endpoints, ramps, preferences, rng)
    if not rest:  # only versions that have a share: they keep their proportions
        total = sum(share for share, _ in groups) or 1.0
        groups = [(share / total, chosen) for share, chosen in groups]
    return SplitPicker([(share, _by_zone(chosen, ramps, preferences, rng)) for share, chosen in groups], rng)


def _by_zone(
    endpoints: Sequence[Endpoint], ramps: Mapping[str, float], preferences: Preferences, rng: Random
) -> Picker:
    share = zone_share(endpoints, preferences.zone)
    if share is None:
        return _by_balancer(endpoints, ramps, preferences, rng)
    near = [endpoint for endpoint in endpoints if endpoint.instance.zone == preferences.zone]
    far = [endpoint for endpoint in endpoints if endpoint.instance.zone != preferences.zone]
    return ZonePicker(
        _by_balancer(near, ramps, preferences, rng),
        _by_balancer(far, ramps, preferences, rng),
        share,
        WeightClasses(near),
        rng,
    )


def _by_balancer(
    endpoints: Sequence[Endpoint], ramps: Mapping[str, float], preferences: Preferences, rng: Random
) -> Picker:
    used = subset(endpoints, preferences.subset, preferences.seed)
    chosen = preferences.balancer.picker(Candidates.of(used, ramps), rng)
    if len(used) == len(endpoints):
        return chosen

    def rest() -> Picker:
        left = {id(endpoint) for endpoint in used}
        others = [endpoint for endpoint in endpoints if id(endpoint) not in left]
        return preferences.balancer.picker(Candidates.of(others, ramps), rng)

    return SubsetPicker(chosen, rest)
