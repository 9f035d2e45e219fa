"""Listening to the callers of an instance on trial: the shell of a `Jury`, on the background loop."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..control.follower import Follower
from ..registry.happenings import WatchSettings
from ..registry.presence import Presence, read_presence
from ..registry.protocol import Registry
from .canary import Jury

__all__ = ["Trial"]


class Trial:
    """*range* is where the presences of the service's callers stand; *on_objection* is told, once, why it must not stay."""

    def __init__(
        self,
        jury: Jury,
        registry: Registry,
        range: str,
        *,
        on_objection: Callable[[str], None],
        settings: WatchSettings,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._jury = jury
        self._on_objection = on_objection
        self._has_objected = False
        self._follower = Follower[Presence](
            registry,
            range,
            lambda entry: read_presence(entry, range),
            self._hear,
            settings=settings,
            clock=clock,
            rng=rng,
        )

    async def run(self) -> None:
        """Until cancelled."""
        await self._follower.run()

    def _hear(self, follower: Follower[Presence], touched: object) -> None:
        self._jury.heard(follower.records)
        objection = self._jury.objection
        if objection and not self._has_objected:
            self._has_objected = True
            self._on_objection(objection)
