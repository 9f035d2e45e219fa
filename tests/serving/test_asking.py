"""Asking an instance through the registry: in one transaction, and only if it is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from discoclient.model.errors import RegistryUnavailable
from discoclient.model.instance import State
from discoclient.registry.asked import Asked, Retirement
from discoclient.registry.codec import encode
from discoclient.registry.protocol import Entry, Put
from discoclient.serving.asking import TRIES, LastReady, NotThere, ask, find, find_spare
from tests.serving.asking_scene import KEYS, Scene, Standing


@pytest.fixture
async def scene() -> Scene:
    return Scene()


def heavier(asked: Asked) -> Asked:
    return replace(asked, weight=(asked.weight or 0) + 1)


async def weigh(scene: Scene, standing: Standing) -> None:
    await ask(scene.registry, KEYS, "web", standing.id, heavier)


async def found(scene: Scene, *, hostnames: bool = False) -> list[str]:
    return [each.instance.id[0] for each in await find(scene.registry, KEYS, "web", hostnames=hostnames)]


# ---- finding


async def test_the_oldest_comes_first_whatever_their_ids(scene: Scene) -> None:
    for name in ("c", "a", "b"):
        await scene.add(name)
    assert await found(scene) == ["c", "a", "b"]


async def test_one_that_was_put_back_is_as_old_as_its_new_key(scene: Scene) -> None:
    old = await scene.add("a")
    await scene.add("b")
    await old.write(version="changed")
    assert await found(scene) == ["a", "b"]
    await old.leave()
    old.lease = await scene.registry.grant(60)
    await old.write()
    assert await found(scene) == ["b", "a"]


async def test_what_is_no_instance_is_left_out(scene: Scene) -> None:
    good = await scene.add("a")
    lease = scene.store.grant(60, 0)[0]
    scene.store.put(KEYS.instance("web", "b" * 8), b"garbage", lease=lease)
    scene.store.put(KEYS.instance("web", "c" * 8), encode(replace(good.instance, id="c" * 8)))  # no lease
    scene.store.put(KEYS.instance("web2", "d" * 8), encode(replace(good.instance, id="d" * 8)), lease=lease)
    assert await found(scene) == ["a"]


async def test_host_names_are_read_where_the_registry_admits_them(scene: Scene) -> None:
    good = await scene.add("a")
    named = encode(replace(good.instance, id="b" * 8, host="web-4"), hostnames=True)
    scene.store.put(KEYS.instance("web", "b" * 8), named, lease=scene.store.grant(60, 0)[0])
    assert await found(scene) == ["a"]
    assert await found(scene, hostnames=True) == ["a", "b"]


# ---- asking


async def test_what_is_asked_stands_under_the_lease_of_the_instance_and_goes_with_it(scene: Scene) -> None:
    standing = await scene.add("a")
    await weigh(scene, standing)
    (entry,) = scene.store.list(KEYS.controls("web")).entries
    assert entry.lease == standing.lease.id
    assert standing.asked == Asked(weight=1)
    await standing.leave()
    assert scene.store.list("/").entries == ()


async def test_what_was_asked_before_is_kept(scene: Scene) -> None:
    standing = await scene.add("a")
    retirement = Retirement(reason="old", by="me")
    await ask(scene.registry, KEYS, "web", standing.id, lambda asked: replace(asked, retire=retirement))
    await weigh(scene, standing)
    await weigh(scene, standing)
    assert standing.asked == Asked(retire=retirement, weight=2)


async def test_what_nobody_could_read_is_replaced(scene: Scene) -> None:
    standing = await scene.add("a")
    scene.store.put(KEYS.control("web", standing.id), b"garbage", lease=standing.lease.id)
    await weigh(scene, standing)
    assert standing.asked == Asked(weight=1)


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "without a lease"])
async def test_nothing_is_asked_of_who_is_not_there(scene: Scene, is_gone: bool) -> None:
    standing = await scene.add("a")
    if is_gone:
        await standing.leave()
    else:
        scene.store.put(KEYS.instance("web", standing.id), encode(standing.instance))
    with pytest.raises(NotThere, match="no instance aaaaaaaa of web"):
        await weigh(scene, standing)
    assert scene.store.list(KEYS.controls("web")).entries == ()


class Meddling:
    """Something happens between the look and the transaction, so many times."""

    def __init__(self, scene: Scene, standing: Standing, times: int, *, how: str) -> None:
        self._scene, self._standing, self._how = scene, standing, how
        self._attach = scene.registry.attach
        self.left = times
        self.tries = 0
        scene.registry.attach = self.attach  # type: ignore[method-assign]

    async def attach(self, entry: Entry, key: str, value: bytes, *, expected: int, **others: Any) -> Put:
        self.tries += 1
        if self.left:
            self.left -= 1
            match self._how:
                case "changes":
                    await self._standing.write(version=f"{self.left}")
                case "is asked":
                    self._scene.registry.attach = self._attach  # type: ignore[method-assign]
                    await weigh(self._scene, self._standing)
                    self._scene.registry.attach = self.attach  # type: ignore[method-assign]
                case "leaves":
                    await self._standing.leave()
        return await self._attach(entry, key, value, expected=expected)


async def test_an_instance_that_changes_meanwhile_is_asked_all_the_same(scene: Scene) -> None:
    standing = await scene.add("a")
    meddling = Meddling(scene, standing, 3, how="changes")
    await weigh(scene, standing)
    assert meddling.tries == 4
    assert standing.asked == Asked(weight=1)


async def test_what_somebody_else_asks_meanwhile_is_not_lost(scene: Scene) -> None:
    standing = await scene.add("a")
    Meddling(scene, standing, 3, how="is asked")
    await weigh(scene, standing)
    assert standing.asked == Asked(weight=4)


async def test_an_instance_that_leaves_meanwhile_is_not_there(scene: Scene) -> None:
    standing = await scene.add("a")
    Meddling(scene, standing, 1, how="leaves")
    with pytest.raises(NotThere):
        await weigh(scene, standing)
    assert scene.store.list("/").entries == ()


async def test_an_instance_that_changes_for_ever_is_given_up(scene: Scene) -> None:
    standing = await scene.add("a")
    meddling = Meddling(scene, standing, 10**6, how="changes")
    with pytest.raises(RegistryUnavailable, match="changes faster"):
        await weigh(scene, standing)
    assert meddling.tries == TRIES


async def test_a_registry_that_is_away_is_said_to_be(scene: Scene) -> None:
    standing = await scene.add("a")
    await scene.registry.set_down(True)
    with pytest.raises(RegistryUnavailable):
        await weigh(scene, standing)


# ---- not the last one


async def retire(scene: Scene, standing: Standing) -> None:
    """As ``disco drain`` does, without ``--force``."""
    await ask(
        scene.registry,
        KEYS,
        "web",
        standing.id,
        lambda asked: replace(asked, retire=Retirement(reason="a test")),
        spares=lambda: find_spare(scene.registry, KEYS, "web", standing.id, hostnames=False),
    )


async def test_one_of_two_may_go_and_then_the_other_may_not(scene: Scene) -> None:
    first, second = await scene.add("a"), await scene.add("b")
    await retire(scene, first)
    with pytest.raises(LastReady, match=r"bbbbbbbb is the last .* \(the others are asked to retire\)"):
        await retire(scene, second)
    assert second.asked == Asked()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": State.UNREADY}, "unready"),
        ({"state": State.DRAINING}, "draining"),
        ({"weight": 0}, "ready"),
    ],
)
async def test_who_is_not_called_is_no_spare(scene: Scene, fields: dict[str, object], said: str) -> None:
    only, _ = await scene.add("a"), await scene.add("b", **fields)
    with pytest.raises(LastReady, match=f"the others are {said}"):
        await retire(scene, only)


async def test_one_alone_may_not_go_unless_it_goes_anyway(scene: Scene) -> None:
    only = await scene.add("a")
    with pytest.raises(LastReady, match="there is no other"):
        await retire(scene, only)
    await only.write(state=State.DRAINING)
    await retire(scene, only)
    assert only.asked.retire is not None


async def test_of_two_that_are_asked_at_the_same_time_one_stays(scene: Scene) -> None:
    """Each is the other's spare, and both were looked at before either was written."""
    first, second = await scene.add("a"), await scene.add("b")
    attach, is_first = scene.registry.attach, True

    async def be_second(*arguments: object, **options: object) -> Put:
        nonlocal is_first
        if is_first:
            is_first = False
            await retire(scene, second)
        return await attach(*arguments, **options)  # type: ignore[arg-type]

    scene.registry.attach = be_second  # type: ignore[method-assign]
    with pytest.raises(LastReady):
        await retire(scene, first)
    assert (first.asked, second.asked.retire is not None) == (Asked(), True)
