"""The watch machine when there is nothing to wait for: a registry that refuses us, TLS that can't work. Virtual time."""

from __future__ import annotations

import pytest

from discoclient.model.errors import RegistryDenied, RegistryError, RegistryUnavailable
from discoclient.registry.happenings import Do, Phase
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Listing, Untrusted
from tests.registry.shell import DOWN, RANGE, Shell, truth

FINAL = [RegistryDenied("wrong password"), Untrusted("expired")]
KEY = f"{RANGE}aaaaaaaa"


@pytest.fixture
def shell() -> Shell:
    store = MemoryStore()
    store.put(KEY, b"1", lease=store.grant(10, 0)[0])
    shell = Shell(store)
    shell.start()
    return shell


def refuse(shell: Shell, error: RegistryError) -> None:
    """The list is refused; and so is one member's word, if that is asked for at once."""
    shell.fail(Do.LIST, error)
    if Do.LIST_STALE in shell.jobs:
        shell.fail(Do.LIST_STALE, error)


@pytest.mark.parametrize("error", FINAL)
def test_a_refusal_is_told_at_once_and_tried_on(shell: Shell, error: RegistryError) -> None:
    refuse(shell, error)
    assert shell.now == 1000.0
    assert shell.machine.refusal is error
    assert shell.machine.phase is Phase.EMPTY
    before = len(shell.asks(Do.LIST))
    while len(shell.asks(Do.LIST)) < before + 3:
        shell.now = shell.machine.wake_at or 0.0
        shell.tick()
        for what in list(shell.jobs):
            shell.fail(what, error)
    shell.run(5)
    assert shell.machine.records == truth(shell.store)
    assert shell.machine.refusal is None


@pytest.mark.parametrize("error", [DOWN, RegistryUnavailable("no answer in time"), RegistryError("odd")])
def test_any_other_trouble_may_pass(shell: Shell, error: RegistryError) -> None:
    refuse(shell, error)
    assert Do.LIST_STALE not in shell.jobs
    shell.run(1.0)
    assert shell.machine.refusal is None


def test_what_is_known_from_before_is_looked_for_first(shell: Shell) -> None:
    """`LIST_STALE` is one member's word, and if there is none a file of an earlier life."""
    shell.fail(Do.LIST, FINAL[0])
    assert shell.asks(Do.LIST_STALE) == [1000.0], "long before stale_after"
    assert shell.machine.refusal is None
    shell.work_out(Do.LIST_STALE)
    shell.arrive(Do.LIST_STALE)
    assert shell.published == [truth(shell.store)]
    assert shell.machine.is_stale
    shell.now = shell.machine.wake_at or 0.0
    shell.tick()
    shell.fail(Do.LIST, FINAL[0])
    assert shell.machine.refusal is None, "something is known"


def test_what_is_looked_for_is_not_asked_for_anew_with_every_refusal(shell: Shell) -> None:
    """Asking anew gives up what is under way: a member that rests would never be waited for."""
    for _ in range(5):
        shell.fail(Do.LIST, FINAL[0])
        while Do.LIST not in shell.jobs:
            shell.now = shell.machine.wake_at or 0.0
            shell.tick()
    assert shell.asks(Do.LIST_STALE) == [1000.0]
    shell.fail(Do.LIST_STALE, FINAL[0])
    assert shell.machine.refusal is FINAL[0]


def test_a_refusal_that_turns_into_other_trouble_is_one_no_more(shell: Shell) -> None:
    refuse(shell, FINAL[0])
    while Do.LIST_STALE not in shell.jobs:
        shell.now = shell.machine.wake_at or 0.0
        shell.tick()
    shell.fail(Do.LIST_STALE, DOWN)
    assert shell.machine.refusal is None


def test_whoever_knows_something_is_not_refused(shell: Shell) -> None:
    shell.settle()
    shell.fail(Do.WATCH, FINAL[0])
    shell.run(0.01)
    assert shell.machine.refusal is None
    assert shell.machine.records == truth(shell.store)


def test_an_empty_service_is_known(shell: Shell) -> None:
    shell.store.delete(KEY)
    refuse(shell, FINAL[1])
    shell.run(5)
    assert shell.machine.refusal is None
    assert shell.store.list(RANGE) == Listing(shell.store.revision, ())
