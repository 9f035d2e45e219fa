"""A world: servers, clients, a registry and requests that nobody holds back, from a `Setup` and a seed to a `Result`."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, TypeAlias

from discoclient.balancing.balancer import Balancer, find_balancer
from discoclient.balancing.preferences import Preferences
from discoclient.calling.ledger import Policies
from discoclient.calling.steps import Call
from discoclient.model.instance import Instance
from discoclient.model.policy import SlowStartPolicy

from .clients import Client, Request
from .loop import Loop
from .registry import Registry
from .servers import Server
from .work import Work

__all__ = ["Maker", "Result", "Sample", "Setup", "World", "simulate"]

Maker: TypeAlias = "Callable[[World, Random], Balancer]"
"""Makes the balancer of one client: for rules that are no part of the package, and look where a client can't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated. Seconds.

    ``rate``: requests a second, of all clients together; ``seconds``: for how long. ``script``: what happens meanwhile.
    ``timeout``: of an attempt; ``deadline``: of a call, from its begin. ``trip``: there and back. ``news``: how long a
    change of the registry takes to a client. ``unsafe``: the share of requests that are not idempotent. ``keys``: how
    many different ``hash_key``. ``notices``: whether servers drop what nobody waits for. ``subset``: how many servers a
    client uses; all, if ``None``. ``redraws``: whether each attempt takes a time of its own, as if the servers and not
    the request were to blame for it.
    """

    seed: str
    balancer: str | Maker
    servers: int
    clients: int
    rate: float
    seconds: float
    work: Work
    workers: int = 4
    script: Callable[[World], None] = lambda world: None
    policies: Policies = field(default_factory=Policies)
    slow_start: SlowStartPolicy = SlowStartPolicy()
    retries: int | None = None
    timeout: float = 1.0
    deadline: float | None = None
    trip: float = 0.0005
    news: tuple[float, float] = (0.002, 0.05)
    unsafe: float = 0.0
    keys: int = 200
    keepalive: float = 5.0
    notices: bool = False
    subset: int | None = None
    redraws: bool = False


class Sample(NamedTuple):
    due: float
    latency: float
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Result:
    samples: Sequence[Sample]
    """In the order in which the requests ended."""
    arrivals: Mapping[str, Sequence[float]]
    """When each instance got a request."""
    events: Mapping[str, int]
    stats: Mapping[str, int]
    left_in_flight: int
    """What endpoints still count when everything is over."""
    made: int
    """Requests that were made."""


class World:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.loop = Loop()
        self.servers: dict[str, Server] = {}
        self.registry = Registry(self.loop, self.rng("registry"), setup.news)
        self.clients: list[Client] = []
        """Those that get requests."""
        self.notes: dict[str, tuple[float, float]] = {}
        """A script's own: from when to when instances were ready."""
        self._all_clients: list[Client] = []
        self._samples: list[Sample] = []
        self._made = 0
        self._arrivals = self.rng("arrivals")

    def rng(self, name: str) -> Random:
        """Chance of its own for each part: that one asks more of it changes nothing for the others."""
        return Random(f"{self.setup.seed}/{name}")

    # ---- for scripts

    def add_server(self, *, speed: float = 1.0, workers: int | None = None) -> Server:
        """One more, not registered yet."""
        setup = self.setup
        index = len(self.servers)
        instance = Instance(
            service="sim",
            id=f"instance-{index:04}",
            host="127.0.0.1",
            port=20_000 + index,
            http_keepalive=setup.keepalive,
        )
        server = Server(
            self.loop, instance, workers=workers or setup.workers, speed=speed, notices=setup.notices
        )
        self.servers[instance.id] = server
        return server

    def add_client(self, place: int | None = None) -> Client:
        """A process that begins; in the *place* of another one, or beside the others."""
        setup = self.setup
        name = f"client-{len(self._all_clients)}"
        rng, again = self.rng(name), self.rng(f"{name}/again")
        balancer = (
            find_balancer(setup.balancer) if isinstance(setup.balancer, str) else setup.balancer(self, rng)
        )
        client = Client(
            self.loop,
            name,
            servers=self.servers,
            preferences=Preferences(
                balancer=balancer,
                slow_start=setup.slow_start,
                subset=setup.subset,
                seed=f"{setup.seed}/{name}",
            ),
            policies=setup.policies,
            rng=rng,
            over=self._note,
            timeout=setup.timeout,
            trip=setup.trip,
            redraw=(lambda: setup.work(again)) if setup.redraws else None,
        )
        self._all_clients.append(client)
        self.registry.tell(client)
        if place is None:
            self.clients.append(client)
        else:
            self.clients[place] = client
        return client

    # ---- the run

    def run(self) -> Result:
        setup = self.setup
        for _ in range(setup.servers):
            self.add_server()
        self.registry.put(*(server.instance for server in self.servers.values()))
        for _ in range(setup.clients):
            self.add_client()
        setup.script(self)
        self.loop.after(self._arrivals.expovariate(setup.rate), self._arrive)
        self.loop.run()
        events: Counter[str] = Counter()
        stats: Counter[str] = Counter()
        for client in self._all_clients:
            events.update(client.events)
            stats.update(client.stats)
        left = sum(endpoint.in_flight for client in self._all_clients for endpoint in client.known.ever)
        arrivals = {id: server.arrivals for id, server in self.servers.items()}
        return Result(self._samples, arrivals, events, stats, left, self._made)

    def _arrive(self) -> None:
        setup, rng, now = self.setup, self._arrivals, self.loop.now
        if now >= setup.seconds:
            return
        client = self.clients[int(rng.random() * len(self.clients))]
        call = Call(
            is_idempotent=rng.random() >= setup.unsafe,
            is_replayable=True,
            retries=setup.retries,
            deadline=None if setup.deadline is None else now + setup.deadline,
            key=int(rng.random() * setup.keys),
        )
        self._made += 1
        client.begin(Request(now, setup.work(rng), call))
        self.loop.after(rng.expovariate(setup.rate), self._arrive)

    def _note(self, request: Request) -> None:
        latency = self.loop.now - request.due
        self._samples.append(Sample(request.due, latency, request.attempts, request.error))


def simulate(setup: Setup) -> Result:
    """Raises `AssertionError` if a request got lost, or is still counted in flight."""
    is_collecting = gc.isenabled()
    gc.disable()  # it would look at every sample over and over
    try:
        result = World(setup).run()
    finally:
        if is_collecting:
            gc.enable()
    if len(result.samples) != result.made or result.left_in_flight:
        raise AssertionError(
            f"{result.made} requests were made, {len(result.samples)} ended; {result.left_in_flight} left in flight"
        )
    return result
