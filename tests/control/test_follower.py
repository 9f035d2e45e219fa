"""The follower: what it owes to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from random import Random
from time import monotonic

import pytest

from discoclient.control import follower as module
from discoclient.control.follower import Follower
from discoclient.registry.happenings import WatchSettings
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Entry
from tests.support.eventually import eventually_async


async def test_news_that_a_listener_could_not_take_come_again_with_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    registry = MemoryRegistry(store, clock=monotonic)
    told: list[set[str]] = []
    arrived = asyncio.Event()

    def listen(follower: Follower[Entry], keys: Collection[str]) -> None:
        told.append(set(keys))
        arrived.set()
        if len(told) == 2:
            raise RuntimeError("a bug")

    follower = Follower[Entry](
        registry, "/s/", lambda entry: entry, listen, settings=WatchSettings(), clock=monotonic, rng=Random(1)
    )
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(10):
        await arrived.wait()
        for key in ("/s/a", "/s/b"):
            arrived.clear()
            await registry.change(lambda store, key=key: store.put(key, b"1", lease=0))  # type: ignore[misc]
            await arrived.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told == [set(), {"/s/a"}, {"/s/a", "/s/b"}]
    assert any(record.levelno == logging.ERROR for record in caplog.records)


class Slow:
    """A listener that takes *cost* seconds for every change, by a clock that jumps."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.jumped = 0.0
        self.told: list[tuple[float, set[str]]] = []
        """Each with the seconds since the one before was over."""
        self.over = self.clock()
        self.store = MemoryStore()
        self.registry = MemoryRegistry(self.store, clock=monotonic)
        self.follower = Follower[Entry](
            self.registry,
            "/s/",
            lambda entry: entry,
            self.listen,
            settings=WatchSettings(silence=1e6, resync=1e6),
            clock=self.clock,
            rng=Random(1),
            cost_clock=self.clock,
        )

    def clock(self) -> float:
        return monotonic() + self.jumped

    def listen(self, follower: Follower[Entry], keys: Collection[str]) -> None:
        self.told.append((self.clock() - self.over, set(keys)))
        self.jumped += self.cost
        self.over = self.clock()

    async def change(self, key: str) -> None:
        await self.registry.change(lambda store: store.put(key, b"1", lease=0))

    async def told_of(self, *keys: str) -> None:
        def is_told() -> bool:
            return set(keys) <= {key for _, told in self.told for key in told}

        await eventually_async(is_told)


async def changed_twice(slow: Slow) -> None:
    running = asyncio.create_task(slow.follower.run())
    await eventually_async(lambda: slow.told)
    await slow.change("/s/a")
    await slow.told_of("/s/a")
    for key in ("/s/b", "/s/c"):
        await slow.change(key)
        await asyncio.sleep(0.01)
    await slow.told_of("/s/b", "/s/c")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_changes_that_are_dear_to_pass_on_are_passed_on_together_after_a_rest() -> None:
    slow = Slow(cost=0.02)
    await changed_twice(slow)
    assert [keys for _, keys in slow.told] == [set(), {"/s/a"}, {"/s/b", "/s/c"}]
    assert all(rest >= 0.08 for rest, _ in slow.told[1:])


async def test_without_a_rest_each_is_passed_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0.0)
    slow = Slow(cost=0.02)
    await changed_twice(slow)
    assert [keys for _, keys in slow.told] == [set(), {"/s/a"}, {"/s/b"}, {"/s/c"}]


async def test_after_what_costs_little_there_is_no_rest() -> None:
    slow = Slow(cost=module.DEAR * 0.5)
    await changed_twice(slow)
    assert [keys for _, keys in slow.told] == [set(), {"/s/a"}, {"/s/b"}, {"/s/c"}]


async def test_a_rest_is_bounded_however_long_it_took() -> None:
    slow = Slow(cost=600.0)
    async with asyncio.timeout(10):
        await changed_twice(slow)
    assert all(rest >= module.LONGEST_REST for rest, _ in slow.told[1:])
