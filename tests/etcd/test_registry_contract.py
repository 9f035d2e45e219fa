"""The registry in memory is the model that much else is tested against: it has to behave as real etcd does."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.dev import EtcdCluster
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Entry, Put
from tests.conftest import ELECTION, HEARTBEAT
from tests.etcd.scripts import Op, play
from tests.support.properties import thorough

KEYS = st.sampled_from(["a", "b", "c/d"])
LEASES = st.integers(0, 2)
OPS = st.one_of(
    st.tuples(st.just("grant")),
    st.tuples(
        st.just("put"),
        KEYS,
        st.sampled_from([b"1", b"2"]),
        LEASES,
        st.sampled_from(["absent", "known", "wrong", "whatever"]),
    ),
    st.tuples(st.just("put"), KEYS, st.sampled_from([b"1", b"2"]), LEASES, st.just("known")),
    st.tuples(st.just("note"), KEYS),
    st.tuples(
        st.just("attach"),
        KEYS,
        st.sampled_from([b"1", b"2"]),
        st.sampled_from(["absent", "known", "wrong"]),
    ),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("revoke"), LEASES),
    st.tuples(st.just("renew"), LEASES),
    st.tuples(st.just("list"), st.sampled_from(["", "a", "c/"])),
    st.tuples(st.just("children"), st.sampled_from(["", "c/"])),
    st.tuples(st.just("probe"), st.integers(0, 3)),
)
SCRIPTS = st.lists(OPS, min_size=10, max_size=40).map(lambda ops: [("grant",), *ops])


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """A node of this file's own: on the shared one others' leases end meanwhile, and count a revision."""
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


def on_etcd(cluster: EtcdCluster, script: list[Op]) -> list[Any]:
    async def run() -> list[Any]:
        registry = EtcdRegistry(RegistryAddress.parse(cluster.registry_url), rng=Random(1))
        try:
            return await play(registry, f"/c/{uuid.uuid4().hex}/", lambda revision: cluster.compact(), script)
        finally:
            await registry.aclose()

    return asyncio.run(run())


def in_memory(script: list[Op], store: MemoryStore | None = None) -> list[Any]:
    store = store or MemoryStore()

    async def run() -> list[Any]:
        registry = MemoryRegistry(store, clock=lambda: 0.0)
        try:
            return await play(registry, "/c/", store.compact, script)
        finally:
            await registry.aclose()

    return asyncio.run(run())


def test_memory_does_what_etcd_does(etcd: EtcdCluster) -> None:
    @thorough(25)
    @given(SCRIPTS)
    def check(script: list[Op]) -> None:
        assert in_memory(script) == on_etcd(etcd, script)

    check()


def test_a_history_that_was_compacted_is_gone_from_both(etcd_node: EtcdCluster) -> None:
    script: list[Op] = [
        ("grant",),
        ("put", "a", b"1", 0, "known"),
        ("put", "a", b"2", 0, "known"),
        ("put", "b", b"1", 0, "known"),
        ("forget",),
        ("list", ""),
    ]
    record = in_memory(script)
    assert record[-1] == ("history", "compacted")
    assert record == on_etcd(etcd_node, script)


class Careless(MemoryStore):
    """Negative control: puts whatever was expected."""

    def put(self, key: str, value: bytes, *, lease: int = 0, expected: int | None = None) -> Put:
        return super().put(key, value, lease=lease)


class Clinging(MemoryStore):
    """Negative control: attaches to what does not stand there any more, or not as it was."""

    def attach(self, entry: Entry, key: str, value: bytes, *, expected: int, **others: Any) -> Put:
        return self.put(key, value, lease=entry.lease, expected=expected)


class Forgetful(MemoryStore):
    """Negative control: a key that is put under another lease still dies with the old one."""

    def put(self, key: str, value: bytes, *, lease: int = 0, expected: int | None = None) -> Put:
        before = {id: set(held.keys) for id, held in self._leases.items()}
        put = super().put(key, value, lease=lease, expected=expected)
        for id, keys in before.items():
            self._leases[id].keys |= keys
        return put


def test_a_model_that_is_wrong_is_told_apart(etcd: EtcdCluster) -> None:
    script: list[Op] = [
        ("grant",),
        ("grant",),
        ("put", "a", b"1", 0, "known"),
        ("put", "a", b"2", 1, "known"),
        ("put", "a", b"3", 0, "wrong"),
        ("note", "a"),
        ("put", "a", b"4", 1, "known"),
        ("attach", "b", b"1", "absent"),
        ("revoke", 0),
    ]
    real = on_etcd(etcd, script)
    assert in_memory(script) == real
    assert in_memory(script, Careless()) != real
    assert in_memory(script, Clinging()) != real
    assert in_memory(script, Forgetful()) != real
