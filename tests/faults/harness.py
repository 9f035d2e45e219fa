"""What the scenarios share: a look at a registry that records what it sees, service processes, and quick times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from discoclient import AsyncDiscoClient, DiscoClient, Instance, RegistryHandle, Snapshot
from discoclient.control.hub import Hub, find_address
from discoclient.control.resolver import Resolver
from discoclient.dev import EtcdCluster, EtcdMember
from discoclient.registry.happenings import WatchSettings
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess

__all__ = [
    "FAST",
    "PROGRAMS",
    "Look",
    "Service",
    "assert_sees",
    "look",
    "resolver_of",
    "start_services",
    "url_first",
]

PROGRAMS = Path(__file__).with_name("programs")

FAST = WatchSettings(
    silence=1.0,
    stall=1.0,
    stale_after=0.5,
    backoff_first=0.1,
    backoff_cap=0.5,
    healthy_after=1.0,
    resync=600.0,
)
"""A tenth of the usual times, and no listing again without a reason."""


class Unshuffled(Random):
    """Members are asked in the order of the URL, so that a test knows which one carries the watch."""

    def shuffle(self, x: Any) -> None:
        pass


class Look:
    """A caller's view of one service, from a hub of its own, with everything that was ever published."""

    def __init__(
        self,
        url: str,
        service: str,
        settings: WatchSettings,
        without: Callable[[Any], None] | None,
        discovery_timeout: float,
    ) -> None:
        self.service = service
        self.address = find_address(url)
        self.hub = Hub(settings=settings)
        self.hub.rng = Unshuffled()
        self.registry: Any = self.hub.registry(self.address)
        self.lists = 0
        """How many listings were asked for."""
        self._count_lists()
        if without is not None:
            without(self.registry)
        self.handle = RegistryHandle(
            self.address, self.hub, discovery_timeout=discovery_timeout, is_caller=True
        )
        self.resolver: Resolver = self.handle.resolver(service)
        self.snapshots: list[Snapshot] = []
        """In the order in which they were published."""
        self.resolver.subscribe(self._record)
        self._record()

    @property
    def ids(self) -> set[str]:
        snapshot = self.resolver.snapshot
        return set(snapshot.by_id) if snapshot is not None else set()

    @property
    def phases(self) -> str:
        return str(self.resolver.phase)

    def wait_live(self, *, timeout: float = 10.0) -> None:
        """Until its watch stands."""
        eventually(lambda: self.resolver.phase == "live", timeout=timeout, what=f"{self.service} is live")

    def _record(self) -> None:
        snapshot = self.resolver.snapshot
        if snapshot is not None and (not self.snapshots or self.snapshots[-1] is not snapshot):
            self.snapshots.append(snapshot)

    def _count_lists(self) -> None:
        plain = self.registry.list

        async def counted(range: str, *, serializable: bool = False) -> Any:
            self.lists += 1
            return await plain(range, serializable=serializable)

        self.registry.list = counted


@contextmanager
def look(
    url: str,
    service: str = "experiment",
    *,
    settings: WatchSettings = FAST,
    without: Callable[[Any], None] | None = None,
    discovery_timeout: float = 10.0,
) -> Iterator[Look]:
    """A `Look` that ends with the block. *without* is told the registry before it is used, to take something away.

    Half of *discovery_timeout* takes the place of *settings*' ``stale_after``, as it does for every caller.
    """
    looking = Look(url, service, settings, without, discovery_timeout)
    try:
        yield looking
    finally:
        looking.hub.close(timeout=5.0)


def assert_sees(looking: Look, instance: Instance, *, within: float) -> None:
    """The caller learns of *instance* in time. An `AssertionError` otherwise."""
    eventually(lambda: instance.id in looking.ids, timeout=within, what=f"the caller sees {instance.id}")


def resolver_of(client: DiscoClient | AsyncDiscoClient) -> Resolver:
    """What a client learns from, for a control to take something away from it."""
    transport: Any = client._disco
    found: Resolver = transport._router.route(transport._router.service).resolver
    return found


def url_first(cluster: EtcdCluster, url: str, member: EtcdMember) -> str:
    """*url* with *member* as the first one, which is what a `Look` attaches itself to."""
    ports = [member.client_port, *(other.client_port for other in cluster.members if other is not member)]
    return url.replace(
        cluster.registry_url.partition("://")[2], ",".join(f"127.0.0.1:{port}" for port in ports)
    )


class Service:
    """A real service process, `programs/service.py`, that has registered itself."""

    def __init__(self, process: PythonProcess) -> None:
        self.process = process
        _, self.id, port = process.wait_for_line("serving ", timeout=20.0).split()
        self.port = int(port)

    @property
    def states(self) -> list[str]:
        """Every state it has had, in order."""
        return [line.split()[1] for line in self.process.output.splitlines() if line.startswith("state ")]

    def get(self, path: str = "/", *, timeout: float = 5.0) -> httpx.Response:
        """Past the registry, straight to it."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout, trust_env=False)


def start_services(
    processes: Processes,
    url: str,
    *options: Mapping[str, str | float],
    service: str = "experiment",
    count: int = 1,
    ttl: float = 3.0,
    without: str = "",
) -> list[Service]:
    """*count* of them, started side by side. *without*: a protection to take away, see `controls.take_away`."""
    arguments = [service, "--ttl", str(ttl), *(["--without", without] if without else [])]
    started = [
        processes.python(PROGRAMS / "service.py", *arguments, env={"DISCO_REGISTRY": url})
        for _ in range(count)
    ]
    return [Service(process) for process in started]


Clients = Callable[..., DiscoClient]
