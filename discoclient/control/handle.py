"""Looking at a registry: `connect` gives a handle."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from ..model.instance import ID_PATTERN, SERVICE_PATTERN, Instance, check_service
from ..model.policy import check_seconds
from ..model.snapshot import Snapshot
from ..registry.address import RegistryAddress
from ..registry.protocol import MemberStatus
from .hub import Hub, find_address, hub, is_current
from .resolver import Resolver

__all__ = ["RegistryHandle", "connect"]


class RegistryHandle:
    """A look at a registry, for tools and for people. A context manager. Safe to use from several threads.

    What it looks at is followed from the first look until `close`, so a second look costs nothing. In a forked child it
    looks anew.
    """

    def __init__(
        self, address: RegistryAddress, shared: Hub, discovery_timeout: float, *, is_caller: bool = False
    ) -> None:
        """*is_caller*: look through the eyes of this process's clients, and be announced as they are."""
        self._address = address
        self._is_caller = is_caller
        self._timeout = discovery_timeout
        self._is_closed = False
        self._begin(shared)

    def __repr__(self) -> str:
        return f"<RegistryHandle {self._address}>"

    @property
    def address(self) -> RegistryAddress:
        """The registry's, parsed. Its text has no password in it."""
        return self._address

    def services(self) -> list[str]:
        """The names of the services that have an instance, in any state. Asks the registry. Raises `RegistryError`.

        It asks for keys only: one with a lease, a valid name and a valid id counts, whatever its value holds.
        """
        self._check_open()
        prefix = self._address.keys.all_services
        shared = self._own_hub()
        keys = shared.background.run(shared.registry(self._address).children(prefix))
        pairs = (key[len(prefix) :].partition("/") for key in keys)
        return sorted(
            {
                service
                for service, _, id in pairs
                if SERVICE_PATTERN.fullmatch(service) and ID_PATTERN.fullmatch(id)
            }
        )

    def instances(self, service: str) -> list[Instance]:
        """All instances of *service*, in all states, ordered by id. Raises `DiscoveryTimeout` if nothing is known in time."""
        return list(self.snapshot(service).instances)

    def snapshot(self, service: str) -> Snapshot:
        """The newest snapshot of *service*. Raises `DiscoveryTimeout` if nothing is known of it in time."""
        resolver = self._resolver(service)
        resolver.wait(lambda: resolver.snapshot is not None or resolver.refusal is not None, self._timeout)
        if resolver.snapshot is None:
            raise resolver.timed_out(self._timeout)
        return resolver.snapshot

    def watch(self, service: str) -> Iterator[Snapshot]:
        """The present snapshot of *service* at once, then every newer one, until the handle is closed.

        A reader that is slow gets the newest and misses what was between. Raises `DiscoveryTimeout` as `snapshot` does.
        """
        latest = yield from self._follow(service, None)
        while not self._is_closed:  # in a forked child
            latest = yield from self._follow(service, latest)

    def age(self, service: str) -> float | None:
        """Seconds since the registry last proved that what we know of *service* was all there is; ``None`` if never."""
        return self._resolver(service).age()

    def resolver(self, service: str) -> Resolver:
        """The resolver behind the looks at *service*, for tools that ask for more."""
        return self._resolver(service)

    def members(self) -> tuple[MemberStatus, ...]:
        """What each member of the registry says of itself; empty for a registry without members."""
        self._check_open()
        shared = self._own_hub()
        return shared.background.run(shared.registry(self._address).status())

    def close(self) -> None:
        """Stop looking. An iterator of `watch` ends."""
        self._is_closed = True
        if self._pid == os.getpid():  # else they are the parent's, and so may be whoever holds their locks
            for resolver in list(self._resolvers.values()):
                resolver.wake()
        _release(self._hub, self._resolvers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, shared: Hub) -> None:
        self._hub = shared
        self._resolvers: dict[str, Resolver] = {}
        self._pid = os.getpid()
        weakref.finalize(self, _release, shared, self._resolvers).atexit = False

    def _own_hub(self) -> Hub:
        """The hub to use: another one after a fork, for what the parent had is not ours."""
        if self._pid != os.getpid():
            shared = hub()
            with shared.routing:
                if self._pid != os.getpid():
                    self._begin(shared)
        return self._hub

    def _resolver(self, service: str) -> Resolver:
        shared = self._own_hub()
        with shared.routing:  # not a lock of our own, which a thread of the parent may have held at the fork
            self._check_open()
            found = self._resolvers.get(check_service(service))
            if found is None:
                found = shared.acquire(
                    self._address, service, discovery_timeout=self._timeout, is_caller=self._is_caller
                )
                self._resolvers[service] = found
            return found

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("this handle is closed")

    def _follow(self, service: str, latest: Snapshot | None) -> Generator[Snapshot, None, Snapshot | None]:
        """What is newer than *latest*, until the handle is closed, or the reader finds itself in a forked child."""
        resolver, pid = self._resolver(service), os.getpid()
        newest: Snapshot | None = self.snapshot(service)
        changed = threading.Event()
        unsubscribe = resolver.subscribe(changed.set)
        try:
            while not self._is_closed:
                if newest is not None and newest is not latest:
                    latest = newest
                    yield latest
                    if pid != os.getpid():
                        break
                else:
                    changed.wait()
                    changed.clear()
                newest = resolver.snapshot
        finally:
            if pid == os.getpid():
                unsubscribe()
        return latest


def _release(shared: Hub, resolvers: dict[str, Resolver]) -> None:
    while resolvers and is_current(shared):
        shared.release(resolvers.popitem()[1])


def connect(registry: str | None = None, *, discovery_timeout: float = 5.0) -> RegistryHandle:
    """A handle on the registry at URL *registry* (default: ``$DISCO_REGISTRY``, else ``etcd://127.0.0.1:2379``).

    No I/O yet. *discovery_timeout* is how many seconds a look may wait for the first knowledge. Raises `ConfigError`.
    """
    check_seconds("discovery_timeout", discovery_timeout)
    return RegistryHandle(find_address(registry), hub(), discovery_timeout)
