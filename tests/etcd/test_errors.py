"""What a failed call means, and how it is said."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from random import Random

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from discoclient.dev import EtcdCluster
from discoclient.model.errors import (
    LeaseExpired,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    RevisionCompacted,
)
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd.errors import NotSpoken, TokenRefused, translate
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.protocol import Untrusted
from tests.conftest import ELECTION, HEARTBEAT
from tests.support.ports import free_port
from tests.support.tls import cluster_tls


def ssl_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = kind(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    return error


def not_spoken(cause: BaseException, *, is_tls: bool) -> NotSpoken:
    error = NotSpoken(is_tls=is_tls)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (GRPCError(Status.UNAVAILABLE, "no leader"), RegistryUnavailable, "no leader (UNAVAILABLE)"),
        (GRPCError(Status.UNAUTHENTICATED, "bad token"), TokenRefused, "bad token"),
        (GRPCError(Status.INVALID_ARGUMENT, "revision of auth store is old"), TokenRefused, "is old"),
        (GRPCError(Status.INVALID_ARGUMENT, "authentication failed"), RegistryDenied, "failed"),
        (GRPCError(Status.PERMISSION_DENIED, "permission denied"), RegistryDenied, "denied"),
        (GRPCError(Status.NOT_FOUND, "requested lease not found"), LeaseExpired, "lease"),
        (GRPCError(Status.OUT_OF_RANGE, "required revision has been compacted"), RevisionCompacted, ""),
        (GRPCError(Status.OUT_OF_RANGE, "required revision is a future revision"), RevisionCompacted, ""),
        (GRPCError(Status.RESOURCE_EXHAUSTED, "too big"), RegistryError, "too big"),
        # As a grpc-proxy passes them on.
        (GRPCError(Status.UNKNOWN, "etcdserver: invalid auth token"), TokenRefused, "token"),
        (GRPCError(Status.UNKNOWN, "etcdserver: permission denied"), RegistryDenied, "denied"),
        (GRPCError(Status.UNKNOWN, "etcdserver: requested lease not found"), LeaseExpired, "lease"),
        (GRPCError(Status.UNKNOWN, "required revision has been compacted"), RevisionCompacted, ""),
        (GRPCError(Status.UNKNOWN, "required revision is a future revision"), RevisionCompacted, ""),
        (GRPCError(Status.UNKNOWN, "invalid user ID or password"), RegistryDenied, "password"),
        (GRPCError(Status.UNKNOWN, "user name is empty"), RegistryDenied, "empty"),
        (GRPCError(Status.UNKNOWN, "context canceled"), RegistryUnavailable, "canceled"),
        (ssl_error("SSLV3_ALERT_BAD_CERTIFICATE"), Untrusted, "wants a client certificate"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), Untrusted, "wants a client certificate"),
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), Untrusted, "wants a client certificate"),
        (ssl_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), Untrusted, "wants a client certificate"),
        (ssl_error("UNEXPECTED_EOF"), RegistryUnavailable, "UNEXPECTED_EOF"),
        (not_spoken(ConnectionResetError(), is_tls=True), RegistryUnavailable, "does it speak TLS?"),
        (not_spoken(ConnectionResetError(), is_tls=False), RegistryUnavailable, "is it etcds://"),
        (TimeoutError(), RegistryUnavailable, "no answer in time"),
        (ConnectionRefusedError(111, "refused"), RegistryUnavailable, "refused"),
        (AssertionError(), RegistryUnavailable, "AssertionError"),
    ],
)
def test_each_error_is_one_of_ours(error: BaseException, kind: type[RegistryError], text: str) -> None:
    found = translate(error, "h:1")
    assert type(found) is kind
    assert str(found).startswith("etcd h:1: ")
    assert text in str(found)


def test_only_what_does_not_pass_by_itself_is_final() -> None:
    bad = ssl.SSLCertVerificationError(1, "bad")
    bad.verify_message = "expired"
    assert type(translate(bad, "h:1")) is Untrusted
    for error in (ConnectionResetError(), TimeoutError(), not_spoken(ConnectionResetError(), is_tls=True)):
        assert not isinstance(translate(error, "h:1"), Untrusted)


# ---- the same, in life


async def trouble(url: str) -> RegistryError:
    registry = EtcdRegistry(RegistryAddress.parse(url), rng=Random(1))
    try:
        async with asyncio.timeout(10):
            with pytest.raises(RegistryError) as caught:
                await registry.list("/nobody/")
        return caught.value
    finally:
        await registry.aclose()


async def test_tls_to_a_plain_port_asks_whether_it_speaks_tls(etcd: EtcdCluster, tmp_path: Path) -> None:
    ca = cluster_tls(tmp_path, client=None).ca
    port = etcd.members[0].client_port
    text = str(await trouble(f"etcds://127.0.0.1:{port}?ca={ca}"))
    assert text.startswith(f"etcd 127.0.0.1:{port}: the TLS handshake failed, ")
    assert text.endswith(": does it speak TLS? (without it, it is etcd://)")


async def test_plain_to_a_tls_port_asks_whether_it_is_etcds(tmp_path: Path) -> None:
    tls = cluster_tls(tmp_path, client=None)
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        port = cluster.members[0].client_port
        text = str(await trouble(f"etcd://127.0.0.1:{port}"))
    assert text.startswith(f"etcd 127.0.0.1:{port}: it took the connection and spoke no HTTP/2, ")
    assert text.endswith(": is it etcds://, with TLS?")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR wrong\r\n"])
async def test_whoever_speaks_something_else_is_quoted(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        text = str(await trouble(f"etcd://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert f"it said {said[:9]!r}" in text


async def test_an_error_is_final_only_if_it_is_every_members(tmp_path: Path) -> None:
    tls = cluster_tls(tmp_path, client=None)
    foreign = cluster_tls(tmp_path / "foreign", client=None).ca
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        up, down = f"127.0.0.1:{cluster.members[0].client_port}", f"127.0.0.1:{free_port()}"
        assert type(await trouble(f"etcds://{up}?ca={foreign}")) is Untrusted
        for hosts in (f"{up},{down}", f"{down},{up}"):
            found = await trouble(f"etcds://{hosts}?ca={foreign}")
            assert type(found) is RegistryUnavailable
            assert down in str(found)
