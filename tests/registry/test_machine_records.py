"""The watch machine: values that are skipped, and what counts as a change. Virtual time."""

from __future__ import annotations

import pytest

from discoclient.registry.happenings import Do, WatchSettings
from discoclient.registry.machine import WatchMachine
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Entry
from tests.registry.shell import RANGE, Shell, truth

A, B, FOREIGN = (f"{RANGE}{name * 8}" for name in "abf")


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for key in (A, B):
        store.put(key, b"1", lease=store.grant(10, 0)[0])
    return store


@pytest.mark.parametrize(("value", "lease"), [(b"bad", 1), (b"1", 0)])
def test_a_value_that_is_skipped_disturbs_nobody_in_a_list(
    store: MemoryStore, value: bytes, lease: int
) -> None:
    store.put(FOREIGN, value, lease=lease)
    shell = Shell(store).live()
    assert set(shell.machine.records) == {A, B}
    assert list(shell.machine.skipped) == [FOREIGN]
    assert shell.kinds() == ["skipped"]


@pytest.mark.parametrize(("value", "lease"), [(b"bad", 1), (b"1", 0)])
def test_a_value_that_is_skipped_disturbs_nobody_in_a_watch(
    store: MemoryStore, value: bytes, lease: int
) -> None:
    shell = Shell(store).live()
    shell.forget()
    store.put(FOREIGN, value, lease=lease)
    shell.settle()
    assert set(shell.machine.records) == {A, B}
    assert list(shell.machine.skipped) == [FOREIGN]
    store.put(B, b"2", lease=1)
    shell.settle()
    assert shell.published[-1] == truth(store)


def test_whatever_a_foreign_writer_does_nothing_is_published(store: MemoryStore) -> None:
    """A writer that fills our range with its own things a hundred times a second must not have us rebuild each time."""
    shell = Shell(store).live()
    shell.forget()
    known = shell.machine.records
    for number in range(100):
        store.put(FOREIGN, b"bad%d" % number)
        shell.settle()
    store.delete(FOREIGN)
    shell.settle()
    assert shell.published == []
    assert shell.machine.records is known
    assert shell.machine.revision == store.revision


def test_a_bad_value_is_noted_once_and_without_its_content(store: MemoryStore) -> None:
    shell = Shell(store).live()
    for number in range(100):
        store.put(FOREIGN, b"bad-canary-%d" % number, lease=1)
        shell.settle()
    shell.run(1000)
    skipped = [notice for notice in shell.notices if notice.kind == "skipped"]
    assert len(skipped) == 1
    assert FOREIGN in skipped[0].text
    assert "it is bad" in skipped[0].text
    assert "canary" not in skipped[0].text


def test_a_valid_value_that_turns_bad_is_gone(store: MemoryStore) -> None:
    shell = Shell(store).live()
    store.put(A, b"bad", lease=1)
    shell.settle()
    assert shell.published[-1] == truth(store)
    assert set(shell.machine.records) == {B}
    assert shell.machine.skipped == {A: "it is bad"}


def test_a_bad_value_that_turns_valid_is_there_and_no_longer_counted(store: MemoryStore) -> None:
    store.put(FOREIGN, b"bad", lease=1)
    shell = Shell(store).live()
    store.put(FOREIGN, b"1", lease=1)
    shell.settle()
    assert shell.published[-1] == truth(store)
    assert FOREIGN in shell.machine.records
    assert shell.machine.skipped == {}


def test_a_bad_value_that_is_deleted_is_no_longer_counted(store: MemoryStore) -> None:
    store.put(FOREIGN, b"bad", lease=1)
    shell = Shell(store).live()
    store.delete(FOREIGN)
    shell.settle()
    assert shell.machine.skipped == {}
    assert len(shell.asks(Do.LIST)) == 1  # the deletion of a skipped key is no deletion of an unknown one


def test_a_key_that_loses_its_lease_is_gone(store: MemoryStore) -> None:
    """A put without a lease detaches it: nobody would ever remove that key."""
    shell = Shell(store).live()
    store.put(A, b"1")
    shell.settle()
    assert set(shell.machine.records) == {B}


def test_a_key_that_is_put_again_under_a_lease_of_its_own_is_read_again(store: MemoryStore) -> None:
    shell = Shell(store).live()
    lease, _ = store.grant(10, 0)
    store.put(A, b"1", lease=lease)
    shell.settle()
    assert shell.machine.records[A][2] == lease


def test_a_list_decodes_only_what_is_new() -> None:
    """One change among 10,000 instances must not decode the others, and listing them again decodes none."""
    decoded = []

    def decode(entry: Entry) -> str:
        decoded.append(entry.key)
        return entry.key

    store = MemoryStore()
    lease, _ = store.grant(10, 0)
    for number in range(100):
        store.put(f"{RANGE}{number:08}", b"1", lease=lease)
    shell = Shell(store)
    shell.machine = WatchMachine(decode, settings=WatchSettings(), rng=shell.rng)  # type: ignore[assignment]
    shell.live()
    assert len(decoded) == 100
    decoded.clear()
    store.put(f"{RANGE}00000007", b"2", lease=lease)
    shell.settle()
    assert decoded == [f"{RANGE}00000007"]
    shell.run(1000)
    assert decoded == [f"{RANGE}00000007"]


def test_keys_that_are_no_text_are_skipped_as_any_other() -> None:
    shell = Shell(MemoryStore()).live()
    key = RANGE + b"\xff\xfe".decode("utf-8", "surrogateescape")
    shell.tell(Batch(2, (Entry(key, b"bad", 2, 2, 1),)))
    assert list(shell.machine.skipped) == [key]
    assert shell.notices[-1].text.encode()  # can be logged


@pytest.mark.parametrize("letter", ["x", "\x1b", "\udcff", "\n"])
def test_of_a_long_key_that_is_skipped_the_beginning_and_the_length_are_told(letter: str) -> None:
    """Whoever may write a key may write one of a megabyte: the log of every caller is not to be filled by it."""
    key = f"{RANGE}aaaaaaaa/{letter * 100_000}"
    shell = Shell(MemoryStore()).live()
    shell.tell(Batch(2, (Entry(key, b"bad", 2, 2, 1),)))
    (notice,) = shell.notices
    assert f"'{RANGE}aaaaaaaa/" in notice.text
    assert notice.text.endswith(f"... ({len(key)} characters) is skipped: it is bad")
    assert len(notice.text) < 700
    assert notice.text.isprintable()
    assert list(shell.machine.skipped) == [key]


def test_the_longest_valid_key_that_is_skipped_is_told_in_full() -> None:
    key = f"/disco/v1/services/{'s' * 63}/{'i' * 64}"
    shell = Shell(MemoryStore()).live()
    shell.tell(Batch(2, (Entry(key, b"bad", 2, 2, 1),)))
    assert shell.notices[-1].text == f"'{key}' is skipped: it is bad"
