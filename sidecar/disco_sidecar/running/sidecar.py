"""One process of the sidecar: its ways in, and how they begin and end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from discoclient.model.policy import RetryPolicy

from ..places import Kind, Listener
from ..proxy.client import Client
from ..proxy.gate import Gate
from ..proxy.raw import RawClient
from ..proxy.services import Services
from ..routing import Way
from ..settings import Settings
from .sockets import Sockets

__all__ = ["Sidecar"]

logger = logging.getLogger("discoclient.sidecar")


class Sidecar:
    """Made on its loop. `start`, then `drain`, then `close`."""

    def __init__(self, settings: Settings, sockets: Sockets, loop: asyncio.AbstractEventLoop) -> None:
        options: dict[str, Any] = {
            "balancer": settings.balancer,
            "discovery_timeout": settings.discovery_timeout,
            "retry": RetryPolicy(connect_timeout=settings.connect_timeout),
        }
        if settings.zone is not None:
            options["zone"] = settings.zone
        self.settings = settings
        self.services = Services(settings.registry, options, loop=loop)
        self._log_file: IO[str] | None = None
        self.gate = Gate(self.services, settings.policy, loop=loop, log_line=self._open_log())
        self._sockets = sockets
        self._loop = loop
        self._servers: list[asyncio.Server] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Accept from now on, and learn of the services that are named in the configuration."""
        self.gate.begin()
        for listener, sockets in self._sockets.items():
            make = self._protocol(listener)
            if make is not None:
                for bound in sockets:
                    self._servers.append(await self._loop.create_server(make, sock=bound.dup(), backlog=2048))
        for listener in self.settings.listeners:
            if listener.service is not None:
                task = self._loop.create_task(self._learn(listener.service))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

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
        self.services.close()
        await asyncio.sleep(0)
        if self._log_file is not None:
            self._log_file.close()

    def unready(self) -> list[str]:
        """Why this is no good time to send requests here; empty when it is."""
        reasons = []
        if self.gate.is_draining:
            reasons.append("it is about to end")
        named = {each.service for each in self.settings.listeners if each.service}
        unknown = sorted(name for name in named if self.services.find(name) is None)
        reasons += [f"nothing is known of service {name!r}" for name in unknown]
        if not reasons and not self.services.is_acquainted:
            reasons.append(
                f"the registry has not answered yet: {self.services.error or 'it was only just asked'}"
            )
        return reasons

    def _protocol(self, listener: Listener) -> Callable[[], asyncio.Protocol] | None:
        match listener.kind:
            case Kind.BIND | Kind.LISTEN:
                return partial(Client, self.gate, Way(service=listener.service, hosts=self.settings.hosts))
            case Kind.TCP:
                assert listener.service is not None
                return partial(RawClient, self.gate, listener.service)
        return None

    async def _learn(self, service: str) -> None:
        with suppress(Exception):  # the request that needs it will say why
            await self.services.open(service, is_named=True)

    def _open_log(self) -> Callable[[str], None] | None:
        where = self.settings.access_log
        if where is None:
            return None
        out = sys.stdout if where == "-" else Path(where).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
        if out is not sys.stdout:
            self._log_file = out

        def log_line(line: str) -> None:
            try:
                out.write(line + "\n")
                if out is sys.stdout:
                    out.flush()
            except OSError:  # a full disk or a closed pipe must not stop the traffic
                return

        return log_line
