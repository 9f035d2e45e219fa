"""Where a shared registry's listings, probes and watches come from: `Source`; and `Wellspring`, which asks for all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from ..protocol import Batch, Listing, Probe, Proof, Registry
from .rounds import Rounds
from .tap import Queued, Subscriber, Tap

__all__ = ["Source", "Wellspring"]


class Source(Protocol):
    """The part of a `Registry` that is shared."""

    @property
    def pid(self) -> int:
        """Of the process that asks the registry."""

    async def list(self, range: str) -> Listing:
        """Linearizable, and asked after the call: see `Rounds`."""

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe: ...

    def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]: ...

    def doubt(self, range: str) -> None: ...


class Wellspring:
    """What the lender asks of the registry, for itself and for all who borrow: each thing once."""

    def __init__(self, registry: Registry, *, pid: int) -> None:
        self.pid = pid
        self._registry = registry
        self._rounds = Rounds()
        self._taps: dict[str, Tap] = {}
        self._own: set[tuple[str, Queued]] = set()

    async def list(self, range: str) -> Listing:
        listing = await self._rounds.ask(("list", range), lambda: self._registry.list(range))
        self._note(range, listing.revision)
        return listing

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        async def question() -> Probe:
            probe = await self._registry.probe(range, after=after, is_past=is_past)
            if not is_past and not probe.newest and range in self._taps:
                self._taps[range].vouch(Proof(after, probe))
            return probe

        return await self._rounds.ask(("probe", range, after, is_past), question)

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        mine = Queued()
        self._own.add((range, mine))
        self.join(range, mine, after)
        try:
            async with aclosing(mine.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.leave(range, mine)
            self._own.discard((range, mine))

    def doubt(self, range: str) -> None:
        for watched, mine in tuple(self._own):
            if watched == range:
                self.doubted_by(range, mine)

    def join(self, range: str, subscriber: Subscriber, after: int) -> None:
        if range not in self._taps:
            self._taps[range] = Tap(self._registry, range)
        self._taps[range].join(subscriber, after)

    def leave(self, range: str, subscriber: Subscriber) -> None:
        tap = self._taps.get(range)
        if tap is not None:
            tap.leave(subscriber)
            if tap.is_idle:
                del self._taps[range]

    def doubted_by(self, range: str, subscriber: Subscriber) -> None:
        if range in self._taps:
            self._taps[range].doubt(subscriber)

    def close(self) -> None:
        self._rounds.close()
        for tap in list(self._taps.values()):
            tap.close()

    def _note(self, range: str, revision: int) -> None:
        if range in self._taps:
            self._taps[range].note(revision)
