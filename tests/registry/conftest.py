"""A registry with two instances, and a machine that follows it; what other tests of the machine begin with is their own."""

from __future__ import annotations

import pytest

from discoclient.registry.memory_store import MemoryStore
from tests.registry.shell import RANGE, Shell


@pytest.fixture
def store() -> MemoryStore:
    """Two instances under one lease each."""
    store = MemoryStore()
    for name in "ab":
        store.put(f"{RANGE}{name * 8}", b"1", lease=store.grant(10, 0)[0])
    return store


@pytest.fixture
def shell(store: MemoryStore) -> Shell:
    """Live, and nothing that came before counts."""
    shell = Shell(store).live()
    shell.forget()
    return shell
