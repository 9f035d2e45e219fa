"""How many calls are on their way at once: those that wait for their turn are not late for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from discoclient.model.errors import RegistryUnavailable
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import members as module
from discoclient.registry.etcd.members import Members
from discoclient.registry.etcd.registry import EtcdRegistry
from tests.support.eventually import eventually_async


class Hanging:
    """Calls that arrive, and are not answered; how many there are, by the end of their path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived = Counter[str]()
        self.timeouts = set[float]()
        monkeypatch.setattr(Members, "_exchange", self._exchange)

    async def _exchange(
        self,
        member: object,
        path: str,
        request: Any,
        reply: Any,
        purpose: object,
        metadata: object,
        timeout: float,
    ) -> Any:
        kind = path.rpartition("/")[2]
        self.arrived[f"{kind} of a member" if getattr(request, "serializable", False) else kind] += 1
        self.timeouts.add(timeout)
        await asyncio.Event().wait()


@pytest.fixture
async def registry(
    monkeypatch: pytest.MonkeyPatch, registry_url: str
) -> AsyncIterator[Callable[[], EtcdRegistry]]:
    made: list[EtcdRegistry] = []

    def make() -> EtcdRegistry:
        made.append(EtcdRegistry(RegistryAddress.parse(registry_url), rng=Random(1)))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


async def test_calls_that_wait_in_vain_hold_up_neither_leases_nor_what_one_member_can_answer(
    monkeypatch: pytest.MonkeyPatch, registry: Callable[[], EtcdRegistry]
) -> None:
    monkeypatch.setattr(module, "CALLS", 3)
    hanging, etcd = Hanging(monkeypatch), registry()
    calls: list[asyncio.Task[Any]] = [asyncio.create_task(etcd.list("/a/")) for _ in range(5)]
    await eventually_async(lambda: hanging.arrived["Range"] == 3)
    calls += [asyncio.create_task(etcd.list("/a/", serializable=True)), asyncio.create_task(etcd.grant(10))]
    await eventually_async(lambda: hanging.arrived["Range of a member"] == hanging.arrived["LeaseGrant"] == 1)
    assert hanging.arrived["Range"] == 3
    calls[0].cancel()
    await eventually_async(lambda: hanging.arrived["Range"] == 4, what="the next one's turn")
    assert hanging.timeouts == {module.ATTEMPT_TIMEOUT}, "it has all of its time, however long it waited"
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


@pytest.mark.parametrize(("at_once", "is_safe"), [(8, True), (10_000, False)], ids=["bounded", "control"])
async def test_a_hundred_that_ask_a_slow_one_at_once_are_all_answered_in_time(
    monkeypatch: pytest.MonkeyPatch, registry: Callable[[], EtcdRegistry], at_once: int, is_safe: bool
) -> None:
    """Without a bound each of them waits for all others, in its own time."""
    turn = asyncio.Lock()
    exchange = Members._exchange

    async def slowly(self: Members, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(0.4), turn:
                await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise RegistryUnavailable("late") from error
        return await exchange(self, *arguments)

    monkeypatch.setattr(Members, "_exchange", slowly)
    monkeypatch.setattr(module, "CALLS", at_once)
    etcd = registry()
    answers = await asyncio.gather(*(etcd.list("/a/") for _ in range(100)), return_exceptions=True)
    late = sum(isinstance(answer, RegistryUnavailable) for answer in answers)
    assert (late == 0) is is_safe


async def test_watches_are_opened_one_after_the_other_and_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch, registry: Callable[[], EtcdRegistry], registry_url: str
) -> None:
    monkeypatch.setattr(module, "CALLS", 1)
    etcd, opening, most = registry(), 0, 0
    begin, prefix = Members.begin, RegistryAddress.parse(registry_url).prefix

    async def counted(self: Members, purpose: Any) -> Any:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        return await begin(self, purpose)

    monkeypatch.setattr(Members, "begin", counted)
    standing = 0

    async def follow() -> None:
        nonlocal standing, opening
        async with aclosing(etcd.watch(f"{prefix}/a/", after=1)) as watch:  # type: ignore[type-var]
            async for _ in watch:
                opening -= 1
                standing += 1

    watches = [asyncio.create_task(follow()) for _ in range(5)]
    await eventually_async(lambda: standing == 5)
    assert most == 1
    for watch in watches:
        watch.cancel()
    await asyncio.wait(watches)


async def test_a_watch_that_can_not_be_opened_leaves_its_turn_to_the_next(
    monkeypatch: pytest.MonkeyPatch, registry: Callable[[], EtcdRegistry]
) -> None:
    monkeypatch.setattr(module, "CALLS", 1)
    etcd, begin = registry(), Members.begin

    async def refuse(self: Members, purpose: Any) -> Any:
        raise RegistryUnavailable("nobody is there")

    monkeypatch.setattr(Members, "begin", refuse)
    with pytest.raises(RegistryUnavailable):
        await anext(etcd.watch("/a/", after=1))
    monkeypatch.setattr(Members, "begin", begin)
    async with asyncio.timeout(5), aclosing(etcd.watch("/a/", after=1)) as watch:  # type: ignore[type-var]
        await anext(watch)
