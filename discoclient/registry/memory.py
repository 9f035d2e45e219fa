"""``memory://name``: a registry inside this process, for tests, docs and a first look. It behaves as etcd does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from ..model.errors import RegistryUnavailable
from .memory_store import MemoryStore
from .protocol import Batch, Entry, Listing, MemberStatus, Probe, Put
from .protocol import Lease as LeaseProtocol

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """A `MemoryStore` served on one event loop. Several registries may serve the same store, one per connection.

    ``is_down`` makes every call fail and every watch break, as if no member could be reached.
    """

    def __init__(self, store: MemoryStore, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._changed = asyncio.Condition()
        self._timer: asyncio.TimerHandle | None = None
        self._is_down = False

    @property
    def is_down(self) -> bool:
        return self._is_down

    async def set_down(self, is_down: bool) -> None:
        self._is_down = is_down
        await self._announce()

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        self._check()
        return self._store.list(range)

    async def children(self, range: str) -> tuple[str, ...]:
        self._check()
        return tuple(entry.key for entry in self._store.list(range).entries if entry.lease)

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        self._check()
        seen = after
        yield Batch(self._store.revision)
        while True:
            newest = self._store.revision
            for batch in tuple(self._store.batches(range, seen)):
                yield batch  # much may happen before the reader comes back: what is newer is asked for below
            if newest < seen:
                seen = after  # a wiped store: as with etcd, a revision of the future is waited for in silence
            seen = max(seen, newest)
            await self._change_from(newest)
            self._check()

    async def _change_from(self, revision: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_down or self._store.revision != revision)

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        self._check()
        return self._store.probe(range, after, is_past=is_past)

    async def grant(self, ttl: float) -> LeaseProtocol:
        self._check()
        id, granted = self._store.grant(ttl, self._clock())
        self._arm()
        return _MemoryLease(self, id, granted)

    async def put(self, key: str, value: bytes, *, lease: LeaseProtocol, expected: int | None) -> Put:
        self._check()
        put = self._store.put(key, value, lease=lease.id, expected=expected)
        await self._announce()
        return put

    async def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        self._check()
        put = self._store.attach(entry, key, value, expected=expected, unchanged=unchanged)
        await self._announce()
        return put

    async def delete(self, key: str) -> None:
        self._check()
        self._store.delete(key)
        await self._announce()

    async def status(self) -> tuple[MemberStatus, ...]:
        return ()

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def change(self, act: Callable[[MemoryStore], object]) -> None:
        """Do something to the store that only an operator or an accident would do, and let the watchers see it."""
        act(self._store)
        await self._announce()

    async def _renew(self, lease: int) -> float:
        self._check()
        return self._store.renew(lease, self._clock())

    async def _revoke(self, lease: int) -> None:
        self._check()
        self._store.revoke(lease)
        await self._announce()

    def _check(self) -> None:
        if self._is_down:
            raise RegistryUnavailable("the memory registry is down")
        self._expire()

    def _arm(self) -> None:
        """Let leases expire by themselves, without anybody asking."""
        if self._timer is not None:
            self._timer.cancel()
        due = self._expire()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, due - self._clock()) + 0.001, self._arm
            )

    def _expire(self) -> float | None:
        """End the leases whose time is over, and let the watchers see it; when the next one will be."""
        before = self._store.revision
        due = self._store.expire(self._clock())
        if self._store.revision != before:
            self._announcement = asyncio.ensure_future(self._announce())
        return due

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _MemoryLease:
    def __init__(self, registry: MemoryRegistry, id: int, ttl: float) -> None:
        self._registry = registry
        self.id = id
        self.ttl = ttl

    async def renew(self) -> float:
        return await self._registry._renew(self.id)

    async def revoke(self) -> None:
        await self._registry._revoke(self.id)
