"""``static://...`` and the per-service override: a fixed set of addresses, for a laptop or CI without etcd."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType

from ..model.errors import RegistryError
from ..model.instance import NAMELESS, Instance
from .codec import encode
from .keys import Keys
from .memory_store import in_range
from .protocol import Batch, Entry, Lease, Listing, MemberStatus, Probe, Put

__all__ = ["FIXED", "StaticRegistry", "fixed_instance"]

FIXED = "a static registry is fixed: nothing can be registered there; use etcd://... or memory://..."


def fixed_instance(service: str, *, scheme: str, host: str, port: int) -> Instance:
    """An instance at a fixed address. Its id follows from the address, so it stays the same across processes."""
    digest = hashlib.blake2b(f"{scheme}://{host}:{port}".encode(), digest_size=6).hexdigest()
    return Instance(service=service, id=f"{NAMELESS}{digest}", scheme=scheme, host=host, port=port)


class StaticRegistry:
    """A registry that holds *instances* (by service) and never changes."""

    def __init__(self, instances: Mapping[str, Iterable[Instance]], keys: Keys) -> None:
        values = {  # by key: an address that is named twice is one instance
            keys.instance(service, instance.id): encode(instance, hostnames=True)
            for service, members in sorted(instances.items())
            for instance in members
        }
        self._entries = tuple(Entry(key, value, 1, 1, 1) for key, value in values.items())

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        return Listing(1, tuple(entry for entry in self._entries if in_range(entry.key, range)))

    async def children(self, range: str) -> tuple[str, ...]:
        return tuple(entry.key for entry in (await self.list(range)).entries)

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        yield Batch(1)
        await asyncio.get_running_loop().create_future()

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        entries = (await self.list(range)).entries
        return Probe(1, 0, len(entries), entries[0] if entries else None)

    async def grant(self, ttl: float) -> Lease:
        raise RegistryError(FIXED)

    async def put(self, key: str, value: bytes, *, lease: Lease, expected: int | None) -> Put:
        raise RegistryError(FIXED)

    async def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        raise RegistryError(FIXED)

    async def delete(self, key: str) -> None:
        raise RegistryError(FIXED)

    async def status(self) -> tuple[MemberStatus, ...]:
        return ()

    async def aclose(self) -> None:
        pass
