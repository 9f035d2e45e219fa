"""Waiting until all callers have left: the shell of a `Drain`, on the background loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from ..control.follower import Follower
from ..model.errors import RegistryDenied
from ..registry.happenings import WatchSettings
from ..registry.presence import Presence, read_presence
from ..registry.protocol import Registry
from .drain import Drain, Drained

__all__ = ["Farewell"]

LOOK_AGAIN = 0.05
"""Seconds between two looks at what is in flight here, while it is that which is waited for."""


class Farewell:
    """*range* is where the presences of the service's callers stand; *in_flight* counts the requests here."""

    def __init__(
        self,
        drain: Drain,
        registry: Registry,
        range: str,
        *,
        in_flight: Callable[[], int],
        settings: WatchSettings,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._drain = drain
        self._in_flight = in_flight
        self._clock = clock
        self._changed = asyncio.Event()
        self._follower = Follower[Presence](
            registry,
            range,
            lambda entry: read_presence(entry, range),
            self._see,
            settings=settings,
            clock=clock,
            rng=rng,
            on_refused=self._refused,
        )

    def hurry(self) -> None:
        """Wait no longer."""
        self._drain.hurry()
        self._changed.set()

    async def wait(self, revision: int) -> Drained:
        """Until the drain is over, of which the registry knows since *revision* (0: it does not know)."""
        drain, clock = self._drain, self._clock
        drain.told(revision, clock())
        # Only now: what is listed after the registry was told are all who can hold the set of before.
        following = asyncio.ensure_future(self._follower.run()) if revision else None
        try:
            while True:
                self._changed.clear()
                in_flight = self._in_flight()
                drain.counted(in_flight)
                now = clock()
                verdict = drain.verdict(now)
                if verdict is not None:
                    return verdict
                left = max(0.0, drain.wake_at(now) - now)
                try:
                    async with asyncio.timeout(min(left, LOOK_AGAIN) if in_flight else left):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _see(self, follower: Follower[Presence], touched: object) -> None:
        if not follower.is_stale:  # one member's word, which may lack somebody
            self._drain.saw(dict(follower.records))
        self._changed.set()

    def _refused(self, error: Exception) -> None:
        if isinstance(error, RegistryDenied):
            self._drain.saw(None)
            self._changed.set()
