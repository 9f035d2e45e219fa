"""What seeded bugs showed that no other test here would notice as soon: see `tests/seeded`."""

from __future__ import annotations

import asyncio

from discoclient.registry.protocol import Entry
from tests.etcd.test_registry_basics import opened


async def test_a_watch_begins_with_what_comes_after_its_revision(registry_url: str) -> None:
    async with opened(registry_url) as (etcd, base):
        lease = await etcd.grant(60)
        known = await etcd.put(f"{base}/a", b"1", lease=lease, expected=0)
        newer = await etcd.put(f"{base}/b", b"1", lease=lease, expected=0)
        watch = etcd.watch(f"{base}/", after=known.revision)
        changes: list[object] = []
        async with asyncio.timeout(10):
            while not changes:
                changes += (await anext(watch)).changes
        await watch.aclose()  # type: ignore[attr-defined]
        assert [change.mod_revision for change in changes if isinstance(change, Entry)] == [newer.revision]
