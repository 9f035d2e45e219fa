"""A service: real servers that are registered in memory, and what the process has learnt about them."""

from __future__ import annotations

from typing import Any

from discoclient import Endpoint, Instance, RegistryHandle, State
from discoclient.balancing.preferences import Preferences
from discoclient.testing import TestRegistry
from tests.support.eventually import eventually
from tests.support.servers import Behaviour, HttpServer, Servers

__all__ = ["Fleet"]


class Fleet:
    """Instances of ``experiment``, unless another *service* is named. What changes is known here when a method returns."""

    def __init__(self, servers: Servers, registry: TestRegistry, handle: RegistryHandle) -> None:
        self.servers = servers
        self.registry = registry
        self.handle = handle
        self._instances: dict[HttpServer, Instance] = {}

    def add(
        self,
        behaviour: Behaviour | None = None,
        *,
        service: str = "experiment",
        server: dict[str, Any] | None = None,
        **fields: Any,
    ) -> HttpServer:
        """Start a server (*server*: options of `Servers.start`) and register it; *fields* are the instance's."""
        started = self.servers.start(behaviour, **(server or {}))
        if started.tls is not None:
            fields.setdefault("scheme", "https")
        self._instances[started] = instance = self.registry.add(service, started.port, **fields)
        self._settle(instance)
        return started

    def register(self, service: str = "experiment", *, port: int, **fields: Any) -> Instance:
        """Register an address where no server of ours is."""
        instance = self.registry.add(service, port, **fields)
        self._settle(instance)
        return instance

    def instance(self, server: HttpServer) -> Instance:
        return self._instances[server]

    def change(self, server: HttpServer, instance: Instance) -> None:
        self._instances[server] = self.registry.put(instance)
        self._settle(instance)

    def drain(self, server: HttpServer) -> None:
        self._instances[server] = instance = self.registry.drain(self._instances[server])
        self._settle(instance)

    def remove(self, *gone: HttpServer) -> None:
        instances = [self._instances[server] for server in gone]
        self.registry.remove(*instances)
        for instance in instances:
            self._settle_without(instance)

    def endpoint(self, server: HttpServer) -> Endpoint:
        """What this process has learnt about it. Only once the service is known here."""
        instance = self._instances[server]
        self.handle.snapshot(instance.service)
        return self.handle.resolver(instance.service).endpoints[instance.id]

    def in_flight(self, service: str = "experiment") -> int:
        """How many requests to the service are under way."""
        return sum(found.in_flight for found in self.handle.resolver(service).endpoints.values())

    def _settle(self, instance: Instance) -> None:
        self.handle.snapshot(instance.service)
        resolver = self.handle.resolver(instance.service)

        def is_known() -> bool:
            slot = resolver.slot(Preferences())  # made under the lock under which the views are published
            assert slot.view is not None
            if slot.view.snapshot.by_id.get(instance.id) != instance:
                return False
            return resolver.endpoints[instance.id].is_retired == (instance.state is State.DRAINING)

        eventually(is_known, timeout=10.0, what=f"{instance.id} is known")

    def _settle_without(self, instance: Instance) -> None:
        resolver = self.handle.resolver(instance.service)

        def is_gone() -> bool:
            slot = resolver.slot(Preferences())
            return slot.view is not None and instance.id not in slot.view.snapshot.by_id

        eventually(is_gone, timeout=10.0, what=f"{instance.id} is known to have gone")
