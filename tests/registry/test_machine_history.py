"""The watch machine after a break: whether the registry's history is still the one that was known. Virtual time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from discoclient.model.errors import RevisionCompacted
from discoclient.registry import machine as machines
from discoclient.registry import records
from discoclient.registry.happenings import Ask, Do, Phase, Probed
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Entry, Probe
from tests.registry.shell import RANGE, Shell, truth

A, B, C, D = (f"{RANGE}{name * 8}" for name in "abcd")
ELSEWHERE = "/p/services/web2/aaaaaaaa"


def overtake(shell: Shell, backup: MemoryStore, by: int = 5) -> None:
    """The watch breaks, and the next one finds *backup*, which has counted past what was known."""
    while backup.revision < shell.machine.revision + by:
        backup.put(ELSEWHERE, b"1")
    shell.store = backup
    shell.fail(Do.WATCH)


def later(shell: Shell) -> None:
    """Long enough for a watch to be resumed and the past to be asked about, and less than silence is."""
    shell.run(5)


def one_for_another(store: MemoryStore) -> None:
    store.put(C, b"1", lease=1)
    store.delete(B)


REWRITTEN: list[tuple[str, Callable[[MemoryStore], object], Callable[[MemoryStore], object]]] = [
    ("another key", lambda known: known.put(C, b"1", lease=1), lambda now: now.put(D, b"1", lease=1)),
    ("another value", lambda known: known.put(A, b"old", lease=1), lambda now: now.put(A, b"new", lease=1)),
    ("another lease", lambda known: known.put(A, b"2", lease=1), lambda now: now.put(A, b"2", lease=2)),
    ("one for another", one_for_another, lambda now: None),
    ("a change that was never made", lambda known: known.put(A, b"2", lease=1), lambda now: None),
    ("a key that was gone", lambda known: known.delete(B), lambda now: None),
]


def differ(
    shell: Shell, known: Callable[[MemoryStore], object], now: Callable[[MemoryStore], object]
) -> None:
    backup = copy.deepcopy(shell.store)
    known(shell.store)
    shell.settle()
    shell.forget()
    now(backup)
    overtake(shell, backup)


@pytest.mark.parametrize(("known", "now"), [row[1:] for row in REWRITTEN], ids=[row[0] for row in REWRITTEN])
def test_a_restored_backup_that_has_overtaken_us_is_found_out_when_the_watch_is_resumed(
    shell: Shell, known: Callable[[MemoryStore], object], now: Callable[[MemoryStore], object]
) -> None:
    differ(shell, known, now)
    later(shell)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.machine.records == truth(shell.store)
    assert shell.machine.phase is Phase.LIVE
    assert "rewound" in shell.kinds()
    assert "repaired" not in shell.kinds(), "the watch is not to blame"


@pytest.mark.parametrize(
    ("known", "now"), [row[1:] for row in REWRITTEN[:5]], ids=[row[0] for row in REWRITTEN[:5]]
)
def test_without_the_question_it_would_be_believed_until_all_is_listed_again(
    shell: Shell,
    known: Callable[[MemoryStore], object],
    now: Callable[[MemoryStore], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: how many keys there are gives nothing away, nor does the revision."""
    monkeypatch.setattr(records.Extent, "agrees", lambda self, probe: True)
    differ(shell, known, now)
    shell.run(200)
    assert shell.asks(Do.LIST) == []
    assert shell.machine.phase is Phase.LIVE
    assert shell.machine.records != truth(shell.store)


def test_what_the_other_history_brings_at_once_does_not_hide_it(shell: Shell) -> None:
    """The newest key of all is one that came with the resumed watch, and right."""
    backup = copy.deepcopy(shell.store)
    one_for_another(shell.store)
    shell.settle()
    for _ in range(5):
        backup.put(ELSEWHERE, b"1")
    backup.put(D, b"new", lease=1)
    backup.put(D, b"newer", lease=1)
    shell.store = backup
    shell.fail(Do.WATCH)
    later(shell)
    assert shell.machine.records == truth(backup)
    assert shell.machine.phase is Phase.LIVE


def test_it_is_found_out_by_a_probe_even_if_no_watch_broke(shell: Shell) -> None:
    """As behind a proxy that keeps the streams."""
    backup = copy.deepcopy(shell.store)
    one_for_another(shell.store)
    shell.settle()
    while backup.revision < shell.machine.revision:
        backup.put(ELSEWHERE, b"1")
    shell.store = backup
    shell.run(12)
    assert shell.machine.records == truth(backup)


# ---- no false alarm


BENIGN: list[tuple[str, Callable[[MemoryStore], object]]] = [
    ("nothing", lambda store: None),
    ("elsewhere", lambda store: store.put(ELSEWHERE, b"1")),
    ("the newest key went", lambda store: store.delete(B)),
    ("the newest key changed", lambda store: store.put(B, b"2", lease=1)),
    ("all went", lambda store: store.delete(A, B)),
    ("all went and another came", lambda store: (store.delete(A, B), store.put(C, b"1", lease=1))),
    ("gone and back", lambda store: (store.delete(B), store.put(B, b"1", lease=1))),
    ("a value that is skipped", lambda store: store.put(C, b"bad")),
]


@pytest.mark.parametrize("change", [row[1] for row in BENIGN], ids=[row[0] for row in BENIGN])
def test_what_happened_while_the_watch_was_broken_is_no_other_history(
    shell: Shell, change: Callable[[MemoryStore], object]
) -> None:
    shell.fail(Do.WATCH)
    change(shell.store)
    later(shell)
    assert [ask for _, ask in shell.asked if ask.what is Do.PROBE] == [Ask(Do.PROBE, 3, is_past=True)]
    assert shell.asks(Do.LIST) == []
    assert shell.machine.records == truth(shell.store)
    assert shell.machine.phase is Phase.LIVE
    assert shell.kinds()[0] == "broke"
    assert {"rewound", "repaired", "stalled"}.isdisjoint(shell.kinds())


@pytest.mark.parametrize("last", [C, D])
def test_of_several_keys_of_one_revision_any_may_be_called_the_newest(shell: Shell, last: str) -> None:
    """A transaction may put several."""
    entries = {key: Entry(key, b"1", 4, 4, 1) for key in (C, D)}
    shell.tell(Batch(4, tuple(entries.values())))
    open_after_a_break(shell, revision=4)
    shell.tell(Probed(Probe(4, 0, 4, entries[last]), 4, is_past=True))
    assert shell.machine.phase is Phase.LIVE
    assert Do.LIST not in shell.jobs


# ---- when and how it is asked


def open_after_a_break(shell: Shell, revision: int | None = None) -> None:
    shell.fail(Do.WATCH)
    while Do.WATCH not in shell.jobs:
        shell.now = shell.machine.wake_at or shell.now
        shell.tick()
    shell.open(revision)


def test_it_is_asked_soon_after_every_break_and_not_all_at_the_same_moment(store: MemoryStore) -> None:
    delays = []
    for _ in range(20):
        shell = Shell(store, rng=Random(len(delays))).live()
        open_after_a_break(shell)
        delays.append((shell.machine.wake_at or 0.0) - shell.now)
    assert max(delays) <= machines.CHECK_WITHIN
    assert len(set(delays)) == len(delays)
    assert max(delays) - min(delays) > machines.CHECK_WITHIN / 2


def test_it_is_not_put_off_by_changes_that_keep_coming(shell: Shell) -> None:
    open_after_a_break(shell)
    for number in range(30):
        shell.store.put(C, b"%d" % number, lease=1)
        shell.run(0.1)
    (asked,) = [ask for _, ask in shell.asked if ask.what is Do.PROBE]
    assert asked == Ask(Do.PROBE, 3, is_past=True)


def test_an_answer_that_fails_is_asked_for_again_and_for_the_same_revision(shell: Shell) -> None:
    open_after_a_break(shell)
    for number in range(3):
        while Do.PROBE not in shell.jobs:
            shell.now = shell.machine.wake_at or shell.now
            shell.tick()
        assert (shell.jobs[Do.PROBE].after, shell.jobs[Do.PROBE].is_past) == (3, True)
        shell.fail(Do.PROBE)
        assert shell.machine.phase is Phase.SUSPECT
        shell.store.put(C, b"%d" % number, lease=1)
        shell.deliver()
    later(shell)
    assert shell.machine.phase is Phase.LIVE
    assert shell.asks(Do.LIST) == []


def test_a_past_that_is_compacted_meanwhile_is_listed_anew(shell: Shell) -> None:
    open_after_a_break(shell)
    shell.store.put(C, b"1", lease=1)
    shell.store.compact(shell.store.revision)
    later(shell)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.machine.records == truth(shell.store)
    assert {"rewound", "repaired"}.isdisjoint(shell.kinds())


def test_while_no_watch_stands_it_is_not_asked(shell: Shell) -> None:
    """The registry could be replaced between the answer and the watch."""
    shell.now = shell.machine.wake_at or 0.0
    shell.tick()
    shell.fail(Do.WATCH)
    shell.fail(Do.PROBE)
    shell.is_down = True
    shell.run(5)
    assert not any(ask.is_past for _, ask in shell.asked)
    shell.is_down = False
    later(shell)
    assert any(ask.is_past for _, ask in shell.asked)


def test_an_answer_about_an_earlier_break_does_not_count(shell: Shell) -> None:
    open_after_a_break(shell)
    known = shell.store.probe(RANGE, 3, is_past=True)
    shell.store.put(C, b"1", lease=1)
    shell.settle()
    later(shell)
    shell.fail(Do.WATCH)
    shell.tell(Probed(known, 3, is_past=True))
    assert shell.machine.phase is Phase.SUSPECT
    later(shell)
    assert [ask.after for _, ask in shell.asked if ask.is_past] == [3, 4]


def test_the_first_watch_after_a_listing_needs_no_such_question(store: MemoryStore) -> None:
    shell = Shell(store).live()
    shell.run(5)
    assert shell.asks(Do.PROBE) == []


def test_a_registry_that_is_still_behind_is_listed_again_too(shell: Shell) -> None:
    """Its past does not reach to where we were."""
    for _ in range(9):
        shell.store.put(C, b"1", lease=1)
    shell.settle()
    shell.store = MemoryStore()
    shell.fail(Do.WATCH)
    later(shell)
    assert shell.machine.records == {}
    assert "rewound" in shell.kinds()


def test_the_past_of_the_store_is_what_it_was(store: MemoryStore) -> None:
    """The model that the machine is tested against."""
    seen: dict[int, Any] = {}

    def note() -> None:
        seen[store.revision] = (
            store.probe(RANGE, store.revision).count,
            store.probe(RANGE, store.revision).last,
        )

    note()
    for act in (
        lambda: store.put(C, b"1", lease=1),
        lambda: store.put(ELSEWHERE, b"1"),
        lambda: store.delete(A, B),
        lambda: store.compact(store.revision - 1),
        lambda: store.put(A, b"2", lease=1),
        lambda: store.delete(C),
    ):
        act()
        note()
    readable = [revision for revision in seen if revision >= 5]
    assert len(readable) == 4
    for revision in readable:
        probe = store.probe(RANGE, revision, is_past=True)
        assert (probe.count, probe.last, probe.revision) == (*seen[revision], store.revision)
    for revision in (4, store.revision + 1):
        with pytest.raises(RevisionCompacted):
            store.probe(RANGE, revision, is_past=True)
