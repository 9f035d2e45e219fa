"""A registry in memory with instances that are written as instances write themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from discoclient.model.instance import Instance
from discoclient.registry.asked import Asked, decode_asked
from discoclient.registry.codec import encode
from discoclient.registry.keys import Keys
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Lease

__all__ = ["KEYS", "Scene", "Standing"]

KEYS = Keys()


@dataclass
class Standing:
    """An instance that stands in the registry, under a lease of its own."""

    scene: Scene
    instance: Instance
    lease: Lease

    @property
    def id(self) -> str:
        return self.instance.id

    async def write(self, **fields: Any) -> Standing:
        self.instance = replace(self.instance, **fields)
        key, value = KEYS.instance("web", self.id), encode(self.instance)
        await self.scene.registry.put(key, value, lease=self.lease, expected=None)
        return self

    async def leave(self) -> None:
        await self.lease.revoke()

    @property
    def asked(self) -> Asked:
        entries = self.scene.store.list(KEYS.control("web", self.id)).entries
        return decode_asked(entries[0].value) if entries else Asked()


class Scene:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.registry = MemoryRegistry(self.store, clock=lambda: 0.0)

    async def add(self, name: str, **fields: Any) -> Standing:
        """An instance on host web-3 in slot 0, unless *fields* say otherwise. *name* is repeated to make its id."""
        fields = {"hostname": "web-3", "version": name, **fields}
        instance = Instance(service="web", id=name * 8, host="127.0.0.1", port=80, **fields)
        return await Standing(self, instance, await self.registry.grant(60)).write()
