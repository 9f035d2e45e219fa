"""`EtcdRegistry` on real etcd: what the rest of the house takes for granted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from discoclient.dev import EtcdCluster
from discoclient.model.errors import LeaseExpired, RegistryUnavailable, RevisionCompacted
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import members, registry
from discoclient.registry.etcd.member import Member, Purpose
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.protocol import Batch, Deletion, Entry


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[EtcdRegistry, str]]:
    """A registry, and the prefix that the test has for itself."""
    address = RegistryAddress.parse(url)
    found = EtcdRegistry(address, rng=Random(1))
    try:
        yield found, address.prefix
    finally:
        await found.aclose()


async def until(watch: AsyncIterator[Batch], count: int) -> list[Entry | Deletion]:
    """The first *count* changes that a watch delivers."""
    changes: list[Entry | Deletion] = []
    async with asyncio.timeout(10):
        async for batch in watch:
            changes += batch.changes
            if len(changes) >= count:
                break
    return changes


@pytest.fixture
def short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(members.Members.call.__kwdefaults__, "timeout", 0.5)
    return 0.5


async def test_a_range_is_what_lies_below_it_and_nothing_beside(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        for key in ("/a/b", "/a/b/1", "/a/b/2/x", "/a/b2", "/a/b0", "/a/c"):
            await etcd.put(base + key, key.encode(), lease=lease, expected=0)
        below = await etcd.list(f"{base}/a/b/")
        assert [entry.key.removeprefix(base) for entry in below.entries] == ["/a/b/1", "/a/b/2/x"]
        alone = await etcd.list(f"{base}/a/b")
        assert [entry.value for entry in alone.entries] == [b"/a/b"]


async def test_a_list_of_many_pages_is_as_of_one_revision(
    registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        for number in range(10):
            await etcd.put(f"{base}/{number}", b"old", lease=lease, expected=0)
        monkeypatch.setattr(registry, "PAGE", 3)
        call, pages = etcd._members.call, 0

        async def call_and_write(*args: Any, **options: Any) -> Any:
            nonlocal pages
            reply = await call(*args, **options)
            if args[0].endswith("Range"):
                pages += 1
                last = f"{base}/9"
                known = (await etcd_two.list(last)).entries[0].mod_revision
                await etcd_two.put(last, b"new", lease=lease, expected=known)
            return reply

        async with opened(registry_url) as (etcd_two, _):
            monkeypatch.setattr(etcd._members, "call", call_and_write)
            listing = await etcd.list(f"{base}/")
        assert pages == 4
        assert [entry.value for entry in listing.entries] == [b"old"] * 10
        assert max(entry.mod_revision for entry in listing.entries) <= listing.revision


async def test_a_key_that_is_not_text_does_no_harm(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        watch = etcd.watch(f"{base}/", after=(await etcd.list(f"{base}/")).revision)
        await anext(watch)
        lease = await etcd.grant(60)
        name = b"\xff\xfe".decode("utf-8", "surrogateescape")
        rpc = etcd._rpc
        put = rpc.PutRequest(key=f"{base}/".encode() + b"\xff\xfe", value=b"\x00\xff", lease=lease.id)
        await etcd._members.call("/etcdserverpb.KV/Put", put, rpc.PutResponse)
        (entry,) = (await etcd.list(f"{base}/")).entries
        assert (entry.key, entry.value) == (f"{base}/{name}", b"\x00\xff")
        assert await until(watch, 1) == [entry]
        await watch.aclose()  # type: ignore[attr-defined]


async def test_a_watch_says_first_that_it_stands_and_then_everything_in_order(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        start = (await etcd.list(f"{base}/")).revision
        first = await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        watch = etcd.watch(f"{base}/", after=start)
        opening = await anext(watch)
        assert opening.changes == ()
        assert opening.revision >= first.revision
        await etcd.put(f"{base}/b", b"2", lease=lease, expected=0)
        await lease.revoke()
        changes = await until(watch, 4)
        await watch.aclose()  # type: ignore[attr-defined]
        assert [type(change) for change in changes] == [Entry, Entry, Deletion, Deletion]
        assert changes[2].mod_revision == changes[3].mod_revision


async def test_a_watch_from_before_the_compaction_says_so(etcd_node: EtcdCluster) -> None:
    async with opened(etcd_node.registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        first = await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        for number in range(3):
            await etcd.put(f"{base}/b{number}", b"1", lease=lease, expected=0)
        await asyncio.to_thread(etcd_node.compact)
        with pytest.raises(RevisionCompacted) as caught:
            await until(etcd.watch(f"{base}/", after=first.revision - 1), 1)
        oldest = caught.value.oldest
        assert oldest > first.revision
        watch = etcd.watch(f"{base}/", after=oldest)
        await anext(watch)
        await etcd.put(f"{base}/c", b"1", lease=lease, expected=0)
        assert [change.key for change in await until(watch, 1)] == [f"{base}/c"]
        await watch.aclose()  # type: ignore[attr-defined]


async def test_what_is_attached_goes_with_the_lease_of_what_it_is_attached_to(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        (entry,) = (await etcd.list(f"{base}/a")).entries
        put = await etcd.attach(entry, f"{base}/b", b"asked", expected=0)
        assert put.is_done
        (attached,) = (await etcd.list(f"{base}/b")).entries
        assert (attached.value, attached.lease, attached.mod_revision) == (b"asked", lease.id, put.revision)
        await lease.revoke()
        assert (await etcd.list(f"{base}/")).entries == ()


async def test_nothing_is_attached_to_what_does_not_stand_as_it_did(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        first = await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        (entry,) = (await etcd.list(f"{base}/a")).entries
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=first.revision)
        put = await etcd.attach(entry, f"{base}/b", b"asked", expected=0)
        assert (put.is_done, put.present) == (False, None)
        await etcd.delete(f"{base}/a")
        put = await etcd.attach(entry, f"{base}/b", b"asked", expected=0)
        assert (put.is_done, put.present) == (False, None)
        assert (await etcd.list(f"{base}/")).entries == ()


async def test_nothing_is_attached_over_what_was_not_expected(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        await etcd.put(f"{base}/b", b"first", lease=lease, expected=0)
        entry, present = (await etcd.list(f"{base}/")).entries
        put = await etcd.attach(entry, f"{base}/b", b"second", expected=0)
        assert (put.is_done, put.present) == (False, present)
        assert (await etcd.attach(entry, f"{base}/b", b"second", expected=present.mod_revision)).is_done


async def test_nothing_is_attached_once_another_key_has_changed(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        (entry,) = (await etcd.list(f"{base}/a")).entries
        nobody = {f"{base}/c": 0}
        assert (await etcd.attach(entry, f"{base}/b", b"1", expected=0, unchanged=nobody)).is_done
        other = await etcd.put(f"{base}/c", b"1", lease=lease, expected=0)
        (present,) = (await etcd.list(f"{base}/b")).entries
        for unchanged, is_done in ((nobody, False), ({f"{base}/c": other.revision}, True)):
            put = await etcd.attach(
                entry, f"{base}/b", b"2", expected=present.mod_revision, unchanged=unchanged
            )
            assert put.is_done == is_done


async def test_nothing_is_attached_under_a_lease_that_is_gone(registry_url: str) -> None:
    """The instance died between the look and the transaction."""
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        (entry,) = (await etcd.list(f"{base}/a")).entries
        await lease.revoke()
        assert not (await etcd.attach(entry, f"{base}/b", b"asked", expected=0)).is_done


async def test_a_key_of_ours_alone_is_put_and_deleted_whatever_is_there(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        for value in (b"1", b"2"):
            assert (await etcd.put(f"{base}/a", value, lease=lease, expected=None)).is_done
        assert not (await etcd.put(f"{base}/a", b"3", lease=lease, expected=0)).is_done
        await etcd.put(f"{base}/a/b", b"beside", lease=lease, expected=None)
        for _ in range(2):
            await etcd.delete(f"{base}/a")
        assert [entry.value for entry in (await etcd.list(f"{base}/")).entries] == [b"beside"]


async def test_a_lease_that_is_gone_can_be_revoked_but_not_renewed_or_used(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await lease.revoke()
        await lease.revoke()
        with pytest.raises(LeaseExpired):
            await lease.renew()
        with pytest.raises(LeaseExpired):
            await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)


async def test_a_lease_has_the_ttl_that_was_granted(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, _):
        lease = await etcd.grant(7.2)
        assert lease.ttl == 8
        assert await lease.renew() == 8
        least = await etcd.grant(0.1)
        assert least.ttl >= 1


async def test_status_tells_of_each_member_and_of_the_one_that_is_down(cluster3: EtcdCluster) -> None:
    async with opened(cluster3.registry_url) as (etcd, _):
        before = await etcd.status()
        assert len(before) == 3
        assert all(member.version and member.has_leader and not member.error for member in before)
        assert sum(member.is_leader for member in before) == 1
        follower = next(member for member in cluster3.members if member is not cluster3.leader())
        follower.kill()
        after = {member.name: member for member in await etcd.status()}
        assert after[f"127.0.0.1:{follower.client_port}"].error
        assert sum(not member.error for member in after.values()) == 2


async def test_calls_go_to_the_next_member_when_one_is_dead(cluster3: EtcdCluster) -> None:
    async with opened(cluster3.registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        dead = etcd._members.current(Purpose.CALL).name
        victim = next(m for m in cluster3.members if dead.endswith(f":{m.client_port}"))
        await asyncio.to_thread(victim.kill)
        await asyncio.to_thread(cluster3.leader)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert len((await etcd.list(f"{base}/")).entries) == 1
                    break
                except RegistryUnavailable:  # an election is going on
                    await asyncio.sleep(0.05)
        assert etcd._members.current(Purpose.CALL).name != dead


@pytest.mark.usefixtures("short_attempts")
async def test_a_member_that_is_frozen_is_given_up_in_bounded_time(etcd_node: EtcdCluster) -> None:
    async with opened(etcd_node.registry_url) as (etcd, base):
        await etcd.list(f"{base}/")
        etcd_node.members[0].pause()
        try:
            async with asyncio.timeout(10):
                with pytest.raises(RegistryUnavailable, match="no answer in time"):
                    await etcd.list(f"{base}/")
        finally:
            etcd_node.members[0].resume()
        async with asyncio.timeout(10):
            while True:
                try:
                    await etcd.list(f"{base}/")
                    break
                except RegistryUnavailable:
                    await asyncio.sleep(0.05)


async def test_one_member_answers_for_itself_when_the_quorum_is_gone(cluster3: EtcdCluster) -> None:
    async with opened(cluster3.registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        survivor = cluster3.leader()
        for member in cluster3.members:
            if member is not survivor:
                await asyncio.to_thread(member.kill)
        assert [e.value for e in (await etcd.list(f"{base}/", serializable=True)).entries] == [b"1"]
        with pytest.raises(RegistryUnavailable):
            await etcd.list(f"{base}/")


async def test_a_probe_asks_another_member_than_the_watch(
    cluster3: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(cluster3.registry_url) as (etcd, base):
        asked: list[Member | None] = []
        call = etcd._members.call

        async def remember(*args: Any, start: Member | None = None, **options: Any) -> Any:
            asked.append(start)
            return await call(*args, start=start, **options)

        monkeypatch.setattr(etcd._members, "call", remember)
        revision = (await etcd.list(f"{base}/")).revision
        await etcd.probe(f"{base}/", after=revision)
        assert asked[-1] is not None
        assert asked[-1] is not etcd._members.current(Purpose.WATCH)
