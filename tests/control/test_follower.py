"""The follower: what it owes to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from random import Random
from time import monotonic

import pytest

from discoclient.control.follower import Follower
from discoclient.registry.happenings import WatchSettings
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Entry


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
