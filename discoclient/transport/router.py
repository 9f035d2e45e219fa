"""From a request's host to everything that is needed to call that service. The same for both flavours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from random import Random
from time import monotonic
from typing import Generic, Protocol, TypeVar

import httpx
from cachetools import LRUCache

from ..balancing.explanation import Explanation, explain
from ..balancing.view import View
from ..calling.flow import DOUBTFUL, Caller
from ..calling.ledger import Ledger
from ..calling.steps import Call, End
from ..control.hub import Hub, find_address, hub, is_current
from ..control.resolver import Resolver
from ..control.slot import Slot
from ..model.errors import DeadlineExceeded, NoInstances, RoutingError, Throttled
from ..model.events import CallInfo
from ..model.instance import check_service
from .carrying import Terms
from .settings import Settings
from .wire import WireOptions

__all__ = ["Route", "Router", "late"]

MOST_ROUTES = 1000
"""Services that one transport remembers; only a ``disco://`` transport ever sees more than one."""


class Wire(Protocol):
    def close(self) -> None: ...


_SCHEMES = frozenset({"http", "https", "disco"})

W = TypeVar("W", bound=Wire)


class Route(Generic[W]):
    """One service, as one transport calls it."""

    __slots__ = (
        "_slot",
        "caller",
        "emit",
        "flow",
        "keys",
        "ledger",
        "resolver",
        "service",
        "settings",
        "stream_terms",
        "whole_terms",
        "wire",
    )

    def __init__(
        self,
        service: str,
        *,
        resolver: Resolver,
        slot: Slot,
        wire: W,
        ledger: Ledger,
        settings: Settings,
        keys: tuple[Hashable, ...],
        rng: Random,
    ) -> None:
        """*keys*: what it shares with other clients, to be given back."""
        self.service = service
        self.keys = keys
        self.resolver = resolver
        self.wire = wire
        self.ledger = ledger
        self.settings = settings
        self.emit = settings.emitter
        self.caller = Caller(self.view, ledger, emit=self.emit, clock=monotonic, rng=rng)
        self.flow = self.caller.flow
        self._slot = slot
        connect_timeout, server_name = (
            settings.policies.retry.connect_timeout,
            settings.server_name or service,
        )
        self.stream_terms = Terms(connect_timeout, server_name)
        self.whole_terms = Terms(connect_timeout, server_name, DOUBTFUL)
        """Bodies that may be thrown away for another attempt are not waited for."""

    @property
    def is_known(self) -> bool:
        return self._slot.view is not None

    @property
    def is_decided(self) -> bool:
        """Whether there is nothing to wait for: something is known, or the registry refuses us, or the balancer failed."""
        slot = self._slot
        return slot.view is not None or self.resolver.refusal is not None or slot.failure is not None

    @property
    def is_callable(self) -> bool:
        """Whether there is an instance that a request could go to."""
        view = self._slot.view
        return view is not None and bool(view.tiers)

    def is_known_as(self, url: httpx.URL) -> bool:
        """Whether *url* has a name of the service, or the address of one of its instances."""
        host, host_header = _host(url), self.settings.host_header
        if host == self.service or (
            host_header is not None and host == host_header.partition(":")[0].lower()
        ):
            return True
        view, place = self._slot.view, (host, url.port or (443 if url.scheme == "https" else 80))
        return view is not None and any(place == endpoint.address[1:] for endpoint in view.endpoints.values())

    def view(self) -> View:
        """The newest view. Only once `is_known`."""
        view = self._slot.view
        assert view is not None
        return view

    def info(self, request: httpx.Request) -> CallInfo | None:
        """What hooks are told of *request*; ``None`` if there are none."""
        if not self.settings.emitter.hooks:
            return None
        return CallInfo(self.service, request.method, str(request.url))

    def discovery_timeout(self, call: Call) -> float:
        """Seconds that the call may wait for the first knowledge."""
        limit = self.settings.discovery_timeout
        return limit if call.deadline is None else max(0.0, min(limit, call.deadline - monotonic()))

    def unknown(self, call: Call, waited: float) -> Exception:
        """The error for a call that waited in vain for the first knowledge."""
        if self._slot.failure is not None:
            return self._slot.failure
        error = self.resolver.timed_out(waited)
        if call.deadline is None or monotonic() < call.deadline:
            return error
        expired = late("while nothing was known of the service")
        expired.__cause__ = error
        return expired

    def explain(self) -> Explanation:
        """Only once `is_known`."""
        settings, ledger, resolver = self.settings, self.ledger, self.resolver
        return explain(
            self.view(),
            settings.preferences,
            settings.policies.outlier,
            monotonic(),
            age=resolver.age(),
            phase=str(resolver.phase),
            is_panic=ledger.is_panic,
            counts=ledger.stats(),
        )

    def refused(self, end: End, call: Call) -> Exception:
        """The error for a call that ended without an outcome of an attempt."""
        if end is End.THROTTLED:
            return Throttled(
                f"service {self.service!r} refuses most requests of late, so this one was not sent"
            )
        return late("before anything was sent") if end is End.EXPIRED else self.no_instances(call)

    def no_instances(self, call: Call | None = None) -> NoInstances:
        snapshot = self.view().snapshot
        if not snapshot.by_id:
            detail = "nothing is registered there"
        elif call is not None and call.version is not None:
            versions = sorted({instance.version or "none" for instance in snapshot.by_id.values()})
            detail = f"none of version {call.version!r} may be called; there are {', '.join(versions)}"
        else:
            states = sorted(str(instance.state) for instance in snapshot.by_id.values())
            detail = f"{len(states)} registered ({', '.join(states)}), and none of them may be called"
            if call is not None and call.exclude:
                detail += f" (the request excludes {len(call.exclude)})"
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
        service: str | None,
        registry: str | None,
        settings: Settings,
    ) -> None:
        self.service = service if service is None else check_service(service)
        self._make_wire = make_wire
        self._kind = kind
        self._address = find_address(registry)
        self._settings = settings
        self._hub: Hub | None = None
        self._fixed: Route[W] | None = None
        self._routes: LRUCache[str, Route[W]] = LRUCache(MOST_ROUTES)

    def find(self, request: httpx.Request) -> Route[W] | None:
        """The route of *request*, if it is at hand: nearly always."""
        shared, url = hub(), request.url
        if self._hub is not shared or url.scheme not in _SCHEMES:
            return None
        host, fixed = _host(url), self._fixed
        if fixed is not None:
            return fixed if host == self.service or fixed.is_known_as(url) else None
        with shared.routing:
            return self._routes.get(host) if self.service is None else None

    def route_for(self, request: httpx.Request) -> Route[W]:
        """The route of *request*, made on first use, which may take 0.1 s to load what speaks to etcd.

        Raises `ConfigError` for a name that can't be a service's, and `RoutingError` for a request that is not ours to carry.
        """
        host = _host(request.url)
        if request.url.scheme not in _SCHEMES:
            raise httpx.UnsupportedProtocol(
                f"{request.url.scheme}:// can't be sent to an instance; use http://, https:// or disco://"
            )
        if self.service is None:
            return self.route(host)
        route = self.route(self.service)
        if not route.is_known_as(request.url):
            raise RoutingError(
                f"this transport carries requests to {self.service!r} alone, not to {request.url.netloc.decode()!r}. "
                f"Mount it, and others go their way: httpx.Client(mounts={{'all://{self.service}': "
                f"DiscoTransport({self.service!r})}}), or use DiscoClient"
            )
        return route

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
                    oldest = self._routes.popitem()[1]
                    shared.release(oldest.resolver, *oldest.keys)
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
                shared.release(route.resolver, *route.keys)

    def stats(self) -> dict[str, int]:
        """The counts of all routes, added up."""
        total: Counter[str] = Counter()
        for route in self.routes():
            total.update(route.ledger.stats())
        return dict(total)

    def routes(self) -> list[Route[W]]:
        return list(self._routes.values())

    def _make(self, shared: Hub, service: str) -> Route[W]:
        settings = self._settings
        resolver = shared.acquire(
            self._address, service, discovery_timeout=settings.discovery_timeout, is_caller=True
        )
        # The name too: a connection whose certificate was checked for another one is not ours to use.
        key = (self._kind, settings.wire, settings.server_name)
        keys = (key, settings.policies)
        if settings.last_known is not None:
            resolver.keep_in(settings.last_known, self._address)
        return Route(
            service,
            resolver=resolver,
            slot=resolver.slot(replace(settings.preferences, seed=shared.id), settings.emitter.tell),
            wire=resolver.shared(key, lambda: self._make_wire(settings.wire)),
            ledger=resolver.shared(settings.policies, lambda: Ledger(service, settings.policies)),
            settings=settings,
            keys=keys,
            rng=shared.rng,
        )


def _host(url: httpx.URL) -> str:
    """As it stands in the URL: httpx's own ``host`` takes ``xn--...`` for the name of a domain, and reads it out."""
    return url.raw_host.decode("ascii")


def late(where: str) -> DeadlineExceeded:
    """The error for a call whose deadline passed."""
    return DeadlineExceeded(
        f"the call's deadline passed {where}. It is over all attempts and the body: extensions['disco']['deadline'], "
        "or the client's deadline="
    )
