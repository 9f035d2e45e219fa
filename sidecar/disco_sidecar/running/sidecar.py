"""One process of the sidecar: its ways in, and how they begin and end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from discoclient.model.errors import DiscoError
from discoclient.model.instance import Instance
from discoclient.model.policy import RetryPolicy

from ..admin.happenings import Happenings
from ..admin.readiness import unready
from ..admin.server import AdminServer
from ..http.refusal import Refused
from ..places import Kind, Listener
from ..proxy.client import Client
from ..proxy.gate import Gate
from ..proxy.raw import RawClient
from ..proxy.services import Services
from ..routing import Way
from ..settings import Settings
from .access_log import AccessLog
from .bound import Sockets
from .looking import observe

__all__ = ["Sidecar"]

ASK_AGAIN = 0.5
"""Seconds between two tries to reach a registry that has not answered yet."""

PATIENCE = 5
"""How many times the time for a first knowledge one that follows another may take to know what it has to."""


class Sidecar:
    """Made on its loop. `start`, then `drain`, then `close`."""

    def __init__(self, settings: Settings, sockets: Sockets, loop: asyncio.AbstractEventLoop) -> None:
        self.happenings = Happenings()
        options: dict[str, Any] = {
            "balancer": settings.balancer,
            "discovery_timeout": settings.discovery_timeout,
            "retry": RetryPolicy(connect_timeout=settings.connect_timeout),
            "hooks": [self.happenings],
        }
        if settings.zone is not None:
            options["zone"] = settings.zone
        self.settings = settings
        self.services = Services(settings.registry, options, loop=loop)
        self._log = None if settings.access_log is None else AccessLog(settings.access_log)
        log_line = None if self._log is None else self._log.write
        self.gate = Gate(self.services, settings.policy, loop=loop, log_line=log_line)
        self._sockets = sockets
        self._loop = loop
        self._servers: list[asyncio.Server] = []
        self._observer = observe(settings, sockets, self.services, self.gate, self.happenings, self.unready)
        self._admin: AdminServer | None = None
        self._dns: Any = None
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self, *, follows: bool = False) -> None:
        """Learn of the services that are named in the configuration, and accept from now on.

        *follows*: another process serves the same addresses, and knows whom to call. Then we do not take a share of its
        requests before we know, too: old knowledge is better than none. Raises `OSError` when that takes too long.
        """
        self._later(self._meet_registry())
        for service in sorted({each.service for each in self.settings.listeners if each.service is not None}):
            self._later(self._learn(service))
        if follows:
            await self._until_knowing(PATIENCE * self.settings.discovery_timeout)
        self.gate.begin()
        for listener, sockets in self._sockets.items():
            make = self._protocol(listener)
            if make is not None:
                for bound in sockets:
                    self._servers.append(await self._loop.create_server(make, sock=bound.dup(), backlog=2048))
        await self._open_admin()
        await self._open_dns()

    async def until_ready(self) -> None:
        """It is, once it was started: what is not known yet is waited for by the requests that need it."""

    async def drain(self, timeout: float) -> bool:
        """Accept no more, and finish what is under way, for *timeout* seconds at most; whether all was finished."""
        for server in self._servers:
            server.close()
        self.gate.drain()
        try:
            async with asyncio.timeout(timeout):
                await self.gate.emptied.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        self.gate.close()
        if self._dns is not None:
            await self._dns.close()
        await self.leave_admin()
        self.services.close()
        await asyncio.sleep(0)
        if self._log is not None:
            self._log.close()

    async def leave_admin(self) -> None:
        """Who looks sees another process from now on."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    def reopen_log(self) -> None:
        if self._log is not None:
            self._log.reopen()

    def unready(self) -> list[str]:
        """What keeps requests sent here from being answered, beside what the services themselves show."""
        if self.services.is_acquainted or any(service.route.is_known for service in self.services):
            return []
        return [f"the registry has not answered yet: {self.services.error or 'it was only just asked'}"]

    def _protocol(self, listener: Listener) -> Callable[[], asyncio.Protocol] | None:
        match listener.kind:
            case Kind.BIND | Kind.LISTEN:
                return partial(Client, self.gate, Way(service=listener.service, hosts=self.settings.hosts))
            case Kind.TCP:
                assert listener.service is not None
                return partial(RawClient, self.gate, listener.service)
        return None

    async def _open_admin(self) -> None:
        listener = self.settings.admin
        if listener is None:
            return
        self._admin = AdminServer(
            self._observer.state,
            sockets=[bound.dup() for bound in self._sockets[listener]],
            sample=self._observer.sample,
            subscribe=self.happenings.subscribe,
            allow_hosts=[name.decode() for name in self.settings.hosts],
        )
        await self._admin.start()

    async def _open_dns(self) -> None:
        listener = next((each for each in self.settings.listeners if each.kind is Kind.DNS), None)
        if listener is None:
            return
        from ..dns import DnsServer  # only who wants it pays for it

        self._dns = DnsServer(
            listener.place.hosts[0],
            listener.place.port,
            lookup=self._lookup,
            reuse_port=True,  # the process that follows this one binds before it ends
            allow_remote=self.settings.allow_remote,
        )
        await self._dns.start()

    async def _lookup(self, name: str) -> Sequence[Instance] | None:
        """The instances of a service, for DNS."""
        try:
            service = self.services.find(name) or await self.services.open(name)
        except Refused as refusal:
            return () if refusal.reason == "no_instances" else None
        snapshot = service.route.resolver.snapshot
        return None if snapshot is None else snapshot.instances

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _meet_registry(self) -> None:
        """Ask it until it has answered once."""
        while not self.services.is_acquainted:
            with suppress(DiscoError, OSError, TimeoutError):
                await self.services.names()
                return
            await asyncio.sleep(ASK_AGAIN)

    async def _until_knowing(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            reasons = unready(self._observer.state())
            if not reasons:
                return
            if time.monotonic() > deadline:
                raise OSError(f"not ready within {timeout:g} s: {'; '.join(reasons)}")
            await asyncio.sleep(0.02)

    async def _learn(self, service: str) -> None:
        with suppress(Exception):  # the request that needs it will say why
            await self.services.open(service, is_named=True)
