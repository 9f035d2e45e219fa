"""``?share=1``: a registry whose services are watched once for all processes of this user on this host."""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType

from ...model.errors import RegistryError, RegistryUnavailable, RevisionCompacted
from ...model.instance import SERVICE_PATTERN
from ..address import RegistryAddress
from ..protocol import Batch, Entry, Lease, Listing, MemberStatus, Probe, Put, Registry
from .link import Link, LinkSettings
from .place import Place, default_folder
from .source import Source, Wellspring

__all__ = ["SharedRegistry"]


class SharedRegistry:
    """A `Registry`: who is in a service comes from the process that lends, or from *own*, and all else from *own*.

    What the lender can't do, *own* does; so sharing can fail in any way, and costs no more than not to share.
    """

    def __init__(
        self,
        own: Registry,
        address: RegistryAddress,
        *,
        rng: Random,
        folder: Path | None = None,
        settings: LinkSettings | None = None,
    ) -> None:
        self.own = own
        self._services = address.keys.all_services
        self._link = Link(
            own,
            Place(address, folder or default_folder()),
            is_shared=self._is_shared,
            pid=os.getpid(),
            rng=rng,
            settings=settings or LinkSettings(),
        )

    @property
    def standing(self) -> str:
        """Whether this process lends, borrows or goes alone, in words."""
        return self._link.standing

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        source = None if serializable else await self._source(range)
        if source is None:
            return await self.own.list(range, serializable=serializable)
        try:
            return await source.list(range)
        except RegistryError as error:
            if isinstance(source, Wellspring):
                raise
            listing = await self.own.list(range)
            self._link.distrust(source, error, range)  # only now: perhaps nobody can reach the registry
            return listing

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        source = await self._source(range)
        if source is None:
            return await self.own.probe(range, after=after, is_past=is_past)
        try:
            return await source.probe(range, after=after, is_past=is_past)
        except RegistryError as error:
            if isinstance(source, Wellspring) or isinstance(error, RevisionCompacted):
                raise
            probe = await self.own.probe(range, after=after, is_past=is_past)
            self._link.distrust(source, error, range)
            return probe

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        source = await self._source(range)
        if source is not None:
            is_open = False
            try:
                async for batch in source.watch(range, after=after):
                    if not is_open:
                        self._link.trust(source)
                        is_open = True
                    yield batch
            except RegistryError as error:
                # A watch that breaks is opened anew by who reads it, and then it is seen whether the lender can.
                if is_open or isinstance(source, Wellspring) or isinstance(error, RevisionCompacted):
                    raise
                self._link.distrust(source, error, range)
        if not self._is_shared(range):
            async for batch in self.own.watch(range, after=after):
                yield batch
        async for batch in self._until_shared(self.own.watch(range, after=after)):
            yield batch

    async def look(self) -> str:
        """Who lends on this host, in words, without taking part."""
        return await self._link.look()

    def doubt(self, range: str) -> None:
        """See `Doubtable`."""
        self._link.doubt(range)

    async def children(self, range: str) -> tuple[str, ...]:
        return await self.own.children(range)

    async def grant(self, ttl: float) -> Lease:
        return await self.own.grant(ttl)

    async def put(self, key: str, value: bytes, *, lease: Lease, expected: int | None) -> Put:
        return await self.own.put(key, value, lease=lease, expected=expected)

    async def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        return await self.own.attach(entry, key, value, expected=expected, unchanged=unchanged)

    async def delete(self, key: str) -> None:
        await self.own.delete(key)

    async def status(self) -> tuple[MemberStatus, ...]:
        return await self.own.status()

    async def aclose(self) -> None:
        await self._link.close()
        await self.own.aclose()

    async def _source(self, range: str) -> Source | None:
        return await self._link.source() if self._is_shared(range) else None

    def _is_shared(self, range: str) -> bool:
        """Whether it is all of one service: what callers watch, and the many of them."""
        if not range.startswith(self._services) or not range.endswith("/"):
            return False
        return SERVICE_PATTERN.fullmatch(range[len(self._services) : -1]) is not None

    async def _until_shared(self, stream: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        """Our own watch, until it is not needed: who reads it comes again then, and sees by itself that it missed nothing."""
        moved = asyncio.ensure_future(self._link.moved_from(None))
        step: asyncio.Future[Batch] | None = None
        try:
            while True:
                step = asyncio.ensure_future(builtins.anext(stream))
                await asyncio.wait([step, moved], return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    raise RegistryUnavailable("the watch is shared from now on")
                yield step.result()
        finally:
            for task in (step, moved):
                if task is not None:
                    task.cancel()
            await asyncio.wait([task for task in (step, moved) if task is not None])
