"""``etcd://`` and ``etcds://``: the registry in an etcd cluster."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from random import Random
from time import monotonic
from types import MappingProxyType
from typing import Any

from ...model.errors import LeaseExpired, RegistryError, RegistryUnavailable, RevisionCompacted
from ..address import RegistryAddress
from ..protocol import Batch, Deletion, Entry, Listing, MemberStatus, Probe, Put
from ..protocol import Lease as LeaseProtocol
from . import messages
from .member import Member, Purpose
from .members import ATTEMPT_TIMEOUT, Lane, Members
from .watch import WatchPump

__all__ = ["EtcdRegistry"]

PAGE = 2000
"""Keys a page of a list: about 0.7 MB with usual records, far from gRPC's and etcd's limits."""

RENEWAL_TIMEOUT = 0.75
"""Seconds that a member may take at least to renew a short lease. A grpc-proxy takes half a second."""


class EtcdRegistry:
    """A `Registry` over etcd's gRPC API, with every call bounded and every member tried."""

    def __init__(self, address: RegistryAddress, *, rng: Random) -> None:
        self._rpc = messages.load()
        self._members = Members(address, rng=rng)

    async def list(self, range: str, *, serializable: bool = False) -> Listing:
        return await self._list(range, serializable=serializable, keys_only=False)

    async def children(self, range: str) -> tuple[str, ...]:
        listing = await self._list(range, serializable=False, keys_only=True)
        return tuple(entry.key for entry in listing.entries if entry.lease)

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        key, end = _bounds(range)
        create = self._rpc.WatchCreateRequest(
            key=key, range_end=end, start_revision=after + 1, progress_notify=True
        )
        async with WatchPump(self._members, self._rpc, create) as pump:
            while True:
                response = await pump.receive()
                yield Batch(response.header.revision, tuple(_change(event) for event in response.events))

    async def probe(self, range: str, *, after: int, is_past: bool = False) -> Probe:
        """See `Registry`. The member reads and sorts the whole range for it: 10,000 keys take it 14-24 ms (3.4.23, 3.5.1),
        as much as one that filters by revision would, and a fifth of listing them.
        """
        key, end = _bounds(range)
        rpc = self._rpc
        request = rpc.RangeRequest(
            key=key,
            range_end=end,
            revision=after if is_past else 0,
            sort_order=rpc.RangeRequest.DESCEND,
            sort_target=rpc.RangeRequest.MOD,
            limit=1,
        )
        other = self._members.other(Purpose.WATCH)
        reply = await self._members.call("/etcdserverpb.KV/Range", request, rpc.RangeResponse, start=other)
        last = _entry(reply.kvs[0]) if reply.kvs else None
        if last is not None and last.mod_revision > after:
            return Probe(reply.header.revision, last.mod_revision, reply.count)
        return Probe(reply.header.revision, 0, reply.count, last)

    async def grant(self, ttl: float) -> LeaseProtocol:
        rpc = self._rpc
        request = rpc.LeaseGrantRequest(TTL=math.ceil(ttl))
        reply = await self._members.call(
            "/etcdserverpb.Lease/LeaseGrant", request, rpc.LeaseGrantResponse, lane=Lane.LEASE
        )
        if reply.error:
            raise RegistryError(f"etcd granted no lease: {reply.error}")
        return _EtcdLease(self._members, rpc, reply.ID, float(reply.TTL))

    async def put(self, key: str, value: bytes, *, lease: LeaseProtocol, expected: int | None) -> Put:
        compare = {} if expected is None else {key: expected}
        return await self._put(key, value, lease.id, compare)

    async def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        # The revision, not the lease: it says that the entry stands, and under which lease.
        return await self._put(
            key, value, entry.lease, {**unchanged, entry.key: entry.mod_revision, key: expected}
        )

    async def delete(self, key: str) -> None:
        request = self._rpc.DeleteRangeRequest(key=key.encode())
        await self._members.call("/etcdserverpb.KV/DeleteRange", request, self._rpc.DeleteRangeResponse)

    async def _put(self, key: str, value: bytes, lease: int, revisions: Mapping[str, int]) -> Put:
        """If the keys of *revisions* have these ``mod_revision``s."""
        rpc, name = self._rpc, key.encode()
        request = rpc.TxnRequest(
            compare=[
                rpc.Compare(
                    result=rpc.Compare.EQUAL,
                    target=rpc.Compare.MOD,
                    key=other.encode(),
                    mod_revision=revision,
                )
                for other, revision in revisions.items()
            ],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=name, value=value, lease=lease))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=name))],
        )
        reply = await self._members.call("/etcdserverpb.KV/Txn", request, rpc.TxnResponse)
        if reply.succeeded:
            return Put(True, reply.header.revision)
        found = reply.responses[0].response_range.kvs
        return Put(False, reply.header.revision, _entry(found[0]) if found else None)

    async def status(self) -> tuple[MemberStatus, ...]:
        """Every member's word on itself, asked side by side."""
        return tuple(await asyncio.gather(*(self._status(member) for member in self._members)))

    async def aclose(self) -> None:
        self._members.close()
        await asyncio.sleep(0)  # lets the transports see their closing

    async def _list(self, range: str, *, serializable: bool, keys_only: bool) -> Listing:
        for _ in (1, 2, 3):
            try:
                return await self._pages(range, serializable=serializable, keys_only=keys_only)
            except RevisionCompacted:
                continue  # compacted between two pages: once more from the start
        raise RegistryUnavailable("the registry is compacted faster than it can be listed")

    async def _pages(self, range: str, *, serializable: bool, keys_only: bool) -> Listing:
        key, end = _bounds(range)
        revision = 0
        entries: list[Entry] = []
        while True:
            request = self._rpc.RangeRequest(
                key=key,
                range_end=end,
                limit=PAGE,
                revision=revision,
                serializable=serializable,
                keys_only=keys_only,
            )
            reply = await self._members.call(
                "/etcdserverpb.KV/Range",
                request,
                self._rpc.RangeResponse,
                lane=Lane.MEMBER if serializable else Lane.QUORUM,
            )
            revision = revision or reply.header.revision
            entries.extend(map(_entry, reply.kvs))
            if not reply.more:
                return Listing(revision, tuple(entries))
            key = reply.kvs[-1].key + b"\0"

    async def _status(self, member: Member) -> MemberStatus:
        began = monotonic()
        try:
            reply = await self._members.ask(
                member,
                "/etcdserverpb.Maintenance/Status",
                self._rpc.StatusRequest(),
                self._rpc.StatusResponse,
            )
        except RegistryError as error:
            return MemberStatus(member.name, error=str(error))
        return MemberStatus(
            name=member.name,
            version=reply.version,
            revision=reply.header.revision,
            is_leader=reply.leader == reply.header.member_id,
            has_leader=reply.leader != 0,
            latency=monotonic() - began,
        )


class _EtcdLease:
    def __init__(self, members: Members, rpc: Any, id: int, ttl: float) -> None:
        self._members = members
        self._rpc = rpc
        self.id = id
        self.ttl = ttl

    async def renew(self) -> float:
        reply = await self._members.call(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            self._rpc.LeaseKeepAliveRequest(ID=self.id),
            self._rpc.LeaseKeepAliveResponse,
            purpose=Purpose.LEASE,
            lane=Lane.LEASE,
            timeout=min(ATTEMPT_TIMEOUT, max(RENEWAL_TIMEOUT, self.ttl / 4)),
        )
        if reply.TTL <= 0:  # etcd's way to say that the lease is gone; not an error of gRPC
            raise LeaseExpired(f"lease {self.id:x} is gone")
        return float(reply.TTL)

    async def revoke(self) -> None:
        request = self._rpc.LeaseRevokeRequest(ID=self.id)
        try:
            await self._members.call(
                "/etcdserverpb.Lease/LeaseRevoke", request, self._rpc.LeaseRevokeResponse, lane=Lane.LEASE
            )
        except LeaseExpired:
            pass


def _bounds(range: str) -> tuple[bytes, bytes]:
    """The first key and the end of a range, as etcd wants them: ``/`` + 1 is ``0``."""
    key = range.encode()
    return (key, key[:-1] + b"0") if range.endswith("/") else (key, b"")


def _entry(kv: Any) -> Entry:
    return Entry(_text(kv.key), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _change(event: Any) -> Entry | Deletion:
    return (
        Deletion(_text(event.kv.key), event.kv.mod_revision)
        if event.type == event.DELETE
        else _entry(event.kv)
    )


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
