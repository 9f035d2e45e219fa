"""Taking over: the older instances of the same place are asked to retire, and waited for. For the background loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from random import Random

from ..control.follower import Follower
from ..model.errors import RegistryError, RegistryUnavailable
from ..model.instance import Instance, State
from ..registry.asked import Asked, Retirement
from ..registry.happenings import WatchSettings
from ..registry.keys import Keys
from ..registry.protocol import Entry, Registry
from .asking import Found, NotThere, ask, find

__all__ = ["Replacement", "Takeover"]

logger = logging.getLogger("discoclient.serving")

PAUSE = 0.1
"""Seconds between two looks at who is still there."""
RETRY = 1.0
"""Seconds between two tries while the registry does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """How it went: the older instances that are gone, and those that were still there in the end."""

    gone: tuple[Instance, ...]
    left: tuple[Instance, ...]
    seconds: float


class Takeover:
    """*mine* takes over from the instances of its service, host name and slot that were there before it.

    Who was there is noted as soon as *mine* is registered: one that loses its lease later and is put back looks new.
    """

    def __init__(
        self,
        mine: Callable[[], Instance],
        registry: Registry,
        keys: Keys,
        *,
        hostnames: bool,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        """*timeout*: seconds that the older ones may take to go, before it is said that they are still there."""
        self._mine = mine
        self._registry = registry
        self._keys = keys
        self._hostnames = hostnames
        self._timeout = timeout
        self._clock = clock
        self._may_begin = asyncio.Event()
        self._own_generation = 0
        self._noted: dict[str, Instance] = {}
        self._asked: dict[str, int] = {}  # by id, in which generation it was asked

    def begin(self) -> None:
        """It has proved itself. For the loop that `run` runs on."""
        self._may_begin.set()

    async def run(self) -> Replacement:
        """From when *mine* is registered. Whatever the registry does, it is tried until it worked: meanwhile all serve on."""
        await self._insist(self._note_the_older)
        await self._may_begin.wait()
        began = self._clock()
        present = await self._insist(self._ask_the_older)
        ends = self._clock() + self._timeout
        while present and self._clock() < ends:
            await asyncio.sleep(PAUSE)
            present = await self._insist(self._ask_the_older)
        left = {each.instance.id for each in present}
        return Replacement(
            gone=tuple(instance for id, instance in self._noted.items() if id not in left),
            left=tuple(instance for id, instance in self._noted.items() if id in left),
            seconds=self._clock() - began,
        )

    async def stand(self, *, settings: WatchSettings, rng: Random) -> None:
        """After `run`, until cancelled: one that was lost and comes back is asked again.

        To vanish is not to leave: the lease of an older one may have ended while the registry, or its own process, stood
        still, and with the lease what it was asked.
        """
        prefix = self._keys.service(self._mine().service)
        back = asyncio.Event()

        def look(follower: Follower[Entry], touched: Collection[str]) -> None:
            if any(key in follower.records and key[len(prefix) :] in self._noted for key in touched):
                back.set()

        follower = Follower[Entry](
            self._registry, prefix, lambda entry: entry, look, settings=settings, clock=self._clock, rng=rng
        )
        following = asyncio.ensure_future(follower.run())
        try:
            while True:
                await back.wait()
                back.clear()
                await self._insist(self._ask_the_older)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _insist(self, look: Callable[[], Awaitable[list[Found]]]) -> list[Found]:
        while True:
            try:
                return await look()
            except RegistryError as error:
                logger.debug("taking over: %s", error)
                await asyncio.sleep(RETRY)

    async def _find(self) -> list[Found]:
        return await find(self._registry, self._keys, self._mine().service, hostnames=self._hostnames)

    async def _note_the_older(self) -> list[Found]:
        found = await self._find()
        self._own_generation = self._own(found).generation
        older = self._older(found)
        self._noted = {each.instance.id: each.instance for each in older}
        return older

    def _own(self, found: list[Found]) -> Found:
        id = self._mine().id
        own = next((each for each in found if each.instance.id == id), None)
        if own is None:
            raise RegistryUnavailable("not registered just now")
        return own

    def _older(self, found: list[Found]) -> list[Found]:
        mine = self._mine()
        return [
            each
            for each in found
            if (each.generation < self._own_generation or each.instance.id in self._noted)
            and (each.instance.hostname, each.instance.slot) == (mine.hostname, mine.slot)
            and each.instance.id != mine.id
        ]

    async def _ask_the_older(self) -> list[Found]:
        """Those that are there, each asked once; one that was put back, once more."""
        mine = self._mine()
        found = await self._find()
        older = self._older(found)
        self._noted |= {each.instance.id: each.instance for each in older}
        unasked = [each for each in older if self._asked.get(each.instance.id) != each.generation]
        if not unasked:
            return older
        if self._own(found).instance.state is not State.READY:
            # Whoever is not there itself does not send others away.
            raise RegistryUnavailable("not registered as ready just now")
        version = f" {mine.version}" if mine.version else ""
        retirement = Retirement(reason=f"replaced by{version} {mine.id}", by=f"disco run on {mine.hostname}")

        def change(asked: Asked) -> Asked:
            return asked if asked.retire is not None else replace(asked, retire=retirement)

        for each in unasked:
            try:
                await ask(self._registry, self._keys, mine.service, each.instance.id, change)
            except NotThere:
                continue
            self._asked[each.instance.id] = each.generation
        return older
