"""The follower between a registry and the machine: bursts, and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from time import monotonic
from typing import Any

import pytest

from discoclient.control import follower as followers
from discoclient.control.follower import Follower
from discoclient.model.errors import RegistryDenied, RegistryError, RegistryUnavailable
from discoclient.registry.happenings import Phase, WatchSettings
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Entry, Listing
from tests.support.eventually import eventually_async


@asynccontextmanager
async def following(registry: Any, **options: Any) -> AsyncIterator[tuple[Follower[Entry], list[set[str]]]]:
    """A follower of everything in *registry*, and what it told of changes."""
    told: list[set[str]] = []
    follower = Follower[Entry](
        registry,
        "/s/",
        lambda entry: entry,
        lambda follower, keys: told.append(set(keys)),
        **{"settings": WatchSettings(), "clock": monotonic, "rng": Random(1), **options},
    )
    running = asyncio.create_task(follower.run())
    try:
        yield follower, told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# ---- bursts


async def burst(count: int) -> int:
    """How often is told what *count* changes at once made."""
    registry = MemoryRegistry(MemoryStore(), clock=monotonic)
    async with following(registry) as (follower, told):
        await eventually_async(lambda: follower.phase is Phase.LIVE)
        told.clear()

        def put_all(store: MemoryStore) -> None:
            for number in range(count):
                store.put(f"/s/{number}", b"1")

        await registry.change(put_all)
        await eventually_async(lambda: len(follower.records) == count, timeout=20)
        assert set().union(*told) == set(follower.records)
    return len(told)


async def test_a_burst_of_changes_is_told_as_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await burst(1) == 1
    assert await burst(1000) <= 15
    monkeypatch.setattr(followers, "BURST", 10)
    assert 90 <= await burst(1000) <= 110
    monkeypatch.setattr(followers, "BURST", 0)
    assert await burst(200) == 200, "the negative control"


# ---- refusals


class Refusing(MemoryRegistry):
    """Refuses for as long as there is an ``error``."""

    def __init__(self, error: RegistryError) -> None:
        super().__init__(MemoryStore(), clock=monotonic)
        self.error: RegistryError | None = error

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        if self.error is not None:
            raise self.error
        return await super().list(range, serializable=serializable)


def patient(**options: Any) -> dict[str, Any]:
    """One member's word is not asked for by itself."""
    return {"settings": WatchSettings(stale_after=600.0, backoff_first=0.01, backoff_cap=0.01), **options}


async def test_whoever_waits_is_told_that_it_is_in_vain() -> None:
    registry, told = Refusing(RegistryDenied("wrong password")), list[RegistryError]()
    async with following(registry, **patient(on_refused=told.append)) as (follower, changes):
        await eventually_async(lambda: told, what="it is told")
        assert follower.refusal is told[0]
        assert changes == []
        registry.error = None
        await eventually_async(lambda: changes, what="it was tried on")
        assert follower.refusal is None
        assert len(told) == 1, "once, however often it is refused"


async def test_other_trouble_is_waited_out() -> None:
    registry, told = Refusing(RegistryUnavailable("down")), list[RegistryError]()
    async with following(registry, **patient(on_refused=told.append)) as (follower, changes):
        await eventually_async(lambda: follower.last_error, what="it fails")
        registry.error = None
        await eventually_async(lambda: changes, what="it is there")
    assert told == []


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_was_known_before_comes_before_any_refusal(is_known: bool) -> None:
    def recall() -> Listing | None:
        return Listing(3, (Entry("/s/a", b"1", 1, 1, 1),)) if is_known else None

    registry, told = Refusing(RegistryDenied("wrong password")), list[RegistryError]()
    async with following(registry, **patient(on_refused=told.append, recall=recall)) as (follower, changes):
        await eventually_async(lambda: changes or told, what="one or the other")
        assert bool(changes) is is_known
        assert bool(told) is not is_known
        assert follower.is_stale is is_known


class CutOff(MemoryRegistry):
    """Has no quorum, and one member."""

    asked = 0

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        if not serializable:
            raise RegistryUnavailable("no quorum")
        self.asked += 1
        return await super().list(range, serializable=True)


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_was_known_before_comes_before_a_member_that_knows_of_nothing(is_known: bool) -> None:
    def recall() -> Listing | None:
        return Listing(3, (Entry("/s/a", b"1", 1, 1, 1),)) if is_known else None

    store = MemoryStore()
    registry = CutOff(store, clock=monotonic)
    options = {"settings": WatchSettings(stale_after=0.0), "recall": recall}
    async with following(registry, **options) as (follower, changes):
        await eventually_async(
            lambda: bool(changes) if is_known else registry.asked >= 2, what="it was asked"
        )
        assert bool(changes) is is_known
        assert follower.is_stale is is_known
        assert set(follower.records) == ({"/s/a"} if is_known else set())
    store.put("/s/b", b"1")
    async with following(registry, **options) as (follower, changes):
        await eventually_async(lambda: changes, what="the member knows of something")
        assert set(follower.records) == {"/s/b"}, "and is younger than any file"
