"""Taking over: who is asked to go, by whom, and what is said of it in the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from time import monotonic

import pytest

from discoclient.model.instance import State
from discoclient.registry.asked import Asked, Retirement
from discoclient.serving import replacing
from discoclient.serving.asking import ask
from discoclient.serving.replacing import Replacement, Takeover
from tests.serving.asking_scene import KEYS, Scene, Standing
from tests.support.eventually import eventually_async

LONG = 30.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE", "RETRY"):
        monkeypatch.setattr(replacing, name, 0.001)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


class Ticks:
    """A clock that is a second later at every look."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self._seconds))


def takeover(
    scene: Scene,
    mine: Standing,
    *,
    timeout: float = LONG,
    clock: Callable[[], float] = monotonic,
    begins: bool = True,
) -> Takeover:
    """*begins*: it may ask the others as soon as it runs."""
    found = Takeover(
        lambda: mine.instance, scene.registry, KEYS, hostnames=False, timeout=timeout, clock=clock
    )
    if begins:
        found.begin()
    return found


async def rest() -> None:
    """Let everything that can run do so, for a while."""
    for _ in range(20):
        await asyncio.sleep(0.001)


class Leaving:
    """Instances that leave as soon as they are asked to, as they should."""

    def __init__(self, *standings: Standing) -> None:
        self._standings = standings
        self.asked: list[str] = []

    async def run(self) -> None:
        waiting = list(self._standings)
        while waiting:
            for each in [each for each in waiting if each.asked.retire is not None]:
                self.asked.append(each.id[0])
                waiting.remove(each)
                await each.write(state=State.DRAINING)
                await each.leave()
            await asyncio.sleep(0.001)


async def replace_by(scene: Scene, mine: Standing, *leaving: Standing) -> Replacement:
    leavers = asyncio.create_task(Leaving(*leaving).run())
    async with asyncio.timeout(20):
        replacement = await takeover(scene, mine).run()
    leavers.cancel()
    await asyncio.gather(leavers, return_exceptions=True)
    return replacement


def names(*instances: object) -> str:
    return "".join(instance.id[0] for instance in instances)  # type: ignore[attr-defined]


# ---- who is asked


async def test_all_older_ones_of_the_same_place_are_asked_and_waited_for(scene: Scene) -> None:
    first, second, mine = [await scene.add(name) for name in "abc"]
    replacement = await replace_by(scene, mine, first, second)
    assert names(*replacement.gone) == "ab"
    assert replacement.left == ()
    assert [entry.key[-8:] for entry in scene.store.list("/").entries] == [mine.id]


async def test_they_are_told_by_whom_and_for_whom(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b", version="2.4.1")
    await takeover(scene, mine, timeout=1.0, clock=Ticks()).run()
    assert old.asked.retire == Retirement(reason="replaced by 2.4.1 bbbbbbbb", by="disco run on web-3")


@pytest.mark.parametrize(
    "elsewhere", [{"hostname": "web-4"}, {"slot": "1"}, {"hostname": None}], ids=["host", "slot", "no host"]
)
async def test_nobody_elsewhere_is_asked(scene: Scene, elsewhere: dict[str, str | None]) -> None:
    other, mine = await scene.add("a", **elsewhere), await scene.add("b")
    replacement = await replace_by(scene, mine)
    assert (replacement.gone, replacement.left) == ((), ())
    assert other.asked == Asked()


async def test_nobody_younger_is_asked(scene: Scene) -> None:
    mine, younger = await scene.add("a"), await scene.add("b")
    replacement = await replace_by(scene, mine)
    assert (replacement.gone, replacement.left) == ((), ())
    assert younger.asked == Asked()
    assert mine.asked == Asked()


async def put_back(standing: Standing) -> None:
    """It was cut off from the registry for longer than its lease lives, and is there again."""
    await standing.leave()
    standing.lease = await standing.scene.registry.grant(60)
    await standing.write()


async def test_one_that_is_put_back_after_it_was_noted_is_older_all_the_same(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b")
    looks = takeover(scene, mine, begins=False)
    running = asyncio.create_task(looks.run())
    await rest()
    await put_back(old)
    looks.begin()
    await eventually_async(lambda: old.asked.retire is not None)
    await old.leave()
    assert names(*(await running).gone) == "a"


async def test_when_all_are_put_back_in_another_order_it_is_known_who_is_older(scene: Scene) -> None:
    old, mine, younger = [await scene.add(name) for name in "abc"]
    looks = [takeover(scene, each, begins=False) for each in (mine, younger)]
    runs = [asyncio.create_task(each.run()) for each in looks]
    await rest()
    for each in (younger, mine, old):
        await put_back(each)
    leaving = asyncio.create_task(Leaving(old, mine).run())
    for each in looks:
        each.begin()
    async with asyncio.timeout(20):
        await leaving
        assert set(names(*(await runs[1]).gone)) == set("ab")
    assert younger.asked == Asked()
    runs[0].cancel()
    await asyncio.gather(*runs, return_exceptions=True)


async def test_nobody_is_asked_before_we_have_proved_ourselves(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b")
    looks = takeover(scene, mine, begins=False)
    running = asyncio.create_task(looks.run())
    await rest()
    assert old.asked == Asked()
    looks.begin()
    await eventually_async(lambda: old.asked.retire is not None)
    await old.leave()
    await running


async def test_who_was_asked_already_is_waited_for_and_the_first_reason_stays(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b")
    earlier = Retirement(reason="too old", by="disco drain")
    await ask(scene.registry, KEYS, "web", old.id, lambda asked: Asked(retire=earlier, weight=5))
    await takeover(scene, mine, timeout=1.0, clock=Ticks()).run()
    assert old.asked == Asked(retire=earlier, weight=5)


async def test_who_drains_already_is_asked_and_waited_for_too(scene: Scene) -> None:
    old, mine = await scene.add("a", state=State.DRAINING), await scene.add("b")
    assert names(*(await replace_by(scene, mine, old)).gone) == "a"


async def test_of_two_deploys_at_once_one_generation_remains(scene: Scene) -> None:
    old, first, second = [await scene.add(name) for name in "abc"]
    leaving = asyncio.create_task(Leaving(old, first).run())
    async with asyncio.timeout(20):
        one, two = await asyncio.gather(takeover(scene, first).run(), takeover(scene, second).run())
        await leaving
    assert "b" not in names(*one.left, *one.gone)
    assert names(*two.gone) == "ab"
    assert [entry.key[-8:] for entry in scene.store.list("/").entries] == [second.id]


# ---- only by who is there itself


@pytest.mark.parametrize("state", [State.UNREADY, State.DRAINING])
async def test_nobody_is_asked_while_we_are_not_ready_ourselves(scene: Scene, state: State) -> None:
    old, mine = await scene.add("a"), await scene.add("b", state=state)
    running = asyncio.create_task(takeover(scene, mine).run())
    for _ in range(50):
        await asyncio.sleep(0.001)
        assert old.asked == Asked()
    await mine.write(state=State.READY)
    await eventually_async(lambda: old.asked.retire is not None)
    await old.leave()
    assert names(*(await running).gone) == "a"


async def test_nobody_is_asked_while_we_are_not_in_the_registry(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b")
    await mine.leave()
    running = asyncio.create_task(takeover(scene, mine).run())
    for _ in range(50):
        await asyncio.sleep(0.001)
        assert old.asked == Asked()
    mine.lease = await scene.registry.grant(60)
    await mine.write()
    await eventually_async(lambda: old.asked.retire is not None)
    await old.leave()
    assert names(*(await running).gone) == "a"


# ---- whatever the registry does


async def test_a_registry_that_is_away_is_waited_for_and_all_serve_on(scene: Scene) -> None:
    old, mine = await scene.add("a"), await scene.add("b")
    await scene.registry.set_down(True)
    running = asyncio.create_task(takeover(scene, mine).run())
    await asyncio.sleep(0.05)
    assert not running.done()
    assert old.asked == Asked()
    await scene.registry.set_down(False)
    await eventually_async(lambda: old.asked.retire is not None)
    await scene.registry.set_down(True)  # and once more, while it is waited
    await asyncio.sleep(0.05)
    assert not running.done()
    await scene.registry.set_down(False)
    await old.leave()
    async with asyncio.timeout(20):
        assert names(*(await running).gone) == "a"


async def test_one_that_dies_while_the_others_are_asked_is_gone(scene: Scene) -> None:
    first, second, mine = [await scene.add(name) for name in "abc"]
    attach = scene.registry.attach

    async def die_first(*arguments: object, **options: object) -> object:
        await first.leave()
        return await attach(*arguments, **options)  # type: ignore[arg-type]

    scene.registry.attach = die_first  # type: ignore[method-assign, assignment]
    assert names(*(await replace_by(scene, mine, second)).gone) == "ab"


# ---- what is said of it


async def test_after_the_timeout_it_is_said_who_is_still_there(scene: Scene) -> None:
    quick, stubborn, mine = [await scene.add(name) for name in "abc"]
    await quick.write()
    leaving = asyncio.create_task(Leaving(quick).run())
    looks = takeover(scene, mine, timeout=200.0, clock=Ticks())
    async with asyncio.timeout(20):
        replacement = await looks.run()
        await leaving
    assert (names(*replacement.gone), names(*replacement.left)) == ("a", "b")
    assert replacement.seconds >= 200
    assert stubborn.asked.retire is not None


@pytest.mark.parametrize("timeout", [5.0, 50.0])
async def test_how_long_is_waited_is_as_it_was_asked_for(scene: Scene, timeout: float) -> None:
    await scene.add("a")
    replacement = await takeover(scene, await scene.add("b"), timeout=timeout, clock=Ticks()).run()
    assert timeout <= replacement.seconds <= timeout + 5
    assert names(*replacement.left) == "a"


async def test_where_nobody_was_before_it_takes_no_time(scene: Scene) -> None:
    replacement = await takeover(scene, await scene.add("a"), clock=lambda: 7.0).run()
    assert replacement == Replacement(gone=(), left=(), seconds=0.0)
