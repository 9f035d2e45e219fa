"""From a request's host to everything that is needed to call that service. The same for both flavours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from cachetools import LRUCache

from ..balancing.balancer import Balancer, find_balancer
from ..balancing.view import View
from ..calling.flow import Call, CallFlow, Send, call_flow
from ..control.hub import Hub, find_address, hub, is_current
from ..control.resolver import Resolver, Slot
from ..model.errors import ConfigError, NoInstances
from ..model.instance import check_service
from ..model.policy import OutlierPolicy, RetryPolicy, check_seconds
from .wire import WireOptions

__all__ = ["Route", "Router"]

MOST_ROUTES = 1000
"""Services that one transport remembers; only a ``disco://`` transport ever sees more than one."""


class Wire(Protocol):
    def close(self) -> None: ...


W = TypeVar("W", bound=Wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client was told about how to call."""

    balancer: Balancer
    retry: RetryPolicy
    outlier: OutlierPolicy
    host_header: str | None
    server_name: str | None
    discovery_timeout: float
    wire: WireOptions


class Route(Generic[W]):
    """One service, as one transport calls it."""

    __slots__ = ("_rng", "_slot", "resolver", "service", "settings", "wire")

    def __init__(
        self, service: str, resolver: Resolver, slot: Slot, wire: W, settings: Settings, rng: Random
    ) -> None:
        self.service = service
        self.resolver = resolver
        self.wire = wire
        self.settings = settings
        self._slot = slot
        self._rng = rng

    @property
    def is_known(self) -> bool:
        return self._slot.view is not None

    @property
    def is_callable(self) -> bool:
        """Whether there is an instance that a request could go to."""
        view = self._slot.view
        return view is not None and bool(view.tiers)

    def view(self) -> View:
        """The newest view. Only once `is_known`."""
        view = self._slot.view
        assert view is not None
        return view

    def flow(self, call: Call) -> CallFlow:
        settings = self.settings
        return call_flow(
            call, self.view, retry=settings.retry, outlier=settings.outlier, clock=monotonic, rng=self._rng
        )

    def attempt_extensions(self, extensions: dict[str, Any], send: Send) -> dict[str, Any]:
        """The extensions of one attempt: connecting is bounded by the policy, and TLS is checked against the service's name."""
        merged = {key: value for key, value in extensions.items() if key != "disco"}
        timeouts = dict(merged.get("timeout") or {})
        connect = timeouts.get("connect")
        bound = self.settings.retry.connect_timeout
        timeouts["connect"] = bound if connect is None else min(connect, bound)
        merged["timeout"] = timeouts
        if send.endpoint.address[0] == "https" and "sni_hostname" not in merged:
            merged["sni_hostname"] = self.settings.server_name or self.service
        return merged

    def no_instances(self) -> NoInstances:
        snapshot = self.view().snapshot
        if not snapshot.by_id:
            detail = "nothing is registered there"
        else:
            states = sorted(str(instance.state) for instance in snapshot.by_id.values())
            detail = f"{len(states)} registered ({', '.join(states)}), and none of them may be called"
        return NoInstances(
            f"service {self.service!r} has no instance to call: {detail} (as of revision {snapshot.revision}). "
            f"See 'disco ls {self.service}'"
        )


class Router(Generic[W]):
    """Finds the route for a service, and gives it back when the transport is done. Survives a fork by starting anew."""

    def __init__(
        self,
        make_wire: Callable[[WireOptions], W],
        kind: str,
        *,
        service: str | None,
        registry: str | None,
        balancer: str | Balancer,
        retry: RetryPolicy,
        outlier: OutlierPolicy,
        host_header: str | None,
        server_name: str | None,
        discovery_timeout: float,
        wire: WireOptions,
    ) -> None:
        if service is not None:
            check_service(service)
        for name, value, kinds in (("retry", retry, RetryPolicy), ("outlier", outlier, OutlierPolicy)):
            if not isinstance(value, kinds):
                raise ConfigError(f"{name}= must be a {kinds.__name__}; got {value!r}")
        self.service = service
        self._make_wire = make_wire
        self._kind = kind
        self._address = find_address(registry)
        self._settings = Settings(
            balancer=find_balancer(balancer),
            retry=retry,
            outlier=outlier,
            host_header=host_header,
            server_name=server_name,
            discovery_timeout=check_seconds("discovery_timeout", discovery_timeout),
            wire=wire,
        )
        self._hub: Hub | None = None
        self._fixed: Route[W] | None = None
        self._routes: LRUCache[str, Route[W]] = LRUCache(MOST_ROUTES)

    def route(self, service: str) -> Route[W]:
        """The route to *service*, made on first use. Raises `ConfigError` for a name that can't be one."""
        fixed = self._fixed
        if fixed is not None and self._hub is hub():
            return fixed
        shared = hub()
        with (
            shared.routing
        ):  # the hub's, and not one of ours that a thread of the parent may have held at the fork
            if self._hub is not shared:
                # The first call, or the first one after a fork: what the parent had is not ours.
                self._hub, self._fixed = shared, None
                self._routes = LRUCache(MOST_ROUTES)
            found = self._routes.get(service)
            if found is None:
                found = self._make(shared, service)
                if len(self._routes) == MOST_ROUTES:
                    shared.release(self._routes.popitem()[1].resolver)
                self._routes[service] = found
                if self.service is not None:
                    self._fixed = found
            return found

    def release(self) -> None:
        """Give back what was taken. Safe from a finalizer."""
        shared, routes = self._hub, list(self._routes.values())
        self._fixed = None
        self._routes = LRUCache(MOST_ROUTES)
        if shared is not None and is_current(shared):
            for route in routes:
                shared.release(route.resolver)

    def routes(self) -> list[Route[W]]:
        return list(self._routes.values())

    def _make(self, shared: Hub, service: str) -> Route[W]:
        settings = self._settings
        resolver = shared.acquire(self._address, service, discovery_timeout=settings.discovery_timeout)
        # The name too: a connection whose certificate was checked for another one is not ours to use.
        key = (self._kind, settings.wire, settings.server_name)
        wire = resolver.shared(key, lambda: self._make_wire(settings.wire))
        return Route(service, resolver, resolver.slot(settings.balancer), wire, settings, shared.rng)
