"""The services that are called from here: found by name on the hot path, made with care off it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from discoclient.control.hub import find_address, find_override, hub
from discoclient.model.errors import DiscoError
from discoclient.transport.router import MOST_ROUTES, Route, Router
from discoclient.transport.settings import Settings

from ..http.refusal import Refused
from .counts import Counts
from .pool import Pools

__all__ = ["Service", "Services"]

logger = logging.getLogger("discoclient.sidecar")

MEMORY = 1.0
"""Seconds that the registry's list of names is believed: so often at most it is asked, whatever names clients make up."""
ASK_TIMEOUT = 2.0
RETRY_AFTER = 1


class Service:
    """One service, as requests to it need it."""

    __slots__ = ("caller", "counts", "flow", "name", "pool", "pools", "route")

    def __init__(self, name: str, route: Route[Pools], counts: Counts) -> None:
        self.name = name
        self.route = route
        self.caller = route.caller
        self.flow = route.caller.flow
        self.pools = route.wire
        self.pool = route.wire.pool
        self.counts = counts

    def knowledge(self) -> dict[str, Any]:
        """How many instances are known, and what that is worth: for those who get an error in place of an answer."""
        resolver, snapshot = self.route.resolver, self.route.resolver.snapshot
        age = resolver.age()
        return {
            "instances": len(snapshot.by_id) if snapshot is not None else None,
            "age": None if age is None else round(age, 3),
            "phase": str(resolver.phase),
        }


class Services:
    """All of them. On the loop of the proxy."""

    def __init__(
        self, registry: str | None, options: Mapping[str, Any], *, loop: asyncio.AbstractEventLoop
    ) -> None:
        """*options*: those of `discoclient.DiscoTransport`."""
        self.address = find_address(registry)
        self._settings = Settings.of(options)
        self._router: Router[Pools] = Router(
            lambda options: Pools(loop), "sidecar", None, registry, self._settings
        )
        self._loop = loop
        self._found: dict[str, Service] = {}
        self._counts: dict[str, Counts] = {}
        self._names: frozenset[str] = frozenset()
        self._names_until = 0.0
        self._asking: asyncio.Future[frozenset[str]] | None = None
        self.error: str | None = None
        """Why the registry could not be asked the last time."""
        self.is_acquainted = False
        """Whether the registry has ever answered."""

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self._found.values()))

    def find(self, name: str) -> Service | None:
        """The service if requests may go there at once."""
        return self._found.get(name)

    async def open(self, name: str, *, is_named: bool = False) -> Service:
        """The service when something is known of it. *is_named*: by the configuration, so that there is no doubt about it.

        A name that a client made up must cost nothing: the registry is asked first whether there is such a service.
        Raises `Refused`.
        """
        if not is_named and name not in self._found and find_override(name) is None:
            await self._check(name)
        try:
            # Off the loop: the first time it loads what speaks to etcd.
            route = await self._loop.run_in_executor(None, self._router.route, name)
        except DiscoError as error:
            raise Refused(503, "registry", str(error), retry_after=RETRY_AFTER) from None
        service = Service(name, route, self._counts.setdefault(name, Counts()))
        limit = self._settings.discovery_timeout
        if not await self._await(route, limit):
            raise Refused(503, "unknown", str(route.resolver.timed_out(limit)), retry_after=RETRY_AFTER)
        if len(self._found) >= MOST_ROUTES:  # the router forgets the oldest then, and so must we
            self._found.clear()
        return self._found.setdefault(name, service)

    async def names(self) -> frozenset[str]:
        """The services that the registry has. Raises `DiscoError`, `OSError` or `TimeoutError`."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def routes(self) -> list[Route[Pools]]:
        return self._router.routes()

    def counts(self, name: str) -> Counts:
        return self._counts.setdefault(name, Counts())

    def sweep(self, now: float) -> None:
        for service in self._found.values():
            service.pools.sweep(now)

    def close(self) -> None:
        self._router.release()

    async def _check(self, name: str) -> None:
        """Raises `Refused` if there is no such service, as far as can be told."""
        try:
            names = self._remembered()
            if names is None:
                names = await self.names()
        except (DiscoError, OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            raise Refused(
                503,
                "registry",
                f"nothing is known of service {name!r}, and the registry can't be asked: {text}",
                retry_after=RETRY_AFTER,
            ) from None
        if name not in names:
            raise _absent(name)

    def _remembered(self) -> frozenset[str] | None:
        return self._names if monotonic() < self._names_until else None

    async def _ask(self) -> frozenset[str]:
        prefix = self.address.keys.all_services
        shared = hub()
        registry = await self._loop.run_in_executor(None, shared.registry, self.address)
        asking = shared.background.submit(registry.children(prefix))
        async with asyncio.timeout(ASK_TIMEOUT):
            keys = await asyncio.wrap_future(asking)
        return frozenset(key[len(prefix) :].partition("/")[0] for key in keys)

    def _asked(self, asking: asyncio.Future[frozenset[str]]) -> None:
        self._asking = None
        error = None if asking.cancelled() else asking.exception()
        self.error = None if error is None else str(error) or type(error).__name__
        self.is_acquainted |= error is None
        if error is None and not asking.cancelled():
            self._names, self._names_until = asking.result(), monotonic() + MEMORY

    async def _await(self, route: Route[Pools], timeout: float) -> bool:
        if route.is_decided:
            return route.is_known
        changed = asyncio.Event()

        def wake() -> None:
            self._loop.call_soon_threadsafe(changed.set)

        unsubscribe = route.resolver.subscribe(wake)
        try:
            async with asyncio.timeout(timeout):
                while not route.is_decided:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            pass
        finally:
            unsubscribe()
        return route.is_known


def _absent(name: str) -> Refused:
    return Refused(
        503,
        "no_instances",
        f"service {name!r} has no instance: nothing is registered under that name ('disco ls' shows what is)",
        retry_after=RETRY_AFTER,
    )
