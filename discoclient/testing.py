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

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .control.hub import Hub, find_address, fresh_hub
from .control.resolver import Resolver
from .model.instance import Instance, State
from .registry.codec import encode
from .registry.happenings import Phase
from .registry.memory import MemoryRegistry
from .registry.memory_store import MemoryStore, in_range

__all__ = ["TestRegistry", "memory_registry"]

APPLY_TIMEOUT = 5.0
"""Seconds to wait for the callers at most. A watch that just broke is opened anew within 2 (`WatchSettings.backoff_cap`)."""
APPLY_PAUSE = 0.001
"""Seconds between two looks at whether they know."""


class TestRegistry:
    """A registry in memory whose instances are put there by the test. Made by `memory_registry`.

    When a method that changes something returns, every client and handle of this process has the change: the next call goes
    by it. Not while the registry is down (`set_down`), for then nobody can be told.
    """

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
        """Have instances leave as they should: they say that they drain, and are gone."""

        def leave(store: MemoryStore) -> None:
            keys = [self._key(instance) for instance in instances]
            for key, instance in zip(keys, instances, strict=True):
                if store.list(key).entries:
                    value = encode(replace(instance, state=State.DRAINING), hostnames=True)
                    store.put(key, value, lease=store.grant(1e9, 0.0)[0])
            store.delete(*keys)

        self._change(leave)

    def expire(self, *instances: Instance) -> None:
        """Have instances vanish all at once, as when their leases run out.

        Callers mistrust it when most of several vanish together, and keep them as a last resort (``vanish_grace``).
        """
        self._change(lambda store: store.delete(*(self._key(instance) for instance in instances)))

    def compact(self) -> None:
        """Have the registry forget its history."""
        self._change(lambda store: store.compact(store.revision))

    def wipe(self) -> None:
        """Have the registry lose everything and start from revision 1 again, as a new and empty one in its place."""
        self._hub.background.submit(self._wipe()).result()

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
        self._hub.background.submit(self._apply(act)).result()

    # ---- on the background loop, where nobody sees a change half applied

    async def _apply(self, act: Callable[[MemoryStore], object]) -> None:
        """Do it, and wait until all who follow a service that it changed know."""
        registry = self._registry()
        due: dict[Resolver, int] = {}
        stores: list[MemoryStore] = []

        def change(store: MemoryStore) -> None:
            stores.append(store)
            before = store.revision
            act(store)
            changes = [change for batch in store.batches("/", before) for change in batch.changes]
            for resolver, range in self._followers(registry).items():
                revisions = [change.mod_revision for change in changes if in_range(change.key, range)]
                if revisions:  # a change elsewhere does not move this one's revision: nobody would ever tell
                    due[resolver] = revisions[-1]

        await registry.change(change)
        if not registry.is_down:
            (store,) = stores
            # One that is ahead knows a history that a wiped registry does not have any more, and has yet to notice.
            await _wait_until(
                lambda: all(at <= resolver.applied <= store.revision for resolver, at in due.items())
            )

    async def _wipe(self) -> None:
        """A cluster loses its data when it is down, so watches break; that they find less than they knew is how it is noticed.

        Left alone they would wait in silence for revisions that the new history does not have, until they ask by themselves
        (`WatchSettings.silence`).
        """
        registry = self._registry()
        followers = self._followers(registry)
        was_down = registry.is_down
        await registry.set_down(True)
        stores: list[MemoryStore] = []
        await registry.change(stores.append)
        await registry.change(MemoryStore.wipe)
        if not was_down:
            await _wait_until(lambda: all(resolver.phase is not Phase.LIVE for resolver in followers))
            await registry.set_down(False)
            await _wait_until(
                lambda: all(
                    resolver.phase is Phase.LIVE and resolver.applied <= stores[0].revision
                    for resolver in followers
                )
            )

    def _followers(self, registry: MemoryRegistry) -> dict[Resolver, str]:
        """Who follows a service of *registry*, with the range that it follows."""
        with self._hub._lock:
            return {
                resolver: address.keys.service(service)
                for (address, service, override), resolver in self._hub._resolvers.items()
                if override is None and self._hub._registries.get(address) is registry
            }


async def _wait_until(is_so: Callable[[], bool]) -> None:
    """Up to `APPLY_TIMEOUT` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + APPLY_TIMEOUT
    while not is_so() and loop.time() < deadline:  # noqa: ASYNC110 - a resolver tells of changes, not of revisions
        await asyncio.sleep(APPLY_PAUSE)


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
