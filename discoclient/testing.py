"""For testing code that uses the SDK, without etcd.

::

    from discoclient import DiscoClient
    from discoclient.testing import memory_registry

    with memory_registry() as registry:
        registry.add("experiment", port=server.port)
        assert DiscoClient("experiment").get("/users/1").status_code == 200

The pytest fixture ``disco_registry`` is the same.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .control.hub import Hub, find_address, fresh_hub
from .model.instance import Instance, State
from .registry.codec import encode
from .registry.memory import MemoryRegistry
from .registry.memory_store import MemoryStore

__all__ = ["TestRegistry", "memory_registry"]


class TestRegistry:
    """A registry in memory whose instances are put there by the test. Made by `memory_registry`."""

    __test__ = False  # for pytest, which takes every class of this name for tests

    def __init__(self, hub: Hub, url: str) -> None:
        self._hub = hub
        self._address = find_address(url)
        self.url = url
        """The registry's URL; ``$DISCO_REGISTRY`` holds it too."""

    def add(self, service: str, port: int, *, host: str = "127.0.0.1", **fields: Any) -> Instance:
        """Register an instance that stays until it is removed. *fields* are those of `Instance`."""
        instance = Instance(service=service, id=uuid.uuid4().hex, host=host, port=port)
        return self.put(replace(instance, **fields))

    def put(self, instance: Instance) -> Instance:
        """Put the record of *instance*, new or changed."""
        key, value = self._key(instance), encode(instance, hostnames=True)
        self._change(lambda store: store.put(key, value, lease=store.grant(1e9, 0.0)[0]))
        return instance

    def put_raw(self, key: str, value: bytes, *, has_lease: bool = True) -> None:
        """Put any value at any key, as a broken or foreign writer would."""
        self._change(lambda store: store.put(key, value, lease=store.grant(1e9, 0.0)[0] if has_lease else 0))

    def drain(self, instance: Instance) -> Instance:
        """Have *instance* say that it is leaving."""
        return self.put(replace(instance, state=State.DRAINING))

    def remove(self, *instances: Instance) -> None:
        """Remove instances, all at once, as when their leases expire."""
        keys = [self._key(instance) for instance in instances]
        self._change(lambda store: store.delete(*keys))

    def compact(self) -> None:
        """Have the registry forget its history."""
        self._change(lambda store: store.compact(store.revision))

    def wipe(self) -> None:
        """Have the registry lose everything and start from revision 1 again."""
        self._change(lambda store: store.wipe())

    def set_down(self, is_down: bool) -> None:
        """Make the registry unreachable, or reachable again."""
        self._hub.background.submit(self._registry().set_down(is_down)).result()

    def _key(self, instance: Instance) -> str:
        return self._address.keys.instance(instance.service, instance.id)

    def _registry(self) -> MemoryRegistry:
        registry = self._hub.registry(self._address)
        assert isinstance(registry, MemoryRegistry)
        return registry

    def _change(self, act: Callable[[MemoryStore], object]) -> None:
        self._hub.background.submit(self._registry().change(act)).result()


@contextmanager
def memory_registry() -> Iterator[TestRegistry]:
    """A new, empty registry in memory; clients and registrations made inside the block use it by default.

    Nothing that was discovered before is seen inside, and nothing of it is left afterwards.
    """
    url = f"memory://{uuid.uuid4().hex}"
    before = os.environ.get("DISCO_REGISTRY")
    os.environ["DISCO_REGISTRY"] = url
    try:
        with fresh_hub() as hub:
            yield TestRegistry(hub, url)
    finally:
        if before is None:
            del os.environ["DISCO_REGISTRY"]
        else:
            os.environ["DISCO_REGISTRY"] = before
