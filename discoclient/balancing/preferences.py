"""What one client prefers: how its requests are spread over the instances that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..model.errors import ConfigError
from ..model.policy import SlowStartPolicy, check_count, check_seconds, check_share
from .balancer import Balancer, PeakEwma

__all__ = ["Preferences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """Args:
    balancer: who chooses among equals.
    slow_start: how a newcomer gets its share.
    zone: where we are: instances there are called first, as far as their capacity goes. ``None``: zones don't matter.
    versions: shares of the requests by version, for a canary: ``{"2.4.1": 0.05}``. What is left goes to all other versions.
    subset: how many of the instances (of each zone and version) to use, where there are more: fewer connections. ``None``: all.
    seed: what the subset is drawn with; different for each client, so that together they use all.
    grace: seconds that instances which vanished together without draining are kept as a last resort; 0: not at all.
    """

    balancer: Balancer = field(default_factory=PeakEwma)
    slow_start: SlowStartPolicy = field(default_factory=SlowStartPolicy)
    zone: str | None = None
    versions: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    subset: int | None = None
    seed: str = ""
    grace: float = 30.0

    def __post_init__(self) -> None:
        if not isinstance(self.slow_start, SlowStartPolicy):
            raise ConfigError(f"slow_start= must be a SlowStartPolicy; got {self.slow_start!r}")
        if self.zone is not None and (not isinstance(self.zone, str) or not self.zone):
            raise ConfigError(f"zone= must be a zone's name; got {self.zone!r}")
        if not isinstance(self.versions, Mapping):
            raise ConfigError(
                f"versions= must map versions to shares, such as {{'2.4.1': 0.05}}; got {self.versions!r}"
            )
        for version, share in self.versions.items():
            check_share(f"versions[{version!r}]", share)
        if sum(self.versions.values()) > 1 + 1e-9:
            raise ConfigError("the shares in versions= must not add up to more than 1")
        if self.subset is not None:
            check_count("subset=", self.subset, 1)
        check_seconds("grace=", self.grace, zero=True)
