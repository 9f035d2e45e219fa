"""Through a real ``etcd grpc-proxy``: everything that the registry does, what breaks with it, and what it saves etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from random import Random
from typing import Any

import pytest
from grpclib.client import Stream, StreamStreamMethod
from grpclib.exceptions import GRPCError

from discoclient import State, register
from discoclient.dev import EtcdCluster
from discoclient.dev.grpc_proxy import GrpcProxy, read_metrics
from discoclient.model.errors import LeaseExpired, RegistryDenied, RevisionCompacted
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import messages
from discoclient.registry.etcd.member import Purpose
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.happenings import Phase
from discoclient.registry.protocol import Deletion
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import FAST, Look, look
from tests.faults.raw import Raw
from tests.support.eventually import eventually

WATCHERS = "etcd_debugging_mvcc_watcher_total"
STREAMS = "etcd_debugging_mvcc_watch_stream_total"


@pytest.fixture
def members() -> Iterator[EtcdCluster]:
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture
def proxy(members: EtcdCluster) -> Iterator[GrpcProxy]:
    with GrpcProxy(endpoints(members)) as running:
        yield running


def endpoints(cluster: EtcdCluster) -> list[str]:
    return [f"127.0.0.1:{member.client_port}" for member in cluster.members]


def at_etcd(cluster: EtcdCluster) -> tuple[float, float]:
    """Streams and watches at all members, those of the proxies themselves included."""
    found = [read_metrics(member.client_port, STREAMS, WATCHERS) for member in cluster.members]
    return sum(each[STREAMS] for each in found), sum(each[WATCHERS] for each in found)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EtcdRegistry]:
    registry = EtcdRegistry(RegistryAddress.parse(url), rng=Random(1))
    try:
        yield registry
    finally:
        await registry.aclose()


def states(seen: Look) -> dict[str, State]:
    snapshot = seen.resolver.snapshot
    return {each.id: each.state for each in snapshot} if snapshot is not None else {}


def is_live(seen: Look) -> bool:
    return seen.resolver.phase is Phase.LIVE


# ---- what works as without it


def test_a_service_registers_is_seen_drains_and_is_gone(members: EtcdCluster, proxy: GrpcProxy) -> None:
    with look(proxy.registry_url, "web") as seen:
        with register("web", 9, host="127.0.0.1", ttl=5, registry=proxy.registry_url) as here:
            eventually(lambda: states(seen) == {here.instance.id: State.READY})
            assert Raw(members, members.registry_url).instance("web", here.instance.id)
            here.drain()
        eventually(lambda: states(seen) == {})
        drained = [each.state for snapshot in seen.snapshots for each in snapshot]
        assert State.DRAINING in drained


async def test_a_lease_is_renewed_for_as_long_as_somebody_does_and_no_longer(
    members: EtcdCluster, proxy: GrpcProxy
) -> None:
    async with opened(proxy.registry_url) as etcd, opened(members.registry_url) as direct:
        lease = await etcd.grant(2)
        put = await etcd.put("/s/a", b"1", lease=lease, expected=0)
        async with aclosing(etcd.watch("/s/", after=put.revision)) as watch:  # type: ignore[type-var]
            await anext(watch)
            for _ in range(5):  # each takes the proxy up to half a second
                assert await lease.renew() == lease.ttl
                await asyncio.sleep(0.3)
            assert (await direct.list("/s/")).entries, "it outlived its ttl"
            async with asyncio.timeout(10):
                batch = await anext(batch async for batch in watch if batch.changes)
        assert [type(change) for change in batch.changes] == [Deletion]
        with pytest.raises(LeaseExpired):
            await lease.renew()


async def test_a_renewal_that_ends_with_its_request_is_not_answered(proxy: GrpcProxy) -> None:
    """The control of the one above, and the reason for how leases are renewed (python-etcd3's issue 560)."""
    rpc = messages.load()
    async with opened(proxy.registry_url) as etcd:
        lease = await etcd.grant(10)
        member, channel, _ = await etcd._members.begin(Purpose.LEASE)
        method = StreamStreamMethod[Any, Any](
            channel,
            "/etcdserverpb.Lease/LeaseKeepAlive",
            rpc.LeaseKeepAliveRequest,
            rpc.LeaseKeepAliveResponse,
        )
        with pytest.raises(GRPCError, match="cancel"):
            async with asyncio.timeout(5), method.open() as stream:
                await stream.send_message(rpc.LeaseKeepAliveRequest(ID=lease.id), end=True)
                assert await stream.recv_message() is None
        member.release(Purpose.LEASE, channel)


async def test_revisions_come_whole_and_in_order_whatever_the_watch_began_with(
    members: EtcdCluster, proxy: GrpcProxy
) -> None:
    async with opened(proxy.registry_url) as etcd:
        lease = await etcd.grant(60)
        first = (await etcd.put("/s/0", b"", lease=lease, expected=0)).revision

        async def follow(after: int, until: int) -> list[int]:
            found: list[int] = []
            async with aclosing(etcd.watch("/s/", after=after)) as watch:  # type: ignore[type-var]
                async for batch in watch:
                    found += [change.mod_revision for change in batch.changes]
                    if found and found[-1] >= until:
                        return found
            raise AssertionError("a watch ended by itself")

        last = first + 30
        early = [asyncio.create_task(follow(first, last)) for _ in range(3)]
        late: list[asyncio.Task[list[int]]] = []
        for number in range(1, 31):
            await etcd.put(f"/s/{number}", b"", lease=lease, expected=0)
            if number % 10 == 5:  # from the past: the proxy has them catch up, and merges them then
                late.append(asyncio.create_task(follow(first + 2, last)))
        async with asyncio.timeout(10):
            for found in await asyncio.gather(*early):
                assert found == list(range(first + 1, last + 1))
            for found in await asyncio.gather(*late):
                assert found == list(range(first + 3, last + 1))


async def test_a_compacted_past_is_said_and_a_new_list_goes_on(
    members: EtcdCluster, proxy: GrpcProxy
) -> None:
    async with opened(proxy.registry_url) as etcd:
        lease = await etcd.grant(60)
        for number in range(5):
            await etcd.put("/s/a", b"%d" % number, lease=lease, expected=None)
        members.compact()
        with pytest.raises(RevisionCompacted):
            async with asyncio.timeout(10), aclosing(etcd.watch("/s/", after=1)) as watch:  # type: ignore[type-var]
                async for _ in watch:
                    pass
        with pytest.raises(RevisionCompacted):
            await etcd.probe("/s/", after=2, is_past=True)
        listing = await etcd.list("/s/")
        async with asyncio.timeout(10), aclosing(etcd.watch("/s/", after=listing.revision)) as watch:  # type: ignore[type-var]
            await anext(watch)
            await etcd.put("/s/b", b"", lease=lease, expected=0)
            batch = await anext(watch)
        assert [change.key for change in batch.changes] == ["/s/b"]


async def test_what_is_proved_fresh_was_asked_of_a_quorum_and_not_of_the_proxys_cache(
    members: EtcdCluster, proxy: GrpcProxy
) -> None:
    """It answers serializable reads from a cache, which changes made past it do not reach."""
    async with opened(proxy.registry_url) as etcd, opened(members.registry_url) as direct:
        lease = await direct.grant(60)
        put = await direct.put("/s/a", b"1", lease=lease, expected=0)
        await etcd.list("/s/")
        newer = await direct.put("/s/b", b"1", lease=lease, expected=0)
        probe = await etcd.probe("/s/", after=put.revision)
        assert (probe.newest, probe.count) == (newer.revision, 2)
        assert len((await etcd.list("/s/")).entries) == 2


async def test_no_progress_is_asked_for_that_it_could_not_answer(
    monkeypatch: pytest.MonkeyPatch, members: EtcdCluster, proxy: GrpcProxy
) -> None:
    """It knows create and cancel; 3.4's panics at anything else."""
    sent: list[str | None] = []
    send = Stream.send_message

    async def noted(self: Stream[Any, Any], message: Any, **options: bool) -> None:
        if type(message).__name__ == "WatchRequest":
            sent.append(message.WhichOneof("request_union"))
        await send(self, message, **options)

    monkeypatch.setattr(Stream, "send_message", noted)
    async with opened(proxy.registry_url) as etcd, aclosing(etcd.watch("/s/", after=1)) as watch:  # type: ignore[type-var]
        assert await anext(watch)
    assert sent == ["create_request"]


def test_a_quiet_watch_is_live_all_the_same_because_its_silence_is_asked_about(proxy: GrpcProxy) -> None:
    with look(proxy.registry_url, "web") as seen:
        eventually(lambda: is_live(seen))
        fresh_at = seen.resolver._follower.fresh_at
        eventually(lambda: seen.resolver._follower.fresh_at != fresh_at, timeout=10 * FAST.silence)
        assert is_live(seen)
        assert seen.lists == 1


# ---- what breaks with it


def test_while_the_proxy_is_away_what_is_known_stays_and_then_it_is_caught_up(
    members: EtcdCluster, proxy: GrpcProxy
) -> None:
    raw = Raw(members, members.registry_url)
    known = raw.add("web")
    with look(proxy.registry_url, "web") as seen:
        eventually(lambda: seen.ids == {known.id})
        proxy.kill()
        eventually(lambda: not is_live(seen))
        newcomer = raw.add("web")
        assert seen.ids == {known.id}
        proxy.start()
        eventually(lambda: seen.ids == {known.id, newcomer.id}, timeout=10)
        eventually(lambda: is_live(seen), timeout=10)
        assert all(snapshot.by_id for snapshot in seen.snapshots), "never empty"


def test_a_registration_outlives_its_proxy(members: EtcdCluster, proxy: GrpcProxy) -> None:
    raw = Raw(members, members.registry_url)
    with register("web", 9, host="127.0.0.1", ttl=2, registry=proxy.registry_url) as here:
        eventually(lambda: raw.instances("web"))
        proxy.kill()
        eventually(lambda: not raw.instances("web"), timeout=15, what="the lease is over")
        proxy.start()
        eventually(lambda: set(raw.instances("web")) == {here.instance.id}, timeout=15)


def test_with_two_proxies_one_may_hang(members: EtcdCluster, proxy: GrpcProxy) -> None:
    """The question is asked of the other one: that is what a second name in the URL is for."""
    raw = Raw(members, members.registry_url)
    known = raw.add("web")
    with GrpcProxy(endpoints(members)) as other:
        url = f"{proxy.registry_url},127.0.0.1:{other.port}"
        with look(url, "web") as seen:
            eventually(lambda: is_live(seen))
            proxy.pause()
            newcomer = raw.add("web")
            eventually(lambda: seen.ids == {known.id, newcomer.id}, timeout=20)
            proxy.resume()


def test_the_member_behind_it_dies_and_the_proxy_goes_to_another(cluster3: EtcdCluster) -> None:
    with GrpcProxy(endpoints(cluster3)) as proxy, look(proxy.registry_url, "web") as seen:
        raw = Raw(cluster3, cluster3.registry_url)
        eventually(lambda: is_live(seen))
        for member in cluster3.members[:1]:
            member.kill()
        newcomer = raw.add("web", at=cluster3.leader())
        eventually(lambda: seen.ids == {newcomer.id}, timeout=20)
        eventually(lambda: is_live(seen), timeout=20)


# ---- what it is for


def test_twenty_clients_behind_it_are_one_watch_at_etcd(members: EtcdCluster, proxy: GrpcProxy) -> None:
    raw = Raw(members, members.registry_url)
    own = at_etcd(members)
    with ExitStack() as stack:
        seen = [stack.enter_context(look(proxy.registry_url, "web"))]
        eventually(lambda: is_live(seen[0]))
        one = at_etcd(members)
        assert one[1] - own[1] == 1
        seen += [stack.enter_context(look(proxy.registry_url, "web")) for _ in range(19)]
        eventually(lambda: all(map(is_live, seen)), timeout=20)
        eventually(lambda: at_etcd(members)[1] == one[1], timeout=10, what="they are merged")
        assert at_etcd(members)[0] <= one[0] + 1
        newcomer = raw.add("web")
        eventually(lambda: all(each.ids == {newcomer.id} for each in seen), timeout=10)


def test_without_it_they_are_twenty(members: EtcdCluster) -> None:
    """The control."""
    own = at_etcd(members)
    with ExitStack() as stack:
        seen = [stack.enter_context(look(members.registry_url, "web")) for _ in range(20)]
        eventually(lambda: all(map(is_live, seen)), timeout=20)
        assert at_etcd(members)[1] - own[1] == 20
        assert at_etcd(members)[0] - own[0] == 20


# ---- users


@pytest.fixture
def guarded(members: EtcdCluster) -> EtcdCluster:
    """Where one has to say who one is: ``web`` may read and write below /s/, and nothing else."""
    for command in (
        "user add root:r",
        "user grant-role root root",
        "user add web:w",
        "role add web",
        "role grant-permission --prefix web readwrite /s/",
        "user grant-role web web",
        "auth enable",
    ):
        members.etcdctl(*command.split())
    return members


def as_user(user: str, url: str) -> str:
    return url.replace("://", f"://{user}@")


async def test_each_client_is_itself_behind_the_proxy(guarded: EtcdCluster, proxy: GrpcProxy) -> None:
    async with opened(as_user("web:w", proxy.registry_url)) as etcd:
        lease = await etcd.grant(30)
        put = await etcd.put("/s/a", b"1", lease=lease, expected=0)
        assert [entry.key for entry in (await etcd.list("/s/")).entries] == ["/s/a"]
        async with asyncio.timeout(10), aclosing(etcd.watch("/s/", after=put.revision - 1)) as watch:  # type: ignore[type-var]
            batches = [await anext(watch), await anext(watch)]
        assert [change.mod_revision for batch in batches for change in batch.changes] == [put.revision]
        assert await lease.renew() == lease.ttl
        with pytest.raises(RegistryDenied):
            await etcd.list("/t/")
        with pytest.raises(RegistryDenied):
            async with asyncio.timeout(10), aclosing(etcd.watch("/t/", after=1)) as watch:  # type: ignore[type-var]
                async for _ in watch:
                    pass
    async with opened(as_user("web:wrong", proxy.registry_url)) as etcd:
        with pytest.raises(RegistryDenied):
            await etcd.list("/s/")
