"""What operators and accidents do to a registry: real etcd and the one in memory take it alike, revision for revision.

`test_registry_contract` plays what a registration does; here keys are deleted together, written without a lease and
compacted away, neighbours write too, and watches begin anywhere.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Protocol, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.dev import EtcdCluster
from discoclient.model.errors import LeaseExpired, RegistryUnavailable, RevisionCompacted
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import registry as etcd_registry
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Deletion, Entry, Lease, Registry
from tests.conftest import ELECTION, HEARTBEAT
from tests.support.eventually import eventually_async
from tests.support.ports import free_port
from tests.support.properties import thorough

RANGE = "services/web/"
NAMES = [RANGE + name for name in ("aaaaaaaa", "bbbbbbbb", "ü/ü", "")] + ["services/web2/aaaaaaaa"]
LAST = RANGE + "~last"
SLOTS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """One node of our own: it is compacted."""
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


# ---- the two sides, and what an operator does to each


class Side(Protocol):
    @property
    def registry(self) -> Registry: ...

    async def delete(self, *keys: str) -> None: ...
    async def put_raw(self, key: str, value: bytes) -> None: ...
    async def compact(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.registry = MemoryRegistry(MemoryStore(), clock=lambda: 0.0)

    async def delete(self, *keys: str) -> None:
        await self._do(lambda store: store.delete(*keys))

    async def put_raw(self, key: str, value: bytes) -> None:
        await self._do(lambda store: store.put(key, value))

    async def compact(self) -> None:
        await self._do(lambda store: store.compact(store.revision))

    async def _do(self, act: Callable[[MemoryStore], object]) -> None:
        await self.registry.change(act)
        for _ in range(5):  # let the watchers see it, as etcd's do in their own processes
            await asyncio.sleep(0)


def encoded(key: str | bytes) -> str:
    return base64.b64encode(key.encode() if isinstance(key, str) else key).decode()


class InEtcd:
    def __init__(self, cluster: EtcdCluster) -> None:
        self.cluster = cluster
        self.registry = EtcdRegistry(RegistryAddress.parse(cluster.registry_url), rng=Random(1))

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.cluster.members[0].gateway.call(path, body, timeout=5.0)

    async def delete(self, *keys: str) -> None:
        operations = [{"request_delete_range": {"key": encoded(key)}} for key in keys]
        self.call("/v3/kv/txn", {"success": operations})

    async def put_raw(self, key: str | bytes, value: bytes) -> None:
        self.call("/v3/kv/put", {"key": encoded(key), "value": encoded(value)})

    async def compact(self) -> None:
        self.cluster.compact()


class Player:
    """Plays a script on one side. What it observes speaks of revisions since the start and of leases by their slot."""

    def __init__(self, side: Side, prefix: str) -> None:
        self.side = side
        self.registry = side.registry
        self.prefix = prefix
        self.leases: dict[int, Lease] = {}

    async def begin(self) -> None:
        self.base = (await self.registry.list(self.key(RANGE))).revision

    def key(self, name: str) -> str:
        return self.prefix + name

    def name(self, key: str) -> str:
        return key.removeprefix(self.prefix)

    def since(self, revision: int) -> int:
        return revision - self.base

    def slot(self, lease: int) -> object:
        held = [slot for slot, known in self.leases.items() if known.id == lease]
        return held[0] if held else ("none" if not lease else "gone")

    def seen(self, change: Entry | Deletion | None) -> object:
        if change is None:
            return None
        name, modified = self.name(change.key), self.since(change.mod_revision)
        if isinstance(change, Deletion):
            return ("deleted", name, modified)
        return (name, change.value, self.since(change.create_revision), modified, self.slot(change.lease))

    async def play(self, step: tuple[Any, ...]) -> object:
        try:
            return await getattr(self, step[0])(*step[1:])
        except (LeaseExpired, RevisionCompacted) as error:
            return type(error).__name__

    async def grant(self, slot: int) -> object:
        lease = await self.registry.grant(3600)
        self.leases[slot] = lease
        return lease.ttl

    async def renew(self, slot: int) -> object:
        return await self.leases[slot].renew() if slot in self.leases else None

    async def revoke(self, slot: int) -> None:
        if slot in self.leases:
            await self.leases[slot].revoke()

    async def put(self, name: str, value: bytes, slot: int, expected: str) -> object:
        if slot not in self.leases:
            return None
        listing = await self.registry.list(self.key(name))
        # As a range, the name "services/web/" is every key below it; as a key it is itself.
        present = [entry.mod_revision for entry in listing.entries if entry.key == self.key(name)]
        now = present[0] if present else 0
        asked = {"absent": 0, "as it is": now, "as it was": max(0, now - 1)}[expected]
        put = await self.registry.put(self.key(name), value, lease=self.leases[slot], expected=asked)
        return put.is_done, self.since(put.revision), self.seen(put.present)

    async def put_raw(self, name: str, value: bytes) -> None:
        await self.side.put_raw(self.key(name), value)

    async def delete(self, names: set[str]) -> None:
        await self.side.delete(*(self.key(name) for name in sorted(names)))

    async def compact(self) -> None:
        # Not at a deletion: old etcds lose one at the very revision of a compaction (etcd issue 18089).
        await self.side.put_raw(self.key("elsewhere"), b"")
        await self.side.compact()

    async def look(self, after: int) -> object:
        listing = await self.registry.list(self.key(RANGE))
        one = await self.registry.list(self.key(NAMES[0]))
        word = await self.registry.list(self.key(RANGE), serializable=True)
        children = await self.registry.children(self.key(RANGE))
        probe = await self.registry.probe(self.key(RANGE), after=self.base + after)
        assert probe.newest == 0 or probe.newest > self.base + after
        assert probe.newest == 0 or probe.last is None
        return (
            self.since(listing.revision),
            [self.seen(entry) for entry in listing.entries],
            [self.seen(entry) for entry in one.entries],
            [self.seen(entry) for entry in word.entries],
            [self.name(key) for key in children],
            (self.since(probe.revision), probe.newest > 0, probe.count),
            await self.past(after),
        )

    async def past(self, after: int) -> object:
        """How it was then; or that nobody knows: it is compacted, or still to come."""
        try:
            probe = await self.registry.probe(self.key(RANGE), after=self.base + after, is_past=True)
        except RevisionCompacted:
            return "not there"
        assert probe.newest == 0
        return probe.count, probe.last and self.since(probe.last.mod_revision)

    async def watch(self, after: int) -> object:
        """What a watch delivers, up to the last key that is written for that; each revision as a whole."""
        await self.side.put_raw(self.key(LAST), b"")
        last = self.since((await self.registry.list(self.key(LAST))).revision)
        if after >= last:
            return None
        batches: list[Batch] = []
        stream = self.registry.watch(self.key(RANGE), after=self.base + after)
        try:
            async with asyncio.timeout(10):
                async for batch in stream:
                    batches.append(batch)
                    if batch.changes and self.since(batch.changes[-1].mod_revision) == last:
                        break
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        assert batches[0].changes == ()
        revisions: dict[int, set[object]] = {}
        for batch in batches:
            here = {change.mod_revision for change in batch.changes}
            assert not here & revisions.keys(), "a revision came in two parts"
            for change in batch.changes:
                assert change.mod_revision >= max(revisions, default=0), "out of order"
                revisions.setdefault(change.mod_revision, set()).add(self.seen(change))
        return list(revisions.values())


names = st.sampled_from(NAMES)
slots = st.integers(0, SLOTS - 1)
values = st.binary(max_size=20)
steps = st.one_of(
    st.tuples(st.just("put"), names, values, slots, st.sampled_from(["absent", "as it is", "as it was"])),
    st.tuples(st.just("put"), names, values, slots, st.just("as it is")),
    st.tuples(st.just("put_raw"), names, values),
    st.tuples(st.just("delete"), st.sets(names, min_size=1)),
    st.tuples(st.sampled_from(["grant", "renew", "revoke"]), slots),
    st.tuples(st.just("look"), st.integers(0, 40)),
    st.tuples(st.just("watch"), st.integers(0, 40)),
    st.tuples(st.just("compact")),
)
scripts = st.lists(steps, min_size=20, max_size=40)

_number = iter(range(10**9))


@thorough(6)
@given(scripts)
def test_etcd_and_memory_do_the_same(
    cluster: EtcdCluster, runner: asyncio.Runner, script: list[tuple[Any, ...]]
) -> None:
    async def play() -> None:
        prefix = f"/script/{next(_number)}/"
        etcd, memory = Player(InEtcd(cluster), prefix), Player(InMemory(), prefix)
        try:
            for player in (etcd, memory):
                await player.begin()
            for step in [("grant", slot) for slot in range(SLOTS)] + script + [("look", 0), ("watch", 0)]:
                told = await etcd.play(step)
                assert await memory.play(step) == told, step
        finally:
            for player in (etcd, memory):
                await player.registry.aclose()

    runner.run(play())


# ---- the same, on purpose


SIDES = ["etcd", "memory"]


@pytest.fixture
def side(request: pytest.FixtureRequest, cluster: EtcdCluster) -> Side:
    return InEtcd(cluster) if request.param == "etcd" else InMemory()


@pytest.fixture
async def player(side: Side) -> Any:
    player = Player(side, f"/exact/{next(_number)}/")
    await player.begin()
    yield player
    await player.registry.aclose()


on_both = pytest.mark.parametrize("side", SIDES, indirect=True)


@on_both
async def test_a_lease_that_is_revoked_takes_its_keys_in_one_revision(player: Player) -> None:
    await player.grant(0)
    for name in NAMES[:3]:
        await player.put(name, b"1", 0, "absent")
    await player.revoke(0)
    *_, gone, _last = await player.watch(0)  # type: ignore[misc]
    assert gone == {("deleted", name, 4) for name in NAMES[:3]}


@on_both
async def test_a_key_that_is_put_again_moves_to_the_other_lease(player: Player) -> None:
    await player.grant(0)
    await player.grant(1)
    await player.put(NAMES[0], b"1", 0, "absent")
    await player.put(NAMES[0], b"1", 1, "as it is")
    await player.revoke(0)
    assert len((await player.registry.list(player.key(RANGE))).entries) == 1
    await player.revoke(1)
    assert (await player.registry.list(player.key(RANGE))).entries == ()


@on_both
async def test_a_put_without_a_lease_detaches_the_key(player: Player) -> None:
    await player.grant(0)
    await player.put(NAMES[0], b"1", 0, "absent")
    await player.put_raw(NAMES[0], b"2")
    assert await player.registry.children(player.key(RANGE)) == ()
    await player.revoke(0)
    (left,) = (await player.registry.list(player.key(RANGE))).entries
    assert (left.value, left.lease) == (b"2", 0)


@on_both
async def test_under_a_dead_lease_nothing_is_put(player: Player) -> None:
    await player.grant(0)
    await player.revoke(0)
    with pytest.raises(LeaseExpired):
        await player.registry.put(player.key(NAMES[0]), b"1", lease=player.leases[0], expected=0)
    assert (await player.registry.list(player.key(RANGE))).entries == ()


@on_both
async def test_a_put_that_is_refused_says_so_even_under_a_dead_lease(player: Player) -> None:
    await player.put_raw(NAMES[0], b"theirs")
    await player.grant(0)
    await player.revoke(0)
    put = await player.registry.put(player.key(NAMES[0]), b"1", lease=player.leases[0], expected=0)
    assert not put.is_done
    assert put.present is not None
    assert put.present.value == b"theirs"


@on_both
async def test_a_dead_lease_is_not_renewed_and_may_be_revoked_again(player: Player) -> None:
    await player.grant(0)
    await player.revoke(0)
    await player.revoke(0)
    with pytest.raises(LeaseExpired):
        await player.leases[0].renew()


@on_both
async def test_a_put_on_a_condition_says_what_stands_there(player: Player) -> None:
    await player.grant(0)
    assert await player.put(NAMES[0], b"1", 0, "absent") == (True, 1, None)
    present = (NAMES[0], b"1", 1, 1, 0)
    assert await player.put(NAMES[0], b"2", 0, "absent") == (False, 1, present)
    assert await player.put(NAMES[0], b"2", 0, "as it is") == (True, 2, None)
    await player.delete({NAMES[0]})
    put = await player.registry.put(
        player.key(NAMES[0]), b"3", lease=player.leases[0], expected=player.base + 2
    )
    assert (put.is_done, put.present) == (False, None)


class Reading:
    """Reads a watch while other things happen."""

    def __init__(self, player: Player, after: int) -> None:
        self.player = player
        self.stream = player.registry.watch(player.key(RANGE), after=player.base + after)
        self.found: list[object] = []

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(10):
            self.first = await anext(self.stream)
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.stream.aclose()  # type: ignore[attr-defined]

    async def _read(self) -> None:
        async for batch in self.stream:
            self.found += [self.player.seen(change) for change in batch.changes]

    async def read(self, changes: int) -> list[object]:
        await eventually_async(lambda: len(self.found) >= changes, timeout=10)
        return self.found


@on_both
async def test_a_watch_stands_before_it_delivers_and_delivers_in_order(player: Player) -> None:
    async with Reading(player, after=0) as reading:
        assert reading.first.changes == ()
        assert reading.first.revision == player.base
        for number in range(5):
            await player.put_raw(NAMES[number % 2], b"%d" % number)
        await player.put_raw("services/web2/aaaaaaaa", b"")
        await player.delete({NAMES[0]})
        found = await reading.read(6)
    created = [1, 2, 1, 2, 1]
    puts = [(NAMES[n % 2], b"%d" % n, created[n], n + 1, "none") for n in range(5)]
    assert found == [*puts, ("deleted", NAMES[0], 7)]


@on_both
async def test_a_watch_of_what_is_compacted_is_an_error(player: Player) -> None:
    for number in range(5):
        await player.put_raw(NAMES[0], b"%d" % number)
    await player.side.compact()
    async with asyncio.timeout(10):
        with pytest.raises(RevisionCompacted):
            async for _ in player.registry.watch(player.key(RANGE), after=player.base):
                pass
        async for batch in player.registry.watch(player.key(RANGE), after=player.base + 4):
            if batch.changes:
                break
    assert [player.seen(change) for change in batch.changes] == [(NAMES[0], b"4", 1, 5, "none")]


@on_both
async def test_a_watch_that_stands_outlives_a_compaction(player: Player) -> None:
    async with Reading(player, after=0) as reading:
        for _ in range(3):
            await player.put_raw("services/web2/aaaaaaaa", b"")
        await player.side.compact()
        await player.put_raw(NAMES[0], b"after")
        assert await reading.read(1) == [(NAMES[0], b"after", 4, 4, "none")]


# ---- etcd alone


@pytest.fixture
async def etcd(cluster: EtcdCluster) -> Any:
    player = Player(InEtcd(cluster), f"/alone/{next(_number)}/")
    await player.begin()
    yield player
    await player.registry.aclose()


async def test_a_lease_that_nobody_renews_runs_out_and_takes_its_keys(etcd: Player) -> None:
    lease = await etcd.registry.grant(1)
    assert lease.ttl == 1.0
    kept = await etcd.registry.grant(2)
    for name, held in ((NAMES[0], lease), (NAMES[1], lease), (NAMES[2], kept)):
        await etcd.registry.put(etcd.key(name), b"1", lease=held, expected=0)

    async def is_gone() -> bool:
        await kept.renew()
        entries = (await etcd.registry.list(etcd.key(RANGE))).entries
        return [etcd.name(entry.key) for entry in entries] == [NAMES[2]]

    await eventually_async(is_gone, timeout=20)
    with pytest.raises(LeaseExpired):
        await lease.renew()
    gone = (await etcd.watch(0))[-2]  # type: ignore[index]
    assert gone == {("deleted", NAMES[0], 4), ("deleted", NAMES[1], 4)}


@pytest.mark.parametrize("value", [b"", b"\x00\xff\xfe", bytes(range(256)), b"x" * 100_000])
async def test_a_value_comes_back_byte_for_byte(etcd: Player, value: bytes) -> None:
    lease = await etcd.registry.grant(60)
    await etcd.registry.put(etcd.key(NAMES[0]), value, lease=lease, expected=0)
    (entry,) = (await etcd.registry.list(etcd.key(RANGE))).entries
    assert entry.value == value
    assert entry.lease == lease.id
    await lease.revoke()


@pytest.mark.parametrize("page", [1, 2, 3, 9, 10, 11])
async def test_a_list_of_several_pages_is_whole(
    etcd: Player, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(etcd_registry, "PAGE", page)
    for number in range(10):
        await etcd.put_raw(f"{RANGE}{number}", b"%d" % number)
    listing = await etcd.registry.list(etcd.key(RANGE))
    assert [entry.value for entry in listing.entries] == [b"%d" % number for number in range(10)]
    assert etcd.since(listing.revision) == 10
    assert (await etcd.registry.list(etcd.key("services/none/"))).entries == ()


class Between:
    """Does something after the first page."""

    def __init__(self, etcd: Player, act: Any) -> None:
        self.members = etcd.registry._members  # type: ignore[attr-defined]
        self.act = act
        self.pages = 0

    async def call(self, path: str, *arguments: Any, **options: Any) -> Any:
        reply = await type(self.members).call(self.members, path, *arguments, **options)
        self.pages += path.endswith("/Range")
        if self.pages == 1 and self.act is not None:
            act, self.act = self.act, None
            await act()
        return reply


async def test_a_list_that_is_compacted_between_two_pages_begins_again(
    etcd: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_registry, "PAGE", 3)
    for number in range(9):
        await etcd.put_raw(f"{RANGE}{number}", b"old")

    async def compact() -> None:
        await etcd.put_raw(f"{RANGE}7", b"new")
        await etcd.put_raw("elsewhere", b"")
        await etcd.side.compact()

    between = Between(etcd, compact)
    monkeypatch.setattr(between.members, "call", between.call)
    listing = await etcd.registry.list(etcd.key(RANGE))
    assert between.pages == 4  # one in vain, its second refused, then three
    assert etcd.since(listing.revision) == 11
    assert [entry.value for entry in listing.entries] == [b"old"] * 7 + [b"new", b"old"]


async def test_a_probe_tells_what_is_newer_and_how_many_keys_there_are(etcd: Player) -> None:
    for number in range(3):
        await etcd.put_raw(f"{RANGE}{number}", b"1")
    await etcd.delete({f"{RANGE}0"})
    await etcd.put_raw("elsewhere", b"1")

    async def probe(after: int) -> tuple[int, bool, int]:
        found = await etcd.registry.probe(etcd.key(RANGE), after=etcd.base + after)
        return etcd.since(found.revision), bool(found.newest), found.count

    assert await etcd.past(0) == (0, None)
    assert [await etcd.past(after) for after in (1, 2, 3, 4, 5)] == [(1, 1), (2, 2), (3, 3), (2, 3), (2, 3)]
    assert await etcd.past(6) == "not there"
    assert await probe(0) == (5, True, 2)
    assert await probe(2) == (5, True, 2)
    assert await probe(3) == (5, False, 2)
    assert await probe(100) == (5, False, 2)


async def test_every_member_speaks_for_itself(cluster: EtcdCluster) -> None:
    """One that is down is a line in the answer and no error."""
    up, down = cluster.members[0].client_port, free_port()
    address = RegistryAddress.parse(f"etcd://127.0.0.1:{up},127.0.0.1:{down}")
    registry = EtcdRegistry(address, rng=Random(1))
    try:
        found = {status.name: status for status in await registry.status()}
        revision = (await registry.list("/")).revision
    finally:
        await registry.aclose()
    assert set(found) == {f"127.0.0.1:{up}", f"127.0.0.1:{down}"}
    well, ill = found[f"127.0.0.1:{up}"], found[f"127.0.0.1:{down}"]
    assert well.version == cluster.binary.version
    assert (well.error, well.is_leader, well.has_leader) == ("", True, True)
    assert 0 < well.revision <= revision
    assert 0 < well.latency < 5
    assert ill.error
    assert not ill.has_leader


async def test_a_member_that_is_down_is_passed_over(cluster: EtcdCluster) -> None:
    up, down = cluster.members[0].client_port, free_port()
    for seed in range(4):  # whichever comes first
        address = RegistryAddress.parse(f"etcd://127.0.0.1:{down},127.0.0.1:{up}")
        registry = EtcdRegistry(address, rng=Random(seed))
        try:
            assert (await registry.list("/nothing/")).entries == ()
        finally:
            await registry.aclose()


async def test_if_all_members_are_down_it_says_whom_it_asked() -> None:
    down = free_port()
    registry = EtcdRegistry(RegistryAddress.parse(f"etcd://127.0.0.1:{down}"), rng=Random(1))
    try:
        with pytest.raises(RegistryUnavailable, match=f"127.0.0.1:{down}"):
            await registry.list("/nothing/")
        with pytest.raises(RegistryUnavailable, match=f"127.0.0.1:{down}"):
            async for _ in registry.watch("/nothing/", after=1):
                pass
    finally:
        await registry.aclose()
