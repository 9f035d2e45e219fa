"""A question that many ask at once is asked once; and nobody gets an answer that is older than its question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

import pytest

from discoclient.registry.sharing import rounds as module
from discoclient.registry.sharing.rounds import Rounds
from tests.support.eventually import eventually_async

T = TypeVar("T")


class Registry:
    """Reads when it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.truth = 0
        self.reads = 0
        self.gate = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        found = self.truth
        await self.gate.wait()
        return found


async def test_those_who_ask_at_once_share_one_answer() -> None:
    rounds, registry = Rounds(), Registry()
    registry.gate.set()
    assert await asyncio.gather(*(rounds.ask("key", registry.read) for _ in range(32))) == [0] * 32
    assert registry.reads == 1


async def test_other_keys_are_other_questions() -> None:
    rounds, registry = Rounds(), Registry()
    registry.gate.set()
    await asyncio.gather(*(rounds.ask(key, registry.read) for key in "aabb"))
    assert registry.reads == 2


class Careless(Rounds):
    """The negative control: whoever comes later gets the answer to the question that is under way."""

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> T:
        under_way = self._running.get(key)
        return await (asyncio.shield(under_way) if under_way is not None else super().ask(key, question))


@pytest.mark.parametrize("careful", [True, False], ids=["rounds", "control"])
async def test_who_asks_after_a_write_gets_what_was_read_after_it(careful: bool) -> None:
    """A drain is proved by it: the write is a presence, and what is read is the first list that its caller picks from."""
    rounds, registry = Rounds() if careful else Careless(), Registry()
    first = asyncio.ensure_future(rounds.ask("key", registry.read))
    await eventually_async(lambda: registry.reads == 1, what="the first question is under way")
    registry.truth = 1  # an instance drains
    second = asyncio.ensure_future(rounds.ask("key", registry.read))
    third = asyncio.ensure_future(rounds.ask("key", registry.read))
    await asyncio.sleep(0)
    registry.gate.set()
    assert await first == 0
    assert await asyncio.gather(second, third) == ([1, 1] if careful else [0, 0])
    assert registry.reads == (2 if careful else 1)


async def test_a_question_that_hangs_does_not_hang_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    rounds, stuck, well = Rounds(), Registry(), Registry()
    well.gate.set()
    hanging = asyncio.ensure_future(rounds.ask("key", stuck.read))
    await eventually_async(lambda: stuck.reads == 1, what="it is under way")
    assert await rounds.ask("key", well.read) == 0
    assert await rounds.ask("key", well.read) == 0
    rounds.close()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_who_goes_does_not_take_the_answer_from_the_others() -> None:
    rounds, registry = Rounds(), Registry()
    gone, stays = (asyncio.ensure_future(rounds.ask("key", registry.read)) for _ in range(2))
    await eventually_async(lambda: registry.reads == 1, what="it is under way")
    gone.cancel()
    await asyncio.sleep(0)
    registry.gate.set()
    assert await stays == 0
    assert gone.cancelled()


async def test_an_error_is_everybodys_and_the_next_question_is_asked_anew() -> None:
    rounds, registry = Rounds(), Registry()
    registry.gate.set()

    async def fail() -> int:
        raise ValueError("no")

    found = await asyncio.gather(*(rounds.ask("key", fail) for _ in range(3)), return_exceptions=True)
    assert [str(each) for each in found] == ["no"] * 3
    assert await rounds.ask("key", registry.read) == 0
