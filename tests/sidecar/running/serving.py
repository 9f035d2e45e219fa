"""A sidecar in this process, for what an option does: without the process around it, it is there in a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx

from disco_sidecar.places import Kind
from disco_sidecar.running.bound import close_sockets
from disco_sidecar.running.sidecar import Sidecar
from disco_sidecar.running.sockets import open_sockets
from disco_sidecar.settings import Settings

__all__ = ["Served", "serving"]


class Served:
    """``ports``: by the kind of way in, the port of the first one."""

    def __init__(self, sidecar: Sidecar, ports: dict[Kind, int]) -> None:
        self.sidecar = sidecar
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports.get(Kind.BIND) or ports.get(Kind.LISTEN)}"

    async def get(self, path: str = "/experiment/", **options: Any) -> httpx.Response:
        """Over a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            return await client.get(self.url + path, **options)

    async def connect(self, kind: Kind = Kind.BIND) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.ports[kind])


@asynccontextmanager
async def serving(registry: str, *, drain: float = 0.0, **said: Any) -> AsyncIterator[Served]:
    """With the options that were *said*, on free ports. *drain*: seconds to finish what is under way at the end."""
    is_in_memory = registry.startswith("memory:")
    settings = Settings.of(
        {"bind": ("0",), "admin": "off", **said, "registry": None if is_in_memory else registry}
    )
    if is_in_memory:
        settings = replace(settings, registry=registry)
    sockets = open_sockets(settings.listeners, [])
    ports = {listener.kind: bound[0].getsockname()[1] for listener, bound in sockets.items()}
    sidecar = Sidecar(settings, sockets, asyncio.get_running_loop())
    try:
        await sidecar.start()
        yield Served(sidecar, ports)
    finally:
        await sidecar.drain(drain)
        await sidecar.close()
        for service in sidecar.services:
            service.pools.close()  # at its own time it would be after the loop's end
        close_sockets(sockets, keep=())
        for _ in range(3):  # what was aborted is closed in the loop's next turns
            await asyncio.sleep(0)
