"""A process that follows one service or many, all asked for at once, and what that costs it.

``python -m benchmarks.scale_watch bare|disco REGISTRY SERVICE COUNT``: with a COUNT above 1 the services are SERVICE-0,
SERVICE-1... It says ``{"seconds", "cpu", "bytes"}`` when all of them are watched; when its input ends, ``{"noted", "bytes"}``,
as `watchers` notes it. ``disco`` is what callers have: presence, and views that a client would pick from.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from time import monotonic, process_time

from discoclient.balancing.preferences import Preferences
from discoclient.control.handle import RegistryHandle
from discoclient.control.hub import find_address, hub
from discoclient.control.resolver import Resolver
from discoclient.control.slot import Slot
from discoclient.registry.etcd import messages
from discoclient.registry.happenings import Phase

from .bare_etcd import BareEtcd, prefix_of
from .socket_bytes import transferred
from .watchers import Noted

__all__ = ["names"]

_STREAMS = 100
"""Watches on one connection: etcd takes no more than 250 with TLS."""


def names(service: str, count: int) -> list[str]:
    return [service] if count == 1 else [f"{service}-{number}" for number in range(count)]


def main() -> None:
    kind, registry, service, count = sys.argv[1:]
    services = names(service, int(count))
    noted = asyncio.run(_bare(registry, services)) if kind == "bare" else _disco(registry, services)
    print(json.dumps({"noted": noted, "bytes": transferred()}), flush=True)


def _ready(began: float, spent: float) -> None:
    told = {"seconds": monotonic() - began, "cpu": process_time() - spent, "bytes": transferred()}
    print(json.dumps(told), flush=True)


def _disco(registry: str, services: list[str]) -> Noted:
    noted: Noted = []
    messages.load()  # an import, which is nobody's growth
    began, spent = monotonic(), process_time()
    handle = RegistryHandle(find_address(registry), hub(), 120.0, is_caller=True)
    resolvers = [handle.resolver(service) for service in services]
    slots = [resolver.slot(Preferences()) for resolver in resolvers]
    pause = threading.Event()
    while not all(resolver.phase is Phase.LIVE for resolver in resolvers):
        pause.wait(0.01)
    _ready(began, spent)
    for resolver, slot in zip(resolvers, slots, strict=True):
        resolver.subscribe(_note(resolver, slot, noted))
    sys.stdin.read()
    return noted


def _note(resolver: Resolver, slot: Slot, noted: Noted) -> Callable[[], None]:
    def note() -> None:
        assert slot.view is not None
        noted.append((slot.view.snapshot.revision, monotonic(), process_time()))

    return note


async def _bare(registry: str, services: list[str]) -> Noted:
    noted: Noted = []
    standing = 0
    over, all_stand = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    began, spent = monotonic(), process_time()
    connections = [BareEtcd(registry) for _ in range(-(-len(services) // _STREAMS))]

    async def follow(etcd: BareEtcd, service: str) -> None:
        nonlocal standing
        async for response in etcd.watch(prefix_of(service)):
            if response.created:
                standing += 1
                if standing == len(services):
                    all_stand.set()
            elif response.events:
                noted.append((response.events[-1].kv.mod_revision, monotonic(), process_time()))

    for etcd in connections:
        await etcd.__aenter__()
    tasks = [
        asyncio.create_task(follow(connections[number // _STREAMS], service))
        for number, service in enumerate(services)
    ]
    await all_stand.wait()
    _ready(began, spent)
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for etcd in connections:
        await etcd.__aexit__()
    return noted


if __name__ == "__main__":
    main()
