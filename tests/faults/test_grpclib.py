"""What we rely on in grpclib and no promise of its covers: each of these fails if a new version changes it."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import pytest
from grpclib.client import Channel, Stream, StreamStreamMethod
from grpclib.config import Configuration
from packaging.requirements import Requirement

from discoclient import RegistryUnavailable, RevisionCompacted
from discoclient.dev import EtcdCluster
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import channel as channels
from discoclient.registry.etcd import messages
from discoclient.registry.etcd.channel import MemberChannel, make_ssl_context
from discoclient.registry.etcd.members import Members
from discoclient.registry.etcd.registry import EtcdRegistry
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import assert_sees, look
from tests.faults.raw import Raw
from tests.support.eventually import eventually, eventually_async
from tests.support.processes import Processes
from tests.support.proxy import FaultProxy
from tests.support.tls import cluster_tls

_ROOT = Path(__file__).resolve().parents[2]
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_KINDS = {0: "data", 1: "headers", 3: "reset", 4: "settings", 6: "ping", 7: "goaway", 8: "window"}
_ACK = 1

ENDED = "[Cc]onnection (lost|closed)"
"""What grpclib says of a connection that has ended."""

PRIVATE = (
    "_keepalive_time",
    "_keepalive_timeout",
    "_http2_max_pings_without_data",
    "_http2_min_sent_ping_interval_without_data",
)


class Frames:
    """Counts the HTTP/2 frames in one direction of one connection, by kind. An acknowledged ping is a ``ping ack``."""

    def __init__(self, *, skip: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._bytes = bytearray()
        self._skip = skip

    def feed(self, data: bytes) -> None:
        self._bytes += data
        if self._skip and len(self._bytes) >= self._skip:
            del self._bytes[: self._skip]
            self._skip = 0
        while not self._skip and len(self._bytes) >= 9:
            length = int.from_bytes(self._bytes[:3])
            if len(self._bytes) < 9 + length:
                return
            kind, flags = _KINDS.get(self._bytes[3], "other"), self._bytes[4]
            self.counts[f"{kind} ack" if kind == "ping" and flags & _ACK else kind] += 1
            del self._bytes[: 9 + length]


class Tap(FaultProxy):
    """A proxy that counts the frames of each connection, in plain HTTP/2."""

    def __init__(self, etcd: EtcdCluster) -> None:
        super().__init__("127.0.0.1", etcd.members[0].client_port)
        self.sent: list[Counter[str]] = []
        """What clients sent, by connection, in the order in which they came."""
        self.received: list[Counter[str]] = []
        """What they got."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = Frames(skip=len(_PREFACE)), Frames()
        self.sent.append(up.counts)
        self.received.append(down.counts)
        feed, write = reader.feed_data, writer.write
        reader.feed_data = lambda data: (up.feed(data), feed(data))  # type: ignore[method-assign,assignment]
        writer.write = lambda data: (down.feed(data), write(data))  # type: ignore[method-assign,assignment]
        await super()._serve(reader, writer)


@pytest.fixture(scope="module")
def lenient() -> Iterator[EtcdCluster]:
    """An etcd that may be pinged often."""
    flags = ["--grpc-keepalive-min-time=10ms"]
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=flags) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def tls_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    tls = cluster_tls(tmp_path_factory.mktemp("tls"), client=None)
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        yield cluster


@pytest.fixture
def tap(lenient: EtcdCluster) -> Iterator[Tap]:
    with Tap(lenient) as running:
        yield running


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings every fifth of a second, with time for the answer."""
    monkeypatch.setattr(channels, "KEEPALIVE_TIME", 0.2)
    monkeypatch.setattr(channels, "KEEPALIVE_SPACING", 0.1)


class Plain(MemberChannel):
    """A `MemberChannel` without some of its settings: negative controls."""

    def __init__(self, *arguments: Any, without: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        kept = {
            field.name: getattr(self._config, field.name)
            for field in dataclasses.fields(Configuration)
            if field.name != without
        }
        self._config = Configuration(**kept).__for_client__()


async def watch(channel: Channel) -> Stream[Any, Any]:
    """A watch that stands, and hears nothing."""
    rpc = messages.load()
    method = StreamStreamMethod[Any, Any](
        channel, "/etcdserverpb.Watch/Watch", rpc.WatchRequest, rpc.WatchResponse
    )
    stream = method.open()
    await stream.__aenter__()
    create = rpc.WatchCreateRequest(key=b"/nobody/", range_end=b"/nobody0")
    await stream.send_message(rpc.WatchRequest(create_request=create))
    created = await stream.recv_message()
    assert created.created
    return stream


def members_of(url: str) -> Members:
    return Members(RegistryAddress.parse(url), rng=Random(0))


# ---- the version


def test_grpclib_is_pinned_below_the_next_minor_version() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = (found for found in map(Requirement, project["dependencies"]) if found.name == "grpclib")
    assert version("grpclib") in pin.specifier
    assert "0.4.9" in pin.specifier
    assert "0.5.0" not in pin.specifier


# ---- keepalive


def test_the_private_settings_of_keepalive_are_there() -> None:
    assert set(PRIVATE) <= {field.name for field in dataclasses.fields(Configuration)}
    usual: Any = Configuration().__for_client__()
    assert usual._keepalive_time is None, "no pings unless they are asked for"
    assert usual._http2_max_pings_without_data == 2, "and this turns the other settings off"


def test_etcd_is_not_pinged_more_often_than_it_allows() -> None:
    """5 s is etcd's ``--grpc-keepalive-min-time`` unless told otherwise; more often is a GOAWAY."""
    assert channels.KEEPALIVE_TIME >= channels.KEEPALIVE_SPACING >= 5.0


@pytest.mark.usefixtures("often")
async def test_an_idle_watch_is_pinged_for_as_long_as_it_stands(lenient: EtcdCluster, tap: Tap) -> None:
    at: Any = ("127.0.0.1", tap.port)
    named: Any = {"context": None, "server_name": None}
    ways = [
        MemberChannel(*at, **named),
        *(Plain(*at, **named, without=name) for name in PRIVATE if name != "_keepalive_timeout"),
    ]
    streams = [await watch(channel) for channel in ways]
    ours, *_ = tap.sent
    data = [counts["data"] for counts in tap.sent]
    await eventually_async(lambda: ours["ping"] >= 6, timeout=20, what="pings go on")
    assert [counts["data"] for counts in tap.sent] == data, "without data"
    assert tap.received[0]["ping ack"] >= 5
    # Negative controls: what grpclib does without each of the settings.
    assert [counts["ping"] for counts in tap.sent[1:]] == [0, 2, 1]
    for channel in ways:
        channel.close()
    for stream in streams:
        with pytest.raises(Exception, match=ENDED):
            await stream.recv_message()


async def took(stream: Stream[Any, Any], *, patience: float) -> float | None:
    """Seconds until the watch is known to be broken; ``None`` if it is not within *patience*."""
    began = time.monotonic()
    reading = asyncio.ensure_future(stream.recv_message())
    done, _ = await asyncio.wait([reading], timeout=patience)
    if not done:
        reading.cancel()
        await asyncio.wait([reading])
        return None
    assert isinstance(reading.exception(), Exception)
    return time.monotonic() - began


@pytest.mark.usefixtures("often")
async def test_a_peer_that_no_longer_answers_pings_is_given_up(
    tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "KEEPALIVE_TIMEOUT", 0.5)
    at: Any = ("127.0.0.1", tap.port)
    named: Any = {"context": None, "server_name": None}
    ours, control = MemberChannel(*at, **named), Plain(*at, **named, without="_keepalive_time")
    streams = await watch(ours), await watch(control)
    tap.blackhole()
    noticed, unnoticed = await asyncio.gather(took(streams[0], patience=10), took(streams[1], patience=3))
    assert noticed is not None
    assert 0.4 < noticed < 3
    assert unnoticed is None
    ours.close()
    control.close()


class WithoutShutdownTimeout(MemberChannel):
    """A negative control: grpclib's own way to connect."""

    _create_connection = Channel._create_connection


@pytest.mark.usefixtures("often")
async def test_on_tls_a_peer_that_no_longer_answers_is_given_up_as_soon(
    tls_etcd: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "KEEPALIVE_TIMEOUT", 0.5)
    context = make_ssl_context(RegistryAddress.parse(tls_etcd.registry_url))
    with FaultProxy("127.0.0.1", tls_etcd.members[0].client_port) as proxy:
        ways = [
            kind("127.0.0.1", proxy.port, context=context, server_name=None)
            for kind in (MemberChannel, WithoutShutdownTimeout)
        ]
        streams = [await watch(channel) for channel in ways]
        proxy.blackhole()
        noticed, unnoticed = await asyncio.gather(took(streams[0], patience=15), took(streams[1], patience=4))
        assert noticed is not None
        assert 1.4 < noticed < 5, "keepalive, its answer, and a second of TLS"
        assert unnoticed is None, "asyncio waits 30 s for the peer's part of the goodbye"
        for channel in ways:
            channel.close()


class Polite(MemberChannel):
    """A negative control: it closes as grpclib does, and waits for the peer's goodbye."""

    close = Channel.close


async def test_on_tls_a_channel_is_closed_at_once_whatever_its_peer_does(tls_etcd: EtcdCluster) -> None:
    context = make_ssl_context(RegistryAddress.parse(tls_etcd.registry_url))
    with FaultProxy("127.0.0.1", tls_etcd.members[0].client_port) as proxy:
        ways = [
            kind("127.0.0.1", proxy.port, context=context, server_name=None)
            for kind in (MemberChannel, Polite)
        ]
        streams = [await watch(channel) for channel in ways]
        transports: list[Any] = [channel._transport for channel in ways]
        sockets = [transport.get_extra_info("socket") for transport in transports]
        proxy.blackhole()
        for channel in ways:
            channel.close()
        for _ in range(3):  # as many rounds as the background loop has when the interpreter exits
            await asyncio.sleep(0)
        assert [sock.fileno() == -1 for sock in sockets] == [True, False]
        transports[1].abort()
        for stream in streams:
            with pytest.raises(Exception, match=ENDED):
                await stream.recv_message()


async def test_an_own_ssl_context_asks_for_http2(tls_etcd: EtcdCluster) -> None:
    address = RegistryAddress.parse(tls_etcd.registry_url)
    ours, control = make_ssl_context(address), ssl.create_default_context(cafile=address.ca)
    assert ours is not None
    spoken = []
    for context in (ours, control):
        _, writer = await asyncio.open_connection("127.0.0.1", tls_etcd.members[0].client_port, ssl=context)
        spoken.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.transport.abort()  # a farewell would be an error when etcd speaks first
    assert spoken == ["h2", None]


# ---- what a call leaves behind


async def read(members: Members, timeout: float) -> None:
    """A read that the member does not answer."""
    rpc = messages.load()
    await members.call(
        "/etcdserverpb.KV/Range", rpc.RangeRequest(key=b"/nobody"), rpc.RangeResponse, timeout=timeout
    )


async def read_barely(channel: Channel, timeout: float) -> None:
    """The same, as grpclib is meant to be called."""
    rpc = messages.load()
    method = StreamStreamMethod[Any, Any](
        channel, "/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse
    )
    async with method.open(timeout=timeout) as stream:
        await stream.send_message(rpc.RangeRequest(key=b"/nobody"), end=True)
        await stream.recv_message()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_deadline_leaves_the_task_of_the_caller_as_it_was(tap: Tap) -> None:
    members, channel = members_of(f"etcd://{tap.address}"), Channel("127.0.0.1", tap.port)
    await read(members, 5)
    await read_barely(channel, 5)
    tap.blackhole()

    async def call_and_go_on(call: Any, error: type[Exception]) -> int:
        """What is left on the task; the outer timeout comes afterwards."""
        async with asyncio.timeout(0.6):
            with pytest.raises(error):
                await call
            left.append(cancelling())
            await asyncio.sleep(60)
        raise AssertionError("unreachable")

    left: list[int] = []
    with pytest.raises(TimeoutError):
        await asyncio.create_task(call_and_go_on(read(members, 0.2), RegistryUnavailable))
    # Negative control: called directly, the timeout of somebody else turns into a cancellation that nobody asked for.
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(call_and_go_on(read_barely(channel, 0.2), TimeoutError))
    assert left == [0, 1]
    members.close()
    channel.close()


async def test_a_watch_that_breaks_leaves_the_task_of_its_reader_as_it_was(tap: Tap) -> None:
    registry = EtcdRegistry(RegistryAddress.parse(f"etcd://{tap.address}"), rng=Random(0))
    channel = Channel("127.0.0.1", tap.port)
    bare = await watch(channel)

    async def follow() -> None:
        async for _ in registry.watch("/nobody/", after=0):
            tap.reset()

    async def follow_barely() -> None:
        await bare.recv_message()

    async def left_by(reader: Any) -> int:
        with pytest.raises(Exception, match=ENDED):
            await reader()
        return cancelling()

    assert await asyncio.gather(left_by(follow_barely), left_by(follow)) == [1, 0], (
        "the first is the negative control"
    )
    await registry.aclose()
    channel.close()


async def test_lists_leases_and_watches_have_a_connection_each(lenient: EtcdCluster, tap: Tap) -> None:
    """HTTP/2's window is shared by all streams of a connection: a big list must not hold up a lease or a watch."""
    registry = EtcdRegistry(RegistryAddress.parse(f"etcd://{tap.address}"), rng=Random(0))
    lease = await registry.grant(60)
    await registry.list("/nobody/")
    assert len(tap.sent) == 1
    await lease.renew()
    assert len(tap.sent) == 2
    async for _ in registry.watch("/nobody/", after=0):
        break
    assert len(tap.sent) == 3
    await lease.renew()
    await lease.revoke()
    assert len(tap.sent) == 3, "and keep it"
    await registry.aclose()


# ---- GOAWAY


def list_again_at_every_end(registry: Any) -> None:
    """A negative control: a watch that ends is taken for lost."""
    plain = registry.watch

    async def watched(range: str, *, after: int) -> Any:
        try:
            async for batch in plain(range, after=after):
                yield batch
        except RegistryUnavailable as error:
            raise RevisionCompacted(str(error)) from error

    registry.watch = watched


def test_a_watch_goes_on_after_goaway_without_listing_again(
    etcd: EtcdCluster, registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd says GOAWAY to whoever pings it more often than every 5 s, again and again."""
    monkeypatch.setattr(channels, "KEEPALIVE_TIME", 0.1)
    monkeypatch.setattr(channels, "KEEPALIVE_SPACING", 0.05)
    raw = Raw(etcd, registry_url)
    with Tap(etcd) as tap, Tap(etcd) as other:
        url, control_url = (
            f"etcd://{it.address}{registry_url[registry_url.index('/t/') :]}" for it in (tap, other)
        )
        with look(url) as looking, look(control_url, without=list_again_at_every_end) as control:
            for goaways in (1, 2, 3):
                for it in (tap, other):
                    eventually(
                        lambda it=it, goaways=goaways: (
                            sum(counts["goaway"] for counts in it.received) >= goaways
                        ),
                        timeout=20,
                        what="etcd says GOAWAY",
                    )
                for seeing in (looking, control):
                    assert_sees(seeing, raw.add("experiment"), within=10)
            assert looking.lists == 1
            assert control.lists > 1


# ---- the end

UNCLOSED = """
import asyncio, sys
from grpclib.client import Channel
from discoclient import connect

url, port, whose = sys.argv[1:]
if whose == "ours":
    handle = connect(url)
    handle.instances("experiment")
else:
    async def use():
        channel = Channel("127.0.0.1", int(port))
        await channel.__connect__()
        return channel

    loop = asyncio.new_event_loop()
    used = loop.run_until_complete(use())
"""


def test_nothing_is_said_of_connections_that_are_open_when_the_interpreter_exits(
    etcd: EtcdCluster, registry_url: str, processes: Processes
) -> None:
    port = str(etcd.members[0].client_port)
    ours, bare = (
        processes.python("-X", "dev", "-c", UNCLOSED, registry_url, port, whose) for whose in ("ours", "bare")
    )
    assert ours.wait(timeout=20) == 0
    assert ours.errors == ""
    bare.wait(timeout=20)
    assert "Unclosed connection" in bare.errors, "the negative control"
