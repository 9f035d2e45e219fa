"""Waiting until all callers have left, with a registry in memory: who is seen, when it is looked again, and what it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from time import monotonic
from typing import Any

import pytest

from discoclient.model.errors import RegistryDenied
from discoclient.registry.happenings import WatchSettings
from discoclient.registry.keys import Keys
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.presence import Presence, encode_presence
from discoclient.serving.drain import Drain, Drained
from discoclient.serving.farewell import Farewell
from tests.support.eventually import eventually_async

ME = "aaaaaaaa"
RANGE = Keys().clients("web")
LONG = 30.0


class Parting:
    """An instance that drains, and its callers. It has told the registry when `begin` is called."""

    def __init__(self, *, quiet: float = 0.0, timeout: float = LONG) -> None:
        self.store = MemoryStore()
        self.registry = MemoryRegistry(self.store, clock=monotonic)
        self.in_flight = 0
        self.looks = 0
        self.quiet, self.timeout = quiet, timeout

    def _count(self) -> int:
        self.looks += 1
        return self.in_flight

    async def say(self, name: str, *, applied: int, busy: int = 0, has_lease: bool = True) -> None:
        id = name * 8
        value = encode_presence(Presence(id=id, applied=applied, busy={ME: busy} if busy else {}))
        lease = self.store.grant(LONG, monotonic())[0] if has_lease else 0
        await self.registry.change(lambda store: store.put(RANGE + id, value, lease=lease))

    async def leave(self, name: str) -> None:
        await self.registry.change(lambda store: store.delete(RANGE + name * 8))

    def begin(self, *, is_told: bool = True) -> asyncio.Task[Drained]:
        self.revision = self.store.revision if is_told else 0
        drain = Drain(ME, quiet=self.quiet, timeout=self.timeout, now=monotonic())
        self.farewell = self.farewell_of(drain)
        return asyncio.create_task(self.farewell.wait(self.revision))

    def farewell_of(self, drain: Drain) -> Farewell:
        return Farewell(
            drain,
            self.registry,
            RANGE,
            in_flight=self._count,
            settings=WatchSettings(stale_after=0.01),
            clock=monotonic,
            rng=Random(1),
        )


@pytest.fixture
async def parting() -> AsyncIterator[Parting]:
    found = Parting()
    yield found
    me = asyncio.current_task()
    await eventually_async(lambda: asyncio.all_tasks() == {me}, what="nothing goes on")
    await found.registry.aclose()


async def result(waiting: asyncio.Task[Drained]) -> Drained:
    async with asyncio.timeout(20):
        return await waiting


async def stays_open(waiting: asyncio.Task[Drained]) -> None:
    for _ in range(30):
        await asyncio.sleep(0.001)
    assert not waiting.done()


async def test_without_callers_it_is_over_at_once(parting: Parting) -> None:
    drained = await result(parting.begin())
    assert (drained.is_clean, drained.callers) == (True, 0)


async def test_every_caller_is_waited_for_until_it_has_left(parting: Parting) -> None:
    await parting.say("a", applied=0)
    await parting.say("b", applied=0, busy=1)
    waiting = parting.begin()
    await stays_open(waiting)
    await parting.say("a", applied=parting.revision)
    await stays_open(waiting)
    await parting.say("b", applied=parting.revision, busy=1)
    await stays_open(waiting)
    await parting.say("b", applied=parting.revision)
    drained = await result(waiting)
    assert (drained.is_clean, drained.callers) == (True, 2)


async def test_a_caller_that_joins_during_the_drain_is_waited_for(parting: Parting) -> None:
    await parting.say("a", applied=0)
    waiting = parting.begin()
    await stays_open(waiting)
    await parting.say("b", applied=0)
    await parting.say("a", applied=parting.revision)
    await stays_open(waiting)
    await parting.say("b", applied=parting.revision)
    assert (await result(waiting)).callers == 2


async def test_a_caller_whose_lease_ends_is_waited_for_no_more(parting: Parting) -> None:
    await parting.say("a", applied=0)
    waiting = parting.begin()
    await stays_open(waiting)
    await parting.leave("a")
    assert (await result(waiting)).is_clean


async def test_what_no_caller_wrote_is_not_waited_for(parting: Parting) -> None:
    """A key without a lease would keep every drain open for ever, and who can't be understood can't acknowledge."""
    await parting.say("a", applied=0, has_lease=False)
    for id, value in (("b" * 8, b"garbage"), ("c" * 8, encode_presence(Presence(id="d" * 8)))):
        lease = parting.store.grant(LONG, monotonic())[0]
        parting.store.put(RANGE + id, value, lease=lease)
    drained = await result(parting.begin())
    assert (drained.is_clean, drained.callers) == (True, 0)


async def test_callers_of_other_services_are_not_waited_for(parting: Parting) -> None:
    value = encode_presence(Presence(id="a" * 8))
    lease = parting.store.grant(LONG, monotonic())[0]
    parting.store.put(Keys().client("web2", "a" * 8), value, lease=lease)
    assert (await result(parting.begin())).callers == 0


async def test_what_is_in_flight_here_is_waited_for_and_looked_at_again_and_again(parting: Parting) -> None:
    """Nobody tells of its end."""
    parting.in_flight = 2
    waiting = parting.begin()
    await eventually_async(lambda: parting.looks > 3)
    assert not waiting.done()
    parting.in_flight = 0
    assert (await result(waiting)).is_clean


async def test_a_hurry_ends_it_now_and_says_who_was_waited_for(parting: Parting) -> None:
    await parting.say("a", applied=0)
    waiting = parting.begin()
    await stays_open(waiting)
    parting.farewell.hurry()
    drained = await result(waiting)
    assert not drained.is_clean
    assert "1 of 1 callers" in drained.problem
    assert drained.seconds < LONG / 2


async def test_a_hurry_before_it_began_counts() -> None:
    parting = Parting(quiet=LONG)
    waiting = parting.begin()
    parting.farewell.hurry()
    drained = await result(waiting)
    assert not drained.is_clean
    assert drained.seconds < LONG / 2


async def test_its_time_is_bounded() -> None:
    parting = Parting(timeout=0.05)
    await parting.say("a", applied=0)
    drained = await result(parting.begin())
    assert not drained.is_clean
    assert 0.05 <= drained.seconds < LONG / 2


async def test_the_quiet_time_is_kept() -> None:
    drained = await result(Parting(quiet=0.05).begin())
    assert drained.is_clean
    assert 0.05 <= drained.seconds < LONG / 2


# ---- whatever the registry does


async def test_where_presences_may_not_be_read_the_quiet_time_is_all(
    parting: Parting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(*arguments: Any, **options: Any) -> Any:
        raise RegistryDenied("no such role")

    await parting.say("a", applied=0)
    monkeypatch.setattr(parting.registry, "list", denied)
    parting.quiet = 0.05
    drained = await result(parting.begin())
    assert (drained.is_clean, drained.callers) == (True, None)
    assert drained.seconds >= 0.05


async def test_who_could_not_tell_the_registry_asks_it_for_nothing(parting: Parting) -> None:
    await parting.say("a", applied=0)
    await parting.registry.set_down(True)
    drained = await result(parting.begin(is_told=False))
    assert (drained.is_clean, drained.problem) == (False, "the registry could not be told")


async def test_a_registry_that_goes_away_meanwhile_keeps_it_open_until_its_time_is_over() -> None:
    """What is not known is not assumed."""
    parting = Parting(timeout=0.1)
    await parting.registry.set_down(True)
    drained = await result(parting.begin())
    assert (drained.is_clean, drained.problem) == (False, "who calls was not learnt yet")


async def test_a_registry_that_comes_back_is_asked_on(parting: Parting) -> None:
    await parting.say("a", applied=0)
    waiting = parting.begin()
    await stays_open(waiting)
    await parting.registry.set_down(True)
    await stays_open(waiting)
    await parting.registry.set_down(False)
    await parting.say("a", applied=parting.revision)
    assert (await result(waiting)).is_clean


async def test_one_members_word_is_not_taken_for_all_there_is(
    parting: Parting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that is cut off may lack a caller."""
    complete = parting.registry.list

    async def without_a_quorum(range: str, *, serializable: bool = False) -> Any:
        if not serializable:
            await asyncio.sleep(LONG)
        return await complete(range, serializable=serializable)

    monkeypatch.setattr(parting.registry, "list", without_a_quorum)
    parting.timeout = 0.3
    drained = await result(parting.begin())
    assert (drained.is_clean, drained.problem) == (False, "who calls was not learnt yet")


async def test_who_waits_may_be_cancelled_and_leaves_nothing(parting: Parting) -> None:
    await parting.say("a", applied=0)
    waiting = parting.begin()
    await stays_open(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()


async def test_who_calls_is_asked_only_once_the_registry_was_told(
    parting: Parting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever came between would hold the set of before, and not be waited for."""
    asked: list[str] = []
    complete = parting.registry.list

    async def remember(range: str, *, serializable: bool = False) -> Any:
        asked.append(range)
        return await complete(range, serializable=serializable)

    monkeypatch.setattr(parting.registry, "list", remember)
    farewell = parting.farewell_of(Drain(ME, quiet=0.0, timeout=LONG, now=monotonic()))
    await asyncio.sleep(0.01)
    assert asked == []
    await farewell.wait(parting.store.revision)
    assert asked == [RANGE]
