"""The same script of operations, played against any registry; what can be seen of it, revisions counted from the start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from discoclient.model.errors import LeaseExpired, RevisionCompacted
from discoclient.registry.protocol import Batch, Deletion, Entry, Lease, Put, Registry

__all__ = ["Op", "Player", "play"]

Op: TypeAlias = tuple[Any, ...]


@dataclass
class Player:
    """Plays operations on the keys below *base*, and writes down what it sees.

    Leases are known by the order in which they were granted, revisions by their distance from the first one: so two
    registries that behave alike leave the same record.
    """

    registry: Registry
    base: str
    compact: Callable[[int], Any]
    seen: list[Any] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    zero: int = 0
    last: dict[str, int] = field(default_factory=dict)
    noted: Entry | None = None

    async def play(self, script: Sequence[Op]) -> list[Any]:
        self.zero = (await self.registry.list(self.base)).revision
        for op in script:
            try:
                self.seen.append((op[0], await getattr(self, op[0])(*op[1:])))
            except (LeaseExpired, RevisionCompacted) as error:
                self.seen.append((op[0], type(error).__name__))
        self.seen.append(("list", await self.list("")))
        self.seen.append(("history", await self.history()))
        return self.seen

    async def grant(self) -> str:
        self.leases.append(await self.registry.grant(600))
        return "granted"

    async def put(self, key: str, value: bytes, lease: int, expectation: str) -> Any:
        if not self.leases:
            return "no lease yet"
        known = self.last.get(key, 0)
        expected = {"absent": 0, "known": known, "wrong": known + 1, "whatever": None}[expectation]
        held = self.leases[lease % len(self.leases)]
        put = await self.registry.put(self.base + key, value, lease=held, expected=expected)
        if put.is_done:
            self.last[key] = put.revision
        elif put.present is not None:
            self.last[key] = put.present.mod_revision
        else:
            self.last.pop(key, None)
        return self._put(put)

    async def note(self, key: str) -> Any:
        """Remember what stands at *key*, for `attach`."""
        entries = (await self.registry.list(self.base + key)).entries
        self.noted = entries[0] if entries and entries[0].lease else self.noted
        return [self._entry(entry) for entry in entries]

    async def attach(self, key: str, value: bytes, expectation: str) -> Any:
        """To what was noted last, whatever became of it since."""
        if self.noted is None:
            return "nothing noted yet"
        if self.noted.key == self.base + key:
            return "not to itself"
        known = self.last.get(key, 0)
        expected = {"absent": 0, "known": known, "wrong": known + 1}[expectation]
        put = await self.registry.attach(self.noted, self.base + key, value, expected=expected)
        if put.is_done:
            self.last[key] = put.revision
        return self._put(put)

    async def delete(self, key: str) -> str:
        await self.registry.delete(self.base + key)
        self.last.pop(key, None)
        return "deleted"

    async def revoke(self, lease: int) -> str:
        if self.leases:
            await self.leases[lease % len(self.leases)].revoke()
        return "revoked"

    async def renew(self, lease: int) -> Any:
        return await self.leases[lease % len(self.leases)].renew() if self.leases else "no lease yet"

    async def list(self, key: str) -> Any:
        listing = await self.registry.list(self.base + key)
        return listing.revision - self.zero, [self._entry(entry) for entry in listing.entries]

    async def children(self, key: str) -> Any:
        return [found.removeprefix(self.base) for found in await self.registry.children(self.base + key)]

    async def probe(self, back: int) -> Any:
        now = (await self.registry.list(self.base)).revision
        after = max(self.zero, now - back)
        return [
            (
                probe.revision - self.zero,
                probe.newest > after,
                probe.count,
                probe.last and self._entry(probe.last),
            )
            for probe in (
                await self.registry.probe(self.base, after=after),
                await self.registry.probe(self.base, after=after, is_past=True),
            )
        ]

    async def forget(self) -> str:
        """Compact up to now, with what there is of history to be asked for afterwards."""
        now = (await self.registry.list(self.base)).revision
        if now == self.zero:
            return "nothing to forget"
        await asyncio.to_thread(self.compact, now)
        return "forgotten"

    async def history(self) -> Any:
        """Everything since the start, as a watch delivers it; or that it is gone."""
        now = (await self.registry.list(self.base)).revision
        watch = self.registry.watch(self.base, after=self.zero)
        changes: list[Any] = []
        try:
            opening = await anext(watch)
            assert not opening.changes
            while True:
                batch = await _next(watch)
                if batch is None:
                    break
                changes += [self._change(change) for change in batch.changes]
                if batch.revision >= now:
                    break
        except RevisionCompacted:
            return "compacted"
        finally:
            await watch.aclose()  # type: ignore[attr-defined]
        return changes

    def _put(self, put: Put) -> Any:
        return put.is_done, put.revision - self.zero, put.present and self._entry(put.present)

    def _entry(self, entry: Entry) -> Any:
        leases = [lease.id for lease in self.leases]
        return (
            entry.key.removeprefix(self.base),
            entry.value,
            entry.create_revision - self.zero,
            entry.mod_revision - self.zero,
            leases.index(entry.lease) if entry.lease else None,
        )

    def _change(self, change: Entry | Deletion) -> Any:
        if isinstance(change, Deletion):
            return "-", change.key.removeprefix(self.base), change.mod_revision - self.zero
        return "+", *self._entry(change)


async def _next(watch: AsyncIterator[Batch]) -> Batch | None:
    """The next batch; ``None`` if nothing comes for so long that nothing will."""
    try:
        return await asyncio.wait_for(anext(watch), 0.3)
    except TimeoutError:
        return None


async def play(
    registry: Registry, base: str, compact: Callable[[int], Any], script: Sequence[Op]
) -> list[Any]:
    return await Player(registry, base, compact).play(script)
