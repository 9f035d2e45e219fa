"""What a process shares: the background loop, one connection per registry, one resolver per service.

Nothing of it survives a fork. The child's first use makes everything anew; what it inherited is kept and never touched:
its loop's epoll and its sockets are the parent's too, and closing them there would hurt the parent.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from time import monotonic
from typing import Any

from ..model.errors import ConfigError
from ..model.instance import Instance, check_service
from ..model.policy import check_seconds
from ..registry.address import DEFAULT_REGISTRY, RegistryAddress, parse_override
from ..registry.happenings import WatchSettings
from ..registry.memory import MemoryRegistry
from ..registry.memory_store import MemoryStore
from ..registry.protocol import Registry
from ..registry.static import StaticRegistry
from .background import Background
from .presence import PresenceKeeper
from .resolver import Resolver

__all__ = ["Hub", "find_address", "find_override", "fresh_hub", "hub", "is_current"]

LINGER = 60.0
"""Seconds that a service is still watched after its last client is gone: clients made per call come back."""
EXIT_TIMEOUT = 0.6
"""Seconds that an exiting process may take to give its leases back."""


def find_address(registry: str | None) -> RegistryAddress:
    """The address of *registry*, else of ``$DISCO_REGISTRY``, else of ``etcd://127.0.0.1:2379``."""
    return RegistryAddress.parse(registry or os.environ.get("DISCO_REGISTRY") or DEFAULT_REGISTRY)


def find_override(service: str) -> Instance | None:
    """The fixed instance that ``$DISCO_OVERRIDE_<SERVICE>`` names, if it is set."""
    url = os.environ.get(f"DISCO_OVERRIDE_{check_service(service).upper().replace('-', '_')}")
    return parse_override(service, url) if url else None


class Hub:
    """One per process; `hub` gives it."""

    def __init__(self, *, settings: WatchSettings | None = None, linger: float = LINGER) -> None:
        self.background = Background()
        self.id = uuid.uuid4().hex
        """This process's, among the callers of a service."""
        self.kind = "sdk"
        """What this process is for those who drain: ``sdk`` or ``sidecar``. To be set before it calls anybody."""
        self.rng = Random()
        self.settings = settings or WatchSettings()
        self._linger = check_seconds("linger", linger, zero=True)
        self.routing = threading.Lock()
        """Held by a client while it makes a route. Unlike a lock of the client's own, it is a new one after a fork."""
        self._lock = threading.Lock()
        self._registries: dict[RegistryAddress, Registry] = {}
        self._presences: dict[RegistryAddress, PresenceKeeper] = {}
        self._memories: dict[str, MemoryRegistry] = {}  # one store for each name, whatever the URL's options
        self._resolvers: dict[tuple[RegistryAddress, str, Instance | None], Resolver] = {}
        self._tasks: dict[Resolver, asyncio.Task[None]] = {}
        self._unused: dict[Resolver, float] = {}  # until when each is kept all the same
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._is_closed = False

    def registry(self, address: RegistryAddress) -> Registry:
        """The connection to *address*, opened on first use; no I/O yet. Raises `ConfigError` when it can't work."""
        with self._lock:
            self._check_open()
            return self._registry(address)

    def acquire(
        self,
        address: RegistryAddress,
        service: str,
        *,
        discovery_timeout: float = 5.0,
        is_caller: bool = False,
    ) -> Resolver:
        """The resolver of *service*, for one more user. Give it back with `release`.

        *is_caller*: requests are sent by it. One that only looks may share a caller's resolver; a caller needs one that was
        announced before it knew anything.

        While nothing is known it takes one member's word when no quorum answers within half of *discovery_timeout* seconds.
        """
        override = find_override(service)
        key = (address, service, override)
        with self._lock:
            resolver = self._resolvers.get(key)
            if resolver is None or (
                is_caller and resolver.presence is None and self._needs_presence(address, override)
            ):
                self._check_open()
                fixed = StaticRegistry({service: [override]}, address.keys) if override else None
                resolver = Resolver(
                    service,
                    registry=fixed or self._registry(address),
                    keys=address.keys,
                    hostnames=address.hostnames or override is not None or address.scheme == "static",
                    settings=replace(self.settings, stale_after=discovery_timeout / 2),
                    clock=monotonic,
                    rng=self.rng,
                    post=self.background.post,
                    check=self.background.check_elsewhere,
                    presence=self._presence(address)
                    if is_caller and self._needs_presence(address, override)
                    else None,
                )
                self._resolvers[key] = resolver
                self.background.submit(self._start(resolver))
            elif resolver.snapshot is None:
                self.background.post(resolver.hasten, discovery_timeout / 2)
            resolver.users += 1
            return resolver

    def release(self, resolver: Resolver, *shared: Hashable) -> None:
        """One user less, of it and of what it has to share under these keys. Safe from a finalizer: it takes no lock here."""
        self.background.post(self._release, resolver, shared)

    def at_close(self, closer: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Have *closer* awaited on the background loop when the process ends, unless the function returned is called."""
        self._closers.append(closer)

        def forget() -> None:
            if closer in self._closers:
                self._closers.remove(closer)

        return forget

    def close(self, timeout: float = EXIT_TIMEOUT) -> None:
        """End in order: registrations, resolvers, connections, the loop. Bounded by *timeout* seconds.

        Threads of an application that are still calling when the interpreter exits go on with what is known.
        """
        with self._lock:
            self._is_closed = True
        if not self.background.is_running:
            return
        deadline = monotonic() + timeout
        try:
            self.background.submit(self._aclose(timeout * 0.7)).result(timeout * 0.8)
        except Exception:
            pass
        self.background.stop(max(0.1, deadline - monotonic()))

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("discoclient can't be used any more: the interpreter is shutting down")

    def _registry(self, address: RegistryAddress) -> Registry:
        if address not in self._registries:
            self._registries[address] = self._open(address)
        return self._registries[address]

    def _needs_presence(self, address: RegistryAddress, override: Instance | None) -> bool:
        return override is None and address.presence and address.scheme != "static"

    def _presence(self, address: RegistryAddress) -> PresenceKeeper:
        if address not in self._presences:
            self._presences[address] = PresenceKeeper(
                self._registry(address),
                address.keys,
                clock=monotonic,
                rng=self.rng,
                spawn=self.background.spawn,
                kind=self.kind,
            )
        return self._presences[address]

    def _open(self, address: RegistryAddress) -> Registry:
        if address.scheme == "static":
            return StaticRegistry(address.services, address.keys)
        if address.scheme == "memory":
            return self._memories.setdefault(address.name, MemoryRegistry(MemoryStore(), clock=monotonic))
        from ..registry.etcd import messages

        messages.check_distributions()
        try:
            from ..registry.etcd.registry import EtcdRegistry

            own = EtcdRegistry(address, rng=self.rng)
        except ImportError as error:
            raise ConfigError(f"the etcd registry can't be loaded: {error}") from error
        if not address.share:
            return own
        from ..registry.sharing.registry import SharedRegistry

        return SharedRegistry(own, address, rng=self.rng)

    # ---- on the background loop

    async def _start(self, resolver: Resolver) -> None:
        self._tasks[resolver] = self.background.spawn(resolver.run())

    def _release(self, resolver: Resolver, shared: tuple[Hashable, ...]) -> None:
        resolver.give_back(*shared)
        with self._lock:
            resolver.users -= 1
        if not resolver.users:
            loop, is_timed = asyncio.get_running_loop(), resolver in self._unused
            self._unused[resolver] = loop.time() + self._linger
            if not is_timed:  # one timer for each, however many clients come and go meanwhile
                loop.call_at(self._unused[resolver], self._collect, resolver)

    def _collect(self, resolver: Resolver) -> None:
        loop, due = asyncio.get_running_loop(), self._unused[resolver]
        if due > loop.time():  # used again since
            loop.call_at(due, self._collect, resolver)
            return
        del self._unused[resolver]
        with self._lock:
            if resolver.users or resolver not in self._tasks:
                return
            self._resolvers = {key: found for key, found in self._resolvers.items() if found is not resolver}
        self._tasks.pop(resolver).cancel()
        resolver.close()
        if resolver.presence is not None:
            resolver.presence.leave(resolver.service)

    async def _aclose(self, timeout: float) -> None:
        closers = [*self._closers, *(presence.close for presence in self._presences.values())]
        self._closers = []
        if closers:
            closing = [asyncio.ensure_future(closer()) for closer in closers]
            await asyncio.wait(closing, timeout=timeout)
        for resolver, task in self._tasks.items():
            task.cancel()
            resolver.close_shared()
        for registry in self._registries.values():
            await registry.aclose()


_hub: Hub | None = None
_lock = threading.Lock()
_abandoned: list[Hub] = []


def hub() -> Hub:
    """This process's hub."""
    global _hub
    found = _hub
    if found is None:
        with _lock:
            if _hub is None:
                _hub = Hub()
            found = _hub
    return found


def is_current(found: Hub | None) -> bool:
    """Whether *found* is this process's hub, and not one inherited by a fork. Makes none; safe from a finalizer."""
    return found is not None and found is _hub


@contextmanager
def fresh_hub(**options: Any) -> Iterator[Hub]:
    """For tests: a hub of its own while the block lasts, closed at its end. *options* are `Hub`'s."""
    global _hub
    before, _hub = _hub, Hub(**options)
    mine = _hub
    try:
        yield mine
    finally:
        if _hub is mine:  # not in a child that was forked inside the block
            _hub = before
            mine.close(timeout=5.0)


def _abandon() -> None:
    global _hub, _lock
    _lock = threading.Lock()
    if _hub is not None:
        _abandoned.append(_hub)
        _hub = None


def _close_at_exit() -> None:
    if _hub is not None:
        _hub.close()


os.register_at_fork(after_in_child=_abandon)
atexit.register(_close_at_exit)
