"""Reading back what happened, from a registry in memory and from real etcd: all of it, or what compaction has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from discoclient.dev import EtcdCluster
from discoclient.model.errors import RegistryDenied, RegistryUnavailable, RevisionCompacted
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.history import History, read_history
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Deletion, Entry, Lease, Registry

RANGE = "/h/web/"
A, B, C = (f"{RANGE}{name}" for name in "abc")


@dataclass
class Past:
    """A registry in which things happen, and whose history can be cut off up to now."""

    registry: Registry
    compact: Callable[[], Awaitable[object]]
    lease: Any = None

    async def put(self, key: str, value: bytes = b"1") -> int:
        self.lease = self.lease or await self.registry.grant(600)
        lease: Lease = self.lease
        return (await self.registry.put(key, value, lease=lease, expected=None)).revision

    async def read(self) -> History:
        async with asyncio.timeout(20):
            return await read_history(self.registry, RANGE)


@pytest.fixture(params=["memory", "etcd"])
async def past(request: pytest.FixtureRequest) -> AsyncIterator[Past]:
    registry: Registry
    if request.param == "memory":
        store = MemoryStore()
        registry = found = MemoryRegistry(store, clock=lambda: 0.0)

        async def compact_memory() -> None:
            await found.change(lambda store: store.compact(store.revision))

        compact: Callable[[], Awaitable[object]] = compact_memory
    else:
        node: EtcdCluster = request.getfixturevalue("etcd_node")
        registry = EtcdRegistry(RegistryAddress.parse(node.registry_url), rng=Random(1))

        async def compact_etcd() -> None:
            await asyncio.to_thread(node.compact)

        compact = compact_etcd
    yield Past(registry, compact)
    await registry.aclose()


def told(history: History) -> list[str]:
    return [f"{'-' if isinstance(change, Deletion) else '+'}{change.key[-1]}" for change in history.changes]


async def test_where_nothing_happened_nothing_is_told(past: Past) -> None:
    await past.put("/h/elsewhere/a")
    history = await past.read()
    assert history == History(0, ())


async def test_everything_is_told_in_its_order_also_what_is_gone(past: Past) -> None:
    revisions = [await past.put(A), await past.put(B), await past.put(A, b"2")]
    await past.registry.delete(A)
    await past.put("/h/web2/a")
    await past.put(C)
    history = await past.read()
    assert history.reach == 0
    assert told(history) == ["+a", "+b", "+a", "-a", "+c"]
    assert [change.mod_revision for change in history.changes][:3] == revisions
    assert [change.value for change in history.changes if isinstance(change, Entry)] == [
        b"1",
        b"1",
        b"2",
        b"1",
    ]


async def test_before_a_compacted_history_stands_what_stood_there_then_and_still_does(past: Past) -> None:
    await past.put(A)
    born = await past.put(B)
    await past.put(B, b"2")
    await past.put(C)
    await past.registry.delete(A)
    await past.put(C, b"2")
    await past.compact()
    await past.put(C, b"3")
    await past.put(A)
    history = await past.read()
    assert history.reach > 0
    assert told(history) in (["+b", "+c", "+a"], ["+b", "+c", "+c", "+a"])  # the newest revision may be kept
    first = history.changes[0]
    assert isinstance(first, Entry)
    assert (first.value, first.create_revision) == (b"2", born)
    assert [change.mod_revision for change in history.changes] == sorted(
        {change.mod_revision for change in history.changes}
    ), "and nothing is told twice"


async def test_a_history_that_was_compacted_up_to_now_is_what_stands_there(past: Past) -> None:
    await past.put(A)
    await past.put(B)
    await past.put("/h/elsewhere/a")
    await past.compact()
    assert told(await past.read()) == ["+a", "+b"]


async def test_a_long_history_is_read_to_its_end(past: Past) -> None:
    for number in range(300):
        await past.put(f"{RANGE}{number % 7}", b"x" * 2000)
    history = await past.read()
    assert len(history.changes) == 300


async def test_a_registry_that_is_away_is_an_error() -> None:
    registry = MemoryRegistry(MemoryStore(), clock=lambda: 0.0)
    await registry.set_down(True)
    with pytest.raises(RegistryUnavailable):
        await read_history(registry, RANGE)


class Odd(MemoryRegistry):
    """Its watch fails as it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MemoryStore(), clock=lambda: 0.0)
        self.error = error
        self.watches = 0

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        self.watches += 1
        yield Batch(1)
        raise self.error


@pytest.mark.parametrize(
    "error", [RevisionCompacted("gone"), RevisionCompacted("gone", oldest=0), RegistryDenied("no")]
)
async def test_a_registry_that_does_not_say_where_its_history_begins_is_asked_once(error: Exception) -> None:
    registry = Odd(error)
    with pytest.raises(type(error)):
        await read_history(registry, RANGE)
    assert registry.watches == 1


async def test_a_registry_that_is_compacted_while_it_is_read_is_read_from_there() -> None:
    registry = Odd(RevisionCompacted("gone", oldest=5))
    with pytest.raises(RevisionCompacted):
        await read_history(registry, RANGE)
    assert registry.watches == 2


async def test_a_range_that_goes_on_changing_is_read_to_when_the_reading_began() -> None:
    """Instances that flap, or a fleet that is deployed, would keep whoever asks waiting for ever."""
    registry = MemoryRegistry(MemoryStore(), clock=lambda: 0.0)
    past = Past(registry, compact=lambda: asyncio.sleep(0))
    await past.put(A)

    async def flap() -> None:
        while True:
            await past.put(B)
            await asyncio.sleep(0.02)

    flapping = asyncio.create_task(flap())
    try:
        async with asyncio.timeout(5):
            assert told(await read_history(registry, RANGE))[0] == "+a"
    finally:
        flapping.cancel()
        await asyncio.gather(flapping, return_exceptions=True)
