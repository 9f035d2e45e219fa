"""One login for everybody, and none for a while after a refusal."""

from __future__ import annotations

import asyncio
from itertools import islice
from random import Random

import pytest

from discoclient.model.errors import RegistryDenied, RegistryError, RegistryUnavailable
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd import login as login_module
from discoclient.registry.etcd.login import Login
from tests.support.eventually import eventually_async


class Members:
    """Who is asked for a token. *error* is what comes instead."""

    def __init__(self, error: RegistryError | None = None) -> None:
        self.error = error
        self.asked = 0

    async def authenticate(self, name: str, password: str) -> str:
        assert (name, password) == ("me", "open sesame")
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return f"token {self.asked}"


def login(url: str = "etcd://me:open%20sesame@h:1") -> Login:
    return Login(RegistryAddress.parse(url), rng=Random(1))


async def ask(ours: Login, members: Members, times: int = 100) -> set[str]:
    """What *times* calls at once are given: the tokens, or the texts of the errors."""
    found = await asyncio.gather(
        *(ours.metadata(members.authenticate) for _ in range(times)), return_exceptions=True
    )
    return {it["token"] if isinstance(it, dict) else f"{type(it).__name__}: {it}" for it in found}


async def test_one_login_is_for_everybody_who_waits() -> None:
    ours, members = login(), Members()
    assert await ask(ours, members) == {"token 1"}
    assert await ask(ours, members) == {"token 1"}
    assert members.asked == 1


async def test_nobody_logs_in_without_a_user() -> None:
    members = Members()
    assert await login("etcd://h:1").metadata(members.authenticate) == {}
    assert members.asked == 0


async def test_a_token_that_is_not_taken_is_replaced_once_however_many_say_so() -> None:
    ours, members = login(), Members()
    sent = [await ours.metadata(members.authenticate) for _ in range(3)]
    for metadata in sent:
        ours.forget(metadata)
        await ours.metadata(members.authenticate)
    assert members.asked == 2
    assert await ask(ours, members) == {"token 2"}


async def test_a_password_that_was_refused_is_not_shown_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, members = login(), Members(RegistryDenied("wrong"))
    for _ in range(5):
        assert await ask(ours, members) == {"RegistryDenied: wrong"}
    assert members.asked == 1
    # Negative control: no memory.
    monkeypatch.setattr(login_module, "REFUSED_FIRST", 0.0)
    ours = login()
    await ask(ours, members)
    assert members.asked == 101


async def test_a_password_that_is_put_right_is_taken_up_after_that_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(login_module, "REFUSED_FIRST", 0.02)
    ours, members = login(), Members(RegistryDenied("wrong"))
    assert await ask(ours, members) == {"RegistryDenied: wrong"}
    members.error = None

    async def is_in() -> bool:
        return await ask(ours, members, 1) == {"token 2"}

    await eventually_async(is_in, what="logged in")
    assert next(ours._waits) == 0.02, "and the next refusal begins anew"


def test_the_waits_grow_to_less_than_half_a_minute() -> None:
    assert list(islice(login()._new_waits(), 8)) == [1, 2, 4, 8, 16, 20, 20, 20]


async def test_a_member_that_does_not_answer_is_no_refusal() -> None:
    ours, members = login(), Members(RegistryUnavailable("no answer in time"))
    assert await ask(ours, members, 3) == {"RegistryUnavailable: no answer in time"}
    assert members.asked == 3


async def test_a_password_where_none_is_asked_for_is_no_mistake() -> None:
    ours, members = login(), Members(RegistryError("etcdserver: authentication is not enabled"))
    assert await ours.metadata(members.authenticate) == {}
