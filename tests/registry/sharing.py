"""Processes that share a registry, all in one: each is a `SharedRegistry` with a machine behind it, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from discoclient.control.follower import Follower
from discoclient.model.errors import RegistryUnavailable
from discoclient.registry.address import RegistryAddress
from discoclient.registry.happenings import Phase, WatchSettings
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Entry, Listing, Probe
from discoclient.registry.sharing.borrower import Borrower
from discoclient.registry.sharing.link import LinkSettings
from discoclient.registry.sharing.registry import SharedRegistry
from discoclient.registry.sharing.source import Wellspring
from tests.support.eventually import eventually_async

__all__ = ["QUICK", "RANGE", "URL", "Host", "Own", "Worker"]

URL = "etcd://me:secret@registry:1/p"
RANGE = "/p/services/web/"
QUICK = LinkSettings(settle=0.5, look=0.01, retry=0.05, rest=0.2, distrust=0.05)
SETTINGS = WatchSettings(silence=0.3, stall=0.2, backoff_first=0.02, backoff_cap=0.1, resync=600.0)


class Own:
    """One process's own way to the registry, which may be cut."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._cut = asyncio.Event()
        self.asked: list[str] = []
        self.watching = 0

    @property
    def is_cut(self) -> bool:
        return self._cut.is_set()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        self._cut.clear()

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        self._ask("list")
        return await self._registry.list(range, serializable=serializable)

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        self._ask("probe")
        return await self._registry.probe(range, after=after, is_past=is_past)

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        self._ask("watch")
        self.watching += 1
        stream = self._registry.watch(range, after=after)
        cutting = asyncio.ensure_future(self._cut.wait())
        step: asyncio.Future[Batch] | None = None
        try:
            while True:
                step = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
                await asyncio.wait([step, cutting], return_when=asyncio.FIRST_COMPLETED)
                if cutting.done():
                    raise RegistryUnavailable("cut off")
                yield step.result()
        finally:
            self.watching -= 1
            for task in (step, cutting):
                if task is not None:
                    task.cancel()

    async def aclose(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.is_cut:
            raise RegistryUnavailable("cut off")


class Worker:
    """One process, as far as this is concerned."""

    def __init__(self, own: Own, folder: Path, url: str, settings: LinkSettings) -> None:
        self.own = own
        self.sets: list[frozenset[str]] = []
        """Every set of keys that it knew of, in order."""
        address: Any = RegistryAddress.parse(url)
        self.shared = SharedRegistry(own, address, rng=Random(1), folder=folder, settings=settings)  # type: ignore[arg-type]
        self.follower = Follower[Entry](
            self.shared,
            RANGE,
            lambda entry: entry,
            lambda follower, keys: self.sets.append(frozenset(follower.records)),
            settings=SETTINGS,
            clock=monotonic,
            rng=Random(1),
        )
        self._running = asyncio.create_task(self.follower.run())

    @property
    def source(self) -> Any:
        return self.shared._link._source

    @property
    def lends(self) -> bool:
        return isinstance(self.source, Wellspring)

    @property
    def borrows(self) -> bool:
        return isinstance(self.source, Borrower)

    @property
    def is_live(self) -> bool:
        return self.follower.phase is Phase.LIVE

    async def wait_live(self) -> None:
        await eventually_async(lambda: self.is_live, what="it is live")

    async def wait_alone(self) -> None:
        def is_alone() -> bool:
            return self.source is None and self.is_live and self.own.watching == 1

        await eventually_async(is_alone, what="it has a watch of its own")

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.shared.aclose()


@dataclass
class Host:
    folder: Path
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(MemoryStore(), clock=monotonic))
    workers: list[Worker] = field(default_factory=list)

    async def start(self, url: str = URL, settings: LinkSettings = QUICK) -> Worker:
        worker = Worker(Own(self.registry), self.folder, url, settings)
        self.workers.append(worker)
        await worker.wait_live()
        return worker

    async def add(self, name: str) -> str:
        key = f"{RANGE}{name}"
        await self.registry.change(lambda store: store.put(key, b"1"))
        return key

    async def remove(self, key: str) -> None:
        await self.registry.change(lambda store: store.delete(key))

    async def stop(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await worker.close()

    async def all_know(self, key: str) -> None:
        await eventually_async(
            lambda: all(key in worker.follower.records for worker in self.workers), what=f"all know {key}"
        )

    @property
    def watches(self) -> int:
        """At the registry."""
        return sum(worker.own.watching for worker in self.workers)


@asynccontextmanager
async def a_host(folder: Path) -> AsyncIterator[Host]:
    host = Host(folder)
    await host.add("first")
    try:
        yield host
    finally:
        for worker in tuple(host.workers):
            await host.stop(worker)
