"""What discovery adds to the wire (pick, flow, accounting): `DiscoClient` beside the same wire without it, and beside httpx.

Sync from one thread; async with one request in flight, and with many. All sides live in this process and take turns in short
turns, so that a machine that slows down slows down all of them. CPU is the whole process's, the background thread included.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from operator import attrgetter, sub
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import httpx

from discoclient import AsyncDiscoClient, DiscoClient
from discoclient.testing import memory_registry

from .bare_wire import AsyncBareClient, AsyncNothing, BareClient, Nothing
from .children import Child, cpu_seconds
from .figures import Role, Row, Section, compare

__all__ = ["run"]

_INSTANCES = 3
_IN_FLIGHT = 32
_KEEPALIVE = 60.0
"""Seconds: long enough that no side finds its connections closed when its turn comes again."""
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE)
_AIM = 15.0
_TITLE = "What discovery adds to the wire"

_SIDES: dict[str, tuple[str, Role]] = {
    "bare": ("the same wire without discovery", "reference"),
    "disco": ("DiscoClient", "ours"),
    "httpx": ("httpx", "reference"),
    "nothing": ("httpx over a transport that does nothing", "reference"),
}


class Plan(NamedTuple):
    rounds: int
    turns: int
    """That each side has in a round; what counts for the round is the median turn."""
    requests: int
    """In one turn."""


class Spent(NamedTuple):
    """Seconds, for one turn."""

    cpu: float
    wall: float


def run(*, quick: bool) -> Iterator[Section]:
    plan = Plan(5, 1, _IN_FLIGHT) if quick else Plan(9, 24, 2 * _IN_FLIGHT)
    with Child("server", _INSTANCES) as server, memory_registry() as registry:
        for port in server.wait_ready().hello["ports"]:
            registry.add("bench", port, http_keepalive=_KEEPALIVE)
        yield _sync(plan, server)
        for in_flight in (1, _IN_FLIGHT):
            yield _async(plan, server, in_flight)


def _sync(plan: Plan, server: Child) -> Section:
    port = server.hello["ports"][0]
    with ExitStack() as stack:
        sides: dict[str, httpx.Client] = {
            "bare": BareClient(port, keepalive=_KEEPALIVE),
            "disco": DiscoClient("bench"),
            "httpx": httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=_LIMITS),
            "nothing": httpx.Client(transport=Nothing(), base_url="http://bench"),
        }
        for client in sides.values():
            stack.enter_context(client)

        def take_turn(side: str) -> Spent:
            get = sides[side].get
            cpu, wall = process_time(), perf_counter()
            for _ in range(plan.requests):
                get("/users/1")
            return Spent(process_time() - cpu, perf_counter() - wall)

        return _measure(f"{_TITLE}, sync, one thread", plan, server, take_turn)


def _async(plan: Plan, server: Child, in_flight: int) -> Section:
    port = server.hello["ports"][0]
    with asyncio.Runner() as runner:
        sides: dict[str, httpx.AsyncClient] = {
            "bare": AsyncBareClient(port, keepalive=_KEEPALIVE),
            "disco": AsyncDiscoClient("bench"),
            "httpx": httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=_LIMITS),
            "nothing": httpx.AsyncClient(transport=AsyncNothing(), base_url="http://bench"),
        }

        async def call(client: httpx.AsyncClient) -> None:
            for _ in range(plan.requests // in_flight):
                await client.get("/users/1")

        async def take_turn(client: httpx.AsyncClient) -> Spent:
            cpu, wall = process_time(), perf_counter()
            await asyncio.gather(*(call(client) for _ in range(in_flight)))
            return Spent(process_time() - cpu, perf_counter() - wall)

        async def close() -> None:
            for client in sides.values():
                await client.aclose()

        loop = type(runner.get_loop())
        try:
            return _measure(
                f"{_TITLE}, async, {in_flight} in flight",
                plan,
                server,
                lambda side: runner.run(take_turn(sides[side])),
                f" Loop: {loop.__module__}.{loop.__qualname__}.",
            )
        finally:
            runner.run(close())


def _measure(
    title: str, plan: Plan, server: Child, take_turn: Callable[[str], Spent], loop: str = ""
) -> Section:
    rounds: dict[str, list[Spent]] = {side: [] for side in _SIDES}
    before = cpu_seconds(server.pid)
    for number in range(-1, plan.rounds):  # the first one is only to get warm
        turns: dict[str, list[Spent]] = {side: [] for side in _SIDES}
        for turn in range(plan.turns):
            gc.collect()  # so that a big collection comes at nobody's expense
            for side in _SIDES if turn % 2 else reversed(_SIDES):
                turns[side].append(take_turn(side))
        if number >= 0:
            for side, spent in turns.items():
                rounds[side].append(
                    Spent(median(one.cpu for one in spent), median(one.wall for one in spent))
                )
    served = (plan.rounds + 1) * plan.turns * plan.requests * (len(_SIDES) - 1)
    server_cpu = (cpu_seconds(server.pid) - before) / served * 1e6
    return Section(
        title,
        _rows(rounds, plan.requests),
        [
            (
                f"{plan.rounds} rounds, the median of {plan.turns} turns of {plan.requests} requests in each; "
                f"{_INSTANCES} instances.{loop}"
            ),
            f"The server, a process of its own (loop: {server.hello['loop']}), spent {server_cpu:.0f} us of CPU per request.",
        ],
    )


def _rows(rounds: Mapping[str, list[Spent]], requests: int) -> list[Row]:
    rows: list[Row] = []
    for what in ("cpu", "wall"):
        value = attrgetter(what)
        word = "CPU" if what == "cpu" else "wall"
        sides = {
            side: Row(
                f"{name}, {word}",
                role,
                "us/request",
                tuple(value(spent) / requests * 1e6 for spent in rounds[side]),
            )
            for side, (name, role) in _SIDES.items()
        }
        rows += sides.values()
        rows.append(
            compare(
                f"what discovery adds, {word}",
                sub,
                sides["disco"],
                sides["bare"],
                unit="us/request",
                aim=_AIM if what == "cpu" else None,
            )
        )
    return rows
