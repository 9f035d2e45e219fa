"""etcd as bare as Python can have it: grpclib and etcd's messages, without recovery, timeouts, or anything of ours.

The reference for everything that goes through the registry, and the hand that changes it while others measure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from etcd3.etcdrpc import rpc_pb2 as rpc
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration

from discoclient.model.instance import Instance
from discoclient.registry.codec import encode
from discoclient.registry.keys import Keys

__all__ = ["BareEtcd", "prefix_of", "record"]

_PUTS_A_TRANSACTION = 100  # etcd takes 128
_WINDOW = 16 * 2**20


class BareEtcd:
    """One connection to the first member of *registry*. An async context manager."""

    def __init__(self, registry: str) -> None:
        self._registry = registry

    async def __aenter__(self) -> Self:
        place = urlsplit(self._registry.partition(",")[0])
        config = Configuration(http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW)
        self._channel = Channel(place.hostname, place.port, config=config)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._channel.close()
        await asyncio.sleep(0)

    async def lease(self, ttl: int = 3600) -> int:
        return int((await self._call("Lease/LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl), "LeaseGrant")).ID)

    async def put(self, key: str, value: bytes, lease: int) -> int:
        """The revision of the change."""
        request = rpc.PutRequest(key=key.encode(), value=value, lease=lease)
        return int((await self._call("KV/Put", request, "Put")).header.revision)

    async def delete(self, key: str) -> int:
        """The revision of the change."""
        request = rpc.DeleteRangeRequest(key=key.encode())
        return int((await self._call("KV/DeleteRange", request, "DeleteRange")).header.revision)

    async def put_all(self, entries: Sequence[tuple[str, bytes]], lease: int) -> None:
        for start in range(0, len(entries), _PUTS_A_TRANSACTION):
            puts = [
                rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease))
                for key, value in entries[start : start + _PUTS_A_TRANSACTION]
            ]
            await self._call("KV/Txn", rpc.TxnRequest(success=puts), "Txn")

    async def replace(self, old: str, key: str, value: bytes, lease: int) -> int:
        """Put one key and delete another in one transaction; the revision of the change."""
        steps = [
            rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease)),
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=old.encode())),
        ]
        return int((await self._call("KV/Txn", rpc.TxnRequest(success=steps), "Txn")).header.revision)

    async def list(self, prefix: str) -> Sequence[Any]:
        """Every key below *prefix*, in one answer."""
        request = rpc.RangeRequest(key=prefix.encode(), range_end=_end(prefix))
        return list((await self._call("KV/Range", request, "Range")).kvs)

    async def watch(self, prefix: str) -> AsyncIterator[Any]:
        """etcd's answers: the one that says that the watch stands, then one for each revision (or several)."""
        method = StreamStreamMethod[Any, Any](
            self._channel, "/etcdserverpb.Watch/Watch", rpc.WatchRequest, rpc.WatchResponse
        )
        async with method.open() as stream:
            create = rpc.WatchCreateRequest(key=prefix.encode(), range_end=_end(prefix))
            await stream.send_message(rpc.WatchRequest(create_request=create))
            while (response := await stream.recv_message()) is not None:
                yield response

    async def _call(self, path: str, request: Any, name: str) -> Any:
        reply = getattr(rpc, f"{name}Response")
        method = UnaryUnaryMethod[Any, Any](self._channel, f"/etcdserverpb.{path}", type(request), reply)
        return await method(request)


def prefix_of(service: str) -> str:
    return Keys().service(service)


def record(service: str, number: int, *, version: str = "2.4.1") -> tuple[str, bytes]:
    """Key and value of the instance *number* of *service*, with everything in it that a real one has."""
    instance = Instance(
        service=service,
        id=f"{number:032x}",
        host=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        port=20000 + number % 20000,
        pid=1000 + number,
        hostname=f"web-{number}",
        version=version,
        zone="eu-west-1a",
        http_keepalive=5.0,
        registered_at="2026-11-23T15:00:00Z",
    )
    return Keys().instance(service, instance.id), encode(instance)


def _end(prefix: str) -> bytes:
    return prefix.encode()[:-1] + b"0"
