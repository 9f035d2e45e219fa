"""One watch for several: each gets all that it would have got from one of its own, or is told to list again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from discoclient.model.errors import RegistryError, RegistryUnavailable, RevisionCompacted
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Probe, Proof
from discoclient.registry.sharing import tap as module
from discoclient.registry.sharing.tap import Parcel, Tap
from tests.support.eventually import eventually_async

RANGE = "/s/"


class Counted(MemoryRegistry):
    """Counts the watches that stand. ``says``: the revision that it claims when one opens."""

    standing = 0
    opened = 0
    says: int | None = None

    async def watch(self, range: str, *, after: int) -> AsyncIterator[Batch]:
        self.standing += 1
        self.opened += 1
        is_first = True
        try:
            async for batch in super().watch(range, after=after):
                yield Batch(self.says) if is_first and self.says is not None else batch
                is_first = False
        finally:
            self.standing -= 1


class Reader:
    def __init__(self) -> None:
        self.got: list[Batch] = []
        self.error: RegistryError | None = None

    def deliver(self, parcel: Parcel) -> None:
        assert self.error is None
        self.got.append(parcel.batch)

    def fail(self, error: RegistryError) -> None:
        assert self.error is None
        self.error = error

    @property
    def revisions(self) -> list[int]:
        return [change.mod_revision for batch in self.got for change in batch.changes]


class Scene:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.registry = Counted(self.store, clock=monotonic)
        self.tap = Tap(self.registry, RANGE)

    async def put(self) -> int:
        await self.registry.change(lambda store: store.put(f"{RANGE}a", b"%d" % store.revision))
        return self.store.revision

    async def join(self, after: int | None = None) -> Reader:
        reader = Reader()
        self.tap.join(reader, self.store.revision if after is None else after)
        await eventually_async(lambda: reader.got or reader.error, what="it opens, or fails")
        return reader


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    yield found
    found.tap.close()
    await eventually_async(lambda: not found.registry.standing, what="nothing is left")


async def test_several_readers_share_one_watch(scene: Scene) -> None:
    readers = [await scene.join() for _ in range(8)]
    assert all(reader.got == [Batch(scene.store.revision)] for reader in readers), "an empty batch first"
    revision = await scene.put()
    await eventually_async(lambda: all(reader.revisions == [revision] for reader in readers))
    assert scene.registry.opened == 1


async def test_who_comes_later_gets_what_it_missed_and_no_more(scene: Scene) -> None:
    first = await scene.join()
    revisions = [await scene.put() for _ in range(4)]
    await eventually_async(lambda: first.revisions == revisions)
    late = await scene.join(after=revisions[1])
    assert late.revisions == revisions[2:]
    assert scene.registry.opened == 1


async def test_who_comes_too_late_lists_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY", 2)
    first = await scene.join()
    revisions = [await scene.put() for _ in range(4)]
    await eventually_async(lambda: first.revisions == revisions)
    assert isinstance((await scene.join(after=revisions[0])).error, RevisionCompacted)
    assert (await scene.join(after=revisions[1])).revisions == revisions[2:]


async def test_what_is_old_is_not_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY_AGE", 0.0)
    first = await scene.join()
    revisions = [await scene.put() for _ in range(4)]
    await eventually_async(lambda: first.revisions == revisions)
    scene.tap.vouch(Proof(revisions[-1], Probe(revisions[-1], 0, 1)))
    assert isinstance((await scene.join(after=revisions[-2])).error, RevisionCompacted)
    assert (await scene.join(after=revisions[-1])).error is None


async def test_who_wants_more_than_the_watch_began_with_lists_again(scene: Scene) -> None:
    before = scene.store.revision
    await scene.put()
    first = await scene.join()
    assert isinstance((await scene.join(after=before)).error, RevisionCompacted)
    assert first.error is None


async def test_when_the_watch_breaks_all_are_told_and_may_come_again(scene: Scene) -> None:
    readers = [await scene.join() for _ in range(3)]
    await scene.registry.set_down(True)
    await eventually_async(lambda: all(reader.error for reader in readers))
    await scene.registry.set_down(False)
    revision = await scene.put()
    again = await scene.join(after=revision - 1)
    await eventually_async(lambda: again.revisions == [revision])


async def test_nothing_of_a_broken_watch_is_told_to_who_comes_later(scene: Scene) -> None:
    """The registry may have been restored meanwhile, and have another history."""
    first = await scene.join()
    old = await scene.put()
    await eventually_async(lambda: first.revisions == [old])
    await scene.registry.set_down(True)
    await eventually_async(lambda: first.error)
    await scene.registry.set_down(False)
    await scene.join(after=old)
    assert isinstance((await scene.join(after=old - 1)).error, RevisionCompacted)


async def test_a_watch_of_the_future_is_not_joined_but_replaced(scene: Scene) -> None:
    """As after a restored backup: its reader finds out, lists again, and comes back with less."""
    scene.registry.says = 1
    first = await scene.join(after=1000)
    assert first.got == [Batch(1)], "its reader sees that the registry went back"
    assert (await scene.join(after=1000)).got == [Batch(1)], "and so does another one"
    scene.registry.says = None
    second = await scene.join(after=scene.store.revision)
    assert isinstance(first.error, RegistryUnavailable)
    revision = await scene.put()
    await eventually_async(lambda: second.revisions == [revision])


async def test_the_watch_ends_with_its_last_reader(scene: Scene) -> None:
    one, two = await scene.join(), await scene.join()
    scene.tap.leave(one)
    revision = await scene.put()
    await eventually_async(lambda: two.revisions == [revision])
    scene.tap.leave(two)
    await eventually_async(lambda: not scene.registry.standing)
    assert scene.tap.is_idle


async def test_a_doubt_ends_the_watch_that_it_is_about_and_no_other(scene: Scene) -> None:
    one, two = await scene.join(), await scene.join()
    scene.tap.doubt(one)
    assert one.error
    assert two.error
    again = await scene.join()
    scene.tap.doubt(two)
    await asyncio.sleep(0)
    assert again.error is None, "the watch that it doubted is gone already"
    assert scene.registry.opened == 2


async def test_a_proof_reaches_all(scene: Scene) -> None:
    readers = [await scene.join() for _ in range(3)]
    proof = Proof(1, Probe(9, 0, 0))
    scene.tap.vouch(proof)
    assert all(reader.got[-1] == Batch(9, proof=proof) for reader in readers)
    assert (await scene.join()).got == [Batch(9)], "and it is known by then how far the registry is"


async def test_a_bug_in_the_registry_is_told_to_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def watch(range: str, *, after: int) -> AsyncIterator[Batch]:
        raise TypeError("a bug")

    monkeypatch.setattr(scene.registry, "watch", watch)
    assert "TypeError" in str((await scene.join()).error)
    assert "a bug" in caplog.text
