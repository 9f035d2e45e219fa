"""The registry in memory: served as etcd serves. What it has in common with etcd is tested beside etcd, in tests/etcd."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest

from discoclient.model.errors import LeaseExpired, RegistryUnavailable, RevisionCompacted
from discoclient.registry.address import RegistryAddress
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Deletion, Entry
from discoclient.registry.static import StaticRegistry
from tests.support.eventually import eventually_async

RANGE = "/p/services/web/"
A, B = f"{RANGE}aaaaaaaa", f"{RANGE}bbbbbbbb"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def registry(store: MemoryStore, clock: Clock) -> Any:
    registry = MemoryRegistry(store, clock=clock)
    yield registry
    await registry.aclose()


class Reader:
    """Reads a watch in a task of its own."""

    def __init__(self, registry: MemoryRegistry, *, after: int = 1) -> None:
        self.changes: list[Entry | Deletion] = []
        self.error: Exception | None = None
        self.task = asyncio.ensure_future(self._read(registry, after))

    async def _read(self, registry: MemoryRegistry, after: int) -> None:
        try:
            async for batch in registry.watch(RANGE, after=after):
                self.changes += batch.changes
        except Exception as error:
            self.error = error

    async def __aenter__(self) -> Self:
        await rest()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def rest() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_lease_that_ran_out_is_seen_by_watchers_whoever_notices_it_first(
    registry: MemoryRegistry, clock: Clock
) -> None:
    """The timer is a moment late; a call in that moment finds the lease ended, and must not keep it to itself."""
    lease = await registry.grant(100)
    await registry.put(A, b"1", lease=lease, expected=0)
    async with Reader(registry) as reader:
        clock.now = 100.0
        assert (await registry.list(RANGE)).entries == ()
        await rest()
        assert reader.changes[-1] == Deletion(A, 3)


async def test_a_lease_that_ran_out_is_seen_without_anybody_asking() -> None:
    clock = asyncio.get_running_loop().time
    registry = MemoryRegistry(MemoryStore(), clock=clock)
    lease = await registry.grant(1)
    kept = await registry.grant(5)
    await registry.put(A, b"1", lease=lease, expected=0)
    await registry.put(B, b"1", lease=kept, expected=0)
    async with Reader(registry) as reader:
        await eventually_async(lambda: Deletion(A, 4) in reader.changes, timeout=10)
        assert [change.key for change in reader.changes] == [A, B, A]
    await registry.aclose()


async def test_a_lease_that_is_renewed_lives_on(registry: MemoryRegistry, clock: Clock) -> None:
    lease = await registry.grant(10)
    await registry.put(A, b"1", lease=lease, expected=0)
    for _ in range(10):
        clock.now += 9.9
        assert await lease.renew() == 10
    clock.now += 10
    with pytest.raises(LeaseExpired):
        await lease.renew()
    assert (await registry.list(RANGE)).entries == ()


async def test_while_it_is_down_every_call_fails_and_every_watch_breaks(registry: MemoryRegistry) -> None:
    lease = await registry.grant(10)
    async with Reader(registry) as reader:
        await registry.set_down(True)
        await rest()
        assert isinstance(reader.error, RegistryUnavailable)
    for call in (
        registry.list(RANGE),
        registry.list(RANGE, serializable=True),
        registry.children(RANGE),
        registry.probe(RANGE, after=0),
        registry.grant(10),
        registry.put(A, b"1", lease=lease, expected=0),
        registry.attach(Entry(A, b"1", 2, 2, 1), B, b"1", expected=0),
        registry.delete(A),
        lease.renew(),
        lease.revoke(),
        anext(registry.watch(RANGE, after=1)),  # type: ignore[arg-type]
    ):
        with pytest.raises(RegistryUnavailable):
            await call
    await registry.set_down(False)
    assert (await registry.put(A, b"1", lease=lease, expected=0)).is_done


async def test_a_slow_reader_misses_nothing(registry: MemoryRegistry) -> None:
    stream = registry.watch(RANGE, after=1)
    assert await anext(stream) == Batch(1)
    found: list[int] = []
    for _ in range(5):
        for value in (b"1", b"2"):
            await registry.change(lambda store, value=value: store.put(A, value))
        found.append((await anext(stream)).changes[0].mod_revision)  # one behind, and one more each time
    while len(found) < 10:
        found.append((await anext(stream)).changes[0].mod_revision)
    assert found == list(range(2, 12))
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_slow_reader_is_told_when_it_missed_something(registry: MemoryRegistry) -> None:
    """What is compacted before it was read is an error, and never silence."""
    stream = registry.watch(RANGE, after=1)
    await anext(stream)
    await registry.change(lambda store: store.put(A, b"1"))
    assert (await anext(stream)).revision == 2
    await registry.change(
        lambda store: (store.put(A, b"2"), store.put(B, b"2"), store.compact(store.revision))
    )
    await registry.change(lambda store: store.put(A, b"3"))
    with pytest.raises(RevisionCompacted):
        for expected in (3, 4):
            async with asyncio.timeout(5):
                assert (await anext(stream)).revision == expected


async def test_what_a_slow_reader_is_late_for_is_still_delivered(registry: MemoryRegistry) -> None:
    stream = registry.watch(RANGE, after=1)
    await anext(stream)
    await registry.change(lambda store: store.put(A, b"1"))
    assert (await anext(stream)).revision == 2
    await registry.change(lambda store: store.put(A, b"2"))
    await registry.change(lambda store: store.compact(3))  # as new as it can be without hurting
    await registry.change(lambda store: store.put(A, b"3"))
    async with asyncio.timeout(5):
        assert [(await anext(stream)).revision, (await anext(stream)).revision] == [3, 4]


async def test_after_a_wipe_a_watch_waits_for_the_future_in_silence_and_lets_others_run(
    registry: MemoryRegistry,
) -> None:
    for number in range(5):
        await registry.change(lambda store, number=number: store.put(A, b"%d" % number))
    async with Reader(registry, after=6) as reader:
        await registry.change(lambda store: store.wipe())
        await rest()
        for number in range(4):
            await registry.change(lambda store, number=number: store.put(B, b"%d" % number))
        await rest()
        assert reader.changes == []
        assert reader.error is None
        for number in range(5):
            await registry.change(lambda store, number=number: store.put(B, b"%d" % number))
        await rest()
        assert [change.mod_revision for change in reader.changes] == [7, 8, 9, 10]


async def test_two_registries_serve_one_store(
    store: MemoryStore, registry: MemoryRegistry, clock: Clock
) -> None:
    other = MemoryRegistry(store, clock=clock)
    lease = await other.grant(10)
    await other.put(A, b"1", lease=lease, expected=0)
    assert (await registry.list(RANGE)).entries[0].value == b"1"


async def test_it_has_no_members_to_speak_of(registry: MemoryRegistry) -> None:
    assert await registry.status() == ()


# ---- the store


def test_revisions_count_changes_made_as_a_whole(store: MemoryStore) -> None:
    lease, _ = store.grant(10, 0)
    assert store.put(A, b"1", lease=lease).revision == 2
    assert store.put(B, b"1", lease=lease).revision == 3
    store.revoke(lease)
    assert store.revision == 4
    assert list(store.batches(RANGE, 3)) == [Batch(4, (Deletion(A, 4), Deletion(B, 4)))]
    store.revoke(lease)
    store.delete(A, "nothing")
    assert store.revision == 4


def test_a_put_that_expects_nothing_in_particular_is_done_whatever_is_there(store: MemoryStore) -> None:
    assert store.put(A, b"1", expected=None).is_done
    assert store.put(A, b"2", expected=None).is_done
    assert not store.put(A, b"3", expected=0).is_done
    assert store.list(A).entries[0].value == b"2"


def standing(store: MemoryStore, key: str = A) -> Entry:
    (entry,) = store.list(key).entries
    return entry


def test_what_is_attached_goes_with_the_lease_of_what_it_is_attached_to(store: MemoryStore) -> None:
    lease, _ = store.grant(10, 0)
    store.put(A, b"1", lease=lease)
    put = store.attach(standing(store), B, b"asked", expected=0)
    assert (put.is_done, put.revision) == (True, 3)
    assert standing(store, B).lease == lease
    store.revoke(lease)
    assert list(store.batches(RANGE, 3)) == [Batch(4, (Deletion(A, 4), Deletion(B, 4)))]


@pytest.mark.parametrize("what", ["changed", "gone", "put back", "under another lease"])
def test_nothing_is_attached_to_what_does_not_stand_as_it_did(store: MemoryStore, what: str) -> None:
    lease, _ = store.grant(10, 0)
    store.put(A, b"1", lease=lease)
    seen = standing(store)
    if what in ("gone", "put back"):
        store.delete(A)
    if what != "gone":
        other = store.grant(10, 0)[0] if what == "under another lease" else lease
        store.put(A, b"2" if what == "changed" else b"1", lease=other)
    revision = store.revision
    put = store.attach(seen, B, b"asked", expected=0)
    assert (put.is_done, put.revision, put.present) == (False, revision, None)
    assert store.list(B).entries == ()


def test_nothing_is_attached_over_what_was_not_expected(store: MemoryStore) -> None:
    lease, _ = store.grant(10, 0)
    store.put(A, b"1", lease=lease)
    store.put(B, b"first", lease=lease)
    put = store.attach(standing(store), B, b"second", expected=0)
    assert (put.is_done, put.present) == (False, standing(store, B))
    assert store.attach(standing(store), B, b"second", expected=standing(store, B).mod_revision).is_done
    assert standing(store, B).value == b"second"


async def test_what_is_attached_and_deleted_is_seen_by_watchers(registry: MemoryRegistry) -> None:
    lease = await registry.grant(100)
    await registry.put(A, b"1", lease=lease, expected=0)
    async with Reader(registry) as reader:
        (entry,) = (await registry.list(A)).entries
        await registry.attach(entry, B, b"asked", expected=0)
        await registry.delete(B)
        await registry.delete(B)
        await rest()
        assert [change.mod_revision for change in reader.changes] == [2, 3, 4]
        assert reader.changes[-1] == Deletion(B, 4)


@pytest.mark.parametrize(("asked", "granted"), [(0.1, 1), (1, 1), (1.1, 2), (15.0, 15)])
def test_ttls_are_rounded_up(store: MemoryStore, asked: float, granted: int) -> None:
    lease, ttl = store.grant(asked, now=100.0)
    assert ttl == granted
    assert store.expire(100.0) == 100.0 + granted
    assert store.expire(100.0 + granted - 0.001) is not None
    assert store.expire(100.0 + granted) is None
    with pytest.raises(LeaseExpired):
        store.renew(lease, 0.0)


def test_a_wiped_store_is_as_new(store: MemoryStore) -> None:
    lease, _ = store.grant(10, 0)
    store.put(A, b"1", lease=lease)
    store.compact(2)
    store.wipe()
    assert store.revision == 1
    assert store.list("/").entries == ()
    assert list(store.batches("/", 0)) == []
    with pytest.raises(LeaseExpired):
        store.renew(lease, 0)
    assert store.grant(10, 0)[0] != lease
    with pytest.raises(LeaseExpired):
        store.renew(lease, 0)


def test_history_is_kept_from_the_compacted_revision_on(store: MemoryStore) -> None:
    for number in range(5):
        store.put(A, b"%d" % number)
    store.compact(4)
    assert [batch.revision for batch in store.batches(RANGE, 3)] == [4, 5, 6]
    with pytest.raises(RevisionCompacted):
        list(store.batches(RANGE, 2))
    store.compact(2)  # earlier than before: nothing comes back
    with pytest.raises(RevisionCompacted) as caught:
        list(store.batches(RANGE, 2))
    assert [batch.revision for batch in store.batches(RANGE, caught.value.oldest)] == [4, 5, 6]
    with pytest.raises(RevisionCompacted):
        list(store.batches(RANGE, caught.value.oldest - 1))


# ---- static


def static(url: str) -> StaticRegistry:
    address = RegistryAddress.parse(url)
    return StaticRegistry(address.services, address.keys)


async def test_a_static_registry_lists_and_never_changes() -> None:
    registry = static("static://web=10.0.0.1:80,10.0.0.2:80;other=10.0.0.3:80")
    listing = await registry.list("/disco/v1/services/web/")
    assert len(listing.entries) == 2
    assert all(entry.lease for entry in listing.entries)
    assert await registry.children("/disco/v1/services/web/") == tuple(entry.key for entry in listing.entries)
    stream = registry.watch("/disco/v1/services/web/", after=listing.revision)
    assert await anext(stream) == Batch(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(stream)


@pytest.mark.parametrize(
    "url", ["static://web=10.0.0.1:80,10.0.0.1:80", "static://web=10.0.0.1:80;web=10.0.0.1"]
)
async def test_an_address_that_is_named_twice_is_one_key(url: str) -> None:
    """Else it would count more keys than anybody can know, and its watchers would find it stalled for ever."""
    registry = static(url)
    range = "/disco/v1/services/web/"
    listing = await registry.list(range)
    assert len(listing.entries) == 1
    assert (await registry.probe(range, after=1)).count == 1


async def test_nothing_can_be_registered_in_a_static_registry() -> None:
    from discoclient.model.errors import RegistryError

    registry = static("static://web=10.0.0.1:80")
    (entry,) = (await registry.list("/disco/v1/services/web/")).entries
    lease: Any = None
    for call in (
        registry.grant(10),
        registry.put("/a", b"1", lease=lease, expected=None),
        registry.attach(entry, "/a", b"1", expected=0),
        registry.delete(entry.key),
    ):
        with pytest.raises(RegistryError, match="fixed"):
            await call
