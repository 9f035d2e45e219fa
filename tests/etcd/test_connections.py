"""The connections of one process to the members: how many, who shares them, what breaks with them, who may try again."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from random import Random
from typing import Any, Self

import pytest

from discoclient.dev import EtcdCluster
from discoclient.model.errors import RegistryError, RegistryUnavailable
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import member as member_module
from discoclient.registry.etcd import members as members_module
from discoclient.registry.etcd import watch as watch_module
from discoclient.registry.etcd.member import Member, Purpose
from discoclient.registry.etcd.registry import EtcdRegistry
from tests.conftest import ELECTION, HEARTBEAT
from tests.support.eventually import eventually_async
from tests.support.proxy import FaultProxy
from tests.support.tls import cluster_tls


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EtcdRegistry]:
    registry = EtcdRegistry(RegistryAddress.parse(url), rng=Random(1))
    try:
        yield registry
    finally:
        await registry.aclose()


@pytest.fixture(params=["plain", "TLS"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    tls = cluster_tls(tmp_path_factory.mktemp("tls"), client=None) if request.param == "TLS" else None
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        yield cluster


@pytest.fixture
def proxy(etcd: EtcdCluster) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", etcd.members[0].client_port) as running:
        yield running


class Watches:
    """Many watches, each read by a task of its own until it breaks."""

    def __init__(self, registry: EtcdRegistry, names: list[str]) -> None:
        self.registry = registry
        self.standing: set[str] = set()
        self.heard: set[str] = set()
        self.errors: dict[str, RegistryError] = {}
        self.tasks = {name: asyncio.create_task(self._read(name)) for name in names}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end(*self.tasks)

    async def end(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await asyncio.gather(*(self.tasks[name] for name in names), return_exceptions=True)

    async def stand(self) -> Self:
        await eventually_async(lambda: self.standing >= self.tasks.keys(), timeout=20, what="all stand")
        return self

    async def _read(self, name: str) -> None:
        watch = self.registry.watch(name, after=0)
        try:
            async for batch in watch:
                self.standing.add(name)
                self.heard.update(change.key for change in batch.changes)
        except RegistryError as error:
            self.errors[name] = error
        finally:
            await watch.aclose()  # type: ignore[attr-defined]


async def put(registry: EtcdRegistry, *keys: str) -> None:
    lease = await registry.grant(60)
    await asyncio.gather(*(registry.put(key, b"1", lease=lease, expected=0) for key in keys))


def names(count: int, under: str = "/many") -> list[str]:
    return [f"{under}/{number}" for number in range(count)]


# ---- how many


async def test_more_watches_than_one_connection_may_carry_all_stand_and_hear(node: EtcdCluster) -> None:
    """etcd's TLS listener allows 250 streams on a connection."""
    many = names(260)
    async with opened(node.registry_url) as registry, Watches(registry, many) as watches:
        await watches.stand()
        assert watches.errors == {}
        await put(registry, *many)
        await eventually_async(lambda: watches.heard == set(many), timeout=20, what="all hear")
        assert watches.errors == {}


async def test_on_one_connection_alone_they_would_not(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    monkeypatch.setattr(member_module, "STREAMS", 1000)
    monkeypatch.setattr(watch_module, "ATTEMPT_TIMEOUT", 1.0)
    tls = cluster_tls(tmp_path_factory.mktemp("tls"), client=None)
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        async with opened(cluster.registry_url) as registry, Watches(registry, names(260)) as watches:
            await eventually_async(
                lambda: watches.errors or len(watches.standing) == 260, timeout=20, what="one does not open"
            )
            if not watches.errors:
                pytest.skip("this etcd allows more")
            assert all("did not open in time" in str(error) for error in watches.errors.values())
            assert len(watches.standing) == 250, "and those that stand are left alone"


@pytest.mark.parametrize(("streams", "connections"), [(10, 3), (25, 1), (100, 1)])
async def test_a_connection_carries_so_many_streams_and_no_more(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, streams: int, connections: int
) -> None:
    monkeypatch.setattr(member_module, "STREAMS", streams)
    async with opened(f"etcd://{proxy.address}") as registry, Watches(registry, names(25)) as watches:
        await watches.stand()
        assert proxy.connections == proxy.accepted == connections
        # One that is left by its last stream is closed, if another one has room.
        await watches.end(*names(25)[:24])
        await eventually_async(lambda: proxy.connections == 1, what="the others are closed")
        assert watches.errors == {}


async def test_calls_in_a_burst_are_spread_too_and_one_connection_stays(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "STREAMS", 10)
    async with opened(f"etcd://{proxy.address}") as registry:
        await asyncio.gather(*(registry.list("/nobody/") for _ in range(30)))
        accepted = proxy.accepted
        assert 2 <= accepted <= 3, "the first calls may have come back before the last connection was needed"
        await eventually_async(lambda: proxy.connections == 1, what="the others are closed")
        await registry.list("/nobody/")
        assert proxy.accepted == accepted


async def test_a_watch_that_is_given_up_gives_its_place_back(proxy: FaultProxy) -> None:
    async with opened(f"etcd://{proxy.address}") as registry:
        for _ in range(3):
            async with Watches(registry, names(5)) as watches:
                await watches.stand()
        (channel,) = registry._members.current(Purpose.WATCH)._channels[Purpose.WATCH]
        await eventually_async(lambda: channel.streams == 0, what="all places are free")


# ---- what breaks with it


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (watch_module, members_module):
        monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 0.3)
    monkeypatch.setattr(member_module, "CONNECT_TIMEOUT", 0.3)


@pytest.mark.usefixtures("impatient")
async def test_a_watch_that_does_not_open_in_time_breaks_no_other_one(proxy: FaultProxy) -> None:
    old, new, newer = names(3), names(1, "/new"), names(1, "/newer")
    async with opened(f"etcd://{proxy.address}") as registry, Watches(registry, old) as watches:
        await watches.stand()
        proxy.blackhole("to_client")
        async with Watches(registry, new) as late:
            await eventually_async(lambda: late.errors, what="it gives up")
            assert "did not open in time" in str(late.errors[new[0]])
        # The next one gets another connection: this one may be dead, which the keepalive will find out.
        async with Watches(registry, newer) as later:
            await eventually_async(lambda: later.errors or proxy.accepted == 2, what="another connection")
        assert watches.errors == {}
        proxy.heal()
        async with Watches(registry, names(1, "/last")) as last:
            await last.stand()
            keys = [*old, "/last/0"]
            async with opened(proxy_free_url(proxy)) as other:
                await put(other, *keys)
            await eventually_async(lambda: watches.heard | last.heard == set(keys), what="they hear")
        assert watches.errors == {}


def proxy_free_url(proxy: FaultProxy) -> str:
    host, port = proxy._target
    return f"etcd://{host}:{port}"


@pytest.mark.usefixtures("impatient")
async def test_a_connection_that_was_doubted_and_is_heard_again_is_used_again(proxy: FaultProxy) -> None:
    async with opened(f"etcd://{proxy.address}") as registry, Watches(registry, names(1)) as watches:
        await watches.stand()
        proxy.blackhole("to_client")
        async with Watches(registry, names(1, "/new")) as late:
            await eventually_async(lambda: late.errors, what="it gives up")
        (channel,) = registry._members.current(Purpose.WATCH)._channels[Purpose.WATCH]
        assert channel.is_doubted
        proxy.heal()
        await eventually_async(lambda: not channel.is_doubted, what="what was said meanwhile arrives")
        async with Watches(registry, names(1, "/last")) as last:
            await last.stand()
        assert proxy.connections == 1


async def test_a_call_without_an_answer_casts_doubt_only_on_a_connection_that_is_silent(
    etcd: EtcdCluster,
) -> None:
    async with opened(etcd.registry_url) as registry:
        members = registry._members
        member = members.current(Purpose.CALL)
        channel = await member.channel(Purpose.CALL)
        before = channel._heard_at
        await registry.list("/nobody/")
        channel.doubt(before)  # a call of before that list, and without an answer
        assert not channel.is_doubted
        channel.doubt(float("inf"))
        assert channel.is_doubted
        member.release(Purpose.CALL, channel)
        assert member._channels[Purpose.CALL] == [], "nobody is on it: it is closed"
        assert (await registry.list("/nobody/")).entries == ()


async def test_the_reader_of_a_watch_whose_task_ends_in_silence_is_told(etcd: EtcdCluster) -> None:
    async with opened(etcd.registry_url) as registry, Watches(registry, names(1)) as watches:
        before = asyncio.all_tasks()
        await watches.stand()
        for task in asyncio.all_tasks() - before:
            if "_pump" in repr(task):
                task.cancel()
        await eventually_async(lambda: watches.errors, what="its reader is told")


# ---- who may try again


class Port:
    """A port that takes connections, does *act* with each, and counts them."""

    def __init__(self, act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._act = act
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"etcd://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await self._act(reader, writer)
        finally:
            writer.close()


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def greet_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy without anybody behind it: an empty SETTINGS frame, then the end."""
    writer.write(b"\0\0\0\4\0\0\0\0\0")
    await writer.drain()
    await reader.read(65536)


async def insist(registry: EtcdRegistry, followers: int, seconds: float) -> None:
    """What the followers of many services do while their registry is away, with pauses far too short."""

    async def follow(number: int) -> None:
        while True:
            with pytest.raises(RegistryUnavailable):
                async for _ in registry.watch(f"/many/{number}", after=0):
                    pass
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(follow(number)) for number in range(followers)]
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()


@pytest.mark.parametrize("act", [close_at_once, greet_and_close])
async def test_many_followers_try_a_member_that_is_down_as_one(
    act: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    async with Port(act) as port, opened(port.url) as registry:
        await insist(registry, 100, 1.0)
        assert 2 <= port.accepted <= 15
    assert caplog.records == [], "nothing is written to a connection that has ended"
    # Negative control: no rest.
    monkeypatch.setattr(member_module, "REST_CAP", 0.0)
    async with Port(act) as port, opened(port.url) as registry:
        await insist(registry, 100, 1.0)
        assert port.accepted > 30


def test_the_rests_grow_to_a_try_a_second_on_average() -> None:
    rests = Member("127.0.0.1", 1, context=None, server_name=None, rng=Random(1))._new_rests()
    first = next(rests)
    assert first <= 0.1
    steady = list(islice(rests, 20, 2020))
    assert max(steady) <= 2.0
    assert sum(steady) / len(steady) == pytest.approx(1.0, abs=0.05)


@pytest.mark.usefixtures("impatient")
async def test_all_who_wait_share_one_attempt_and_its_failure() -> None:
    """As with a member that is frozen: the kernel takes the connection, and nobody answers."""
    async with Port(say_nothing) as port, opened(port.url) as registry:
        found = await asyncio.gather(
            *(registry.list("/nobody/") for _ in range(50)),
            *(insist(registry, 1, 0.1) for _ in range(20)),
            return_exceptions=True,
        )
        assert port.accepted == 1
        assert [str(error) for error in found[:50]] == [f"etcd {port.url[7:]}: no answer in time"] * 50


@pytest.mark.usefixtures("impatient")
async def test_whoever_gives_up_waiting_does_not_spoil_the_attempt_for_the_others(proxy: FaultProxy) -> None:
    proxy.blackhole()
    async with opened(f"etcd://{proxy.address}") as registry:
        first = asyncio.create_task(registry.list("/nobody/"))
        await eventually_async(lambda: proxy.accepted == 1, what="it connects")
        second = asyncio.create_task(registry.list("/nobody/"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        proxy.heal()
        assert (await second).entries == ()
        assert proxy.accepted == 1


async def test_when_a_member_is_back_everybody_is_and_at_once(proxy: FaultProxy) -> None:
    proxy.cut()
    async with opened(f"etcd://{proxy.address}") as registry:
        with pytest.raises(RegistryUnavailable):
            await registry.list("/nobody/")
        member = registry._members.current(Purpose.WATCH)
        await eventually_async(lambda: not member.rest(Purpose.WATCH), what="it may be tried")
        member._failed(ConnectionResetError())
        proxy.heal()
        # Nobody knows that it is back, and all members rest: they wait for the one attempt, and follow it.
        async with Watches(registry, names(150)) as watches:
            await watches.stand()
            assert watches.errors == {}
            assert proxy.accepted == 2, "a hundred on the first one"


async def test_a_member_that_rests_is_passed_over(etcd: EtcdCluster) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await close_at_once(reader, writer)

    async with Port(refuse) as port:
        url = f"{port.url},127.0.0.1:{etcd.members[0].client_port}"
        for seed in range(4):  # whichever comes first
            registry = EtcdRegistry(RegistryAddress.parse(url), rng=Random(seed))
            for member in registry._members:
                member._rests_until = float("inf") if member.name in port.url else 0.0
            try:
                async with Watches(registry, names(3)) as watches:
                    await watches.stand()
                    await registry.list("/nobody/")
            finally:
                await registry.aclose()
        assert port.accepted == 0


async def test_a_connection_that_lasted_has_its_successor_at_once(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(f"etcd://{proxy.address}") as registry:
        member = registry._members.current(Purpose.CALL)
        for lasting, rests in ((0.0, False), (60.0, True)):
            monkeypatch.setattr(member_module, "LASTING", lasting)
            await registry.list("/nobody/")
            (channel,) = member._channels[Purpose.CALL]
            proxy.reset()
            await eventually_async(lambda channel=channel: channel.is_lost, what="it is lost")
            assert (member.rest(Purpose.CALL) > 0) is rests


async def test_a_closed_registry_asks_nobody(proxy: FaultProxy) -> None:
    async with opened(f"etcd://{proxy.address}") as registry:
        await registry.list("/nobody/")
    with pytest.raises(RegistryUnavailable, match="closed"):
        await registry.list("/nobody/")
    assert proxy.accepted == 1


async def test_nothing_is_left_of_connections_that_came_and_went(proxy: FaultProxy) -> None:
    async with opened(f"etcd://{proxy.address}") as registry:
        before = asyncio.all_tasks()
        for _ in range(5):
            async with Watches(registry, names(20)) as watches:
                await watches.stand()
                proxy.reset()
                await eventually_async(lambda watches=watches: len(watches.errors) == 20, what="all broke")
            await registry.list("/nobody/")
        held = [
            channel
            for member in registry._members
            for channels in member._channels.values()
            for channel in channels
        ]
        assert len(held) <= 2
        assert asyncio.all_tasks() == before
