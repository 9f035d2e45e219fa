"""The watch machine: silence, probes, stalls, registries that went back, and starts without a quorum. Virtual time."""

from __future__ import annotations

import copy

import pytest

from discoclient.registry.happenings import Ask, Do, Phase, WatchSettings
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Probe
from tests.registry.shell import RANGE, Shell, truth

A, B, C = (f"{RANGE}{name * 8}" for name in "abc")
ELSEWHERE = "/p/services/web2/aaaaaaaa"


def to_probe(shell: Shell) -> None:
    """Let time pass until the machine asks by itself."""
    shell.now = shell.machine.wake_at or 0.0
    shell.tick()
    assert Do.PROBE in shell.jobs


# ---- silence


def test_silence_is_asked_about_and_proved_to_be_fresh(shell: Shell) -> None:
    began = shell.now
    shell.store.put(ELSEWHERE, b"1", lease=1)
    to_probe(shell)
    assert began + 9 <= shell.now <= began + 11
    assert shell.asked == [(shell.now, Ask(Do.PROBE, 3))]
    assert shell.machine.fresh_at == began
    shell.settle()
    assert shell.machine.fresh_at == shell.now
    assert shell.machine.phase is Phase.LIVE
    assert shell.machine.revision == shell.store.revision == 4
    assert shell.published == []


def test_it_is_asked_about_again_and_again(shell: Shell) -> None:
    shell.run(120)
    assert 10 <= len(shell.asks(Do.PROBE)) <= 13
    assert shell.asks(Do.LIST) == []
    assert shell.machine.fresh_at is not None
    assert shell.machine.fresh_at >= shell.now - 11


def test_whoever_hears_changes_does_not_ask(shell: Shell) -> None:
    for number in range(60):
        shell.store.put(C, b"%d" % number, lease=1)
        shell.run(2)
    assert shell.asks(Do.PROBE) == []
    assert shell.machine.fresh_at == shell.now - 2


def test_a_probe_that_proves_freshness_moves_the_resume_point(shell: Shell) -> None:
    """Else a quiet range's resume point would be compacted by everybody else's writes."""
    for _ in range(20):
        shell.store.put(ELSEWHERE, b"1", lease=1)
    shell.run(12)
    shell.store.compact(shell.store.revision)
    shell.fail(Do.WATCH)
    shell.run(5)
    assert shell.asks(Do.LIST) == []
    assert Ask(Do.WATCH, 23) in [ask for _, ask in shell.asked]


def test_a_failed_probe_makes_it_suspect_and_is_tried_again(shell: Shell) -> None:
    to_probe(shell)
    shell.fail(Do.PROBE)
    assert shell.machine.phase is Phase.SUSPECT
    shell.run(1)
    assert shell.machine.phase is Phase.LIVE
    assert len(shell.asks(Do.PROBE)) == 2


def test_suspect_is_proved_fresh_again_even_if_changes_keep_coming(shell: Shell) -> None:
    to_probe(shell)
    shell.fail(Do.PROBE)
    for number in range(30):
        shell.store.put(C, b"%d" % number, lease=1)
        shell.run(1)
    assert shell.machine.phase is Phase.LIVE


def test_a_probe_is_no_proof_once_the_watch_broke(shell: Shell) -> None:
    to_probe(shell)
    shell.work_out(Do.PROBE)
    shell.fail(Do.WATCH)
    shell.arrive(Do.PROBE)
    assert (
        shell.machine.phase is Phase.SUSPECT
    )  # all that is there is known, but nobody tells what comes next
    shell.run(5)
    assert shell.machine.phase is Phase.LIVE


def test_an_event_that_comes_while_it_asks_is_as_good_as_an_answer(shell: Shell) -> None:
    to_probe(shell)
    shell.work_out(Do.PROBE)
    shell.store.put(C, b"1", lease=1)
    shell.deliver()
    shell.arrive(Do.PROBE)
    assert shell.machine.phase is Phase.LIVE
    assert shell.asks(Do.LIST) == []
    assert shell.machine.revision == shell.store.revision
    shell.run(60)
    assert shell.asks(Do.LIST) == []


def test_an_event_that_comes_twice_proves_nothing(shell: Shell) -> None:
    shell.store.put(C, b"1", lease=1)
    batch = shell.pending()[0]
    shell.settle()
    heard_at = shell.now
    shell.now += 5
    shell.tell(batch)
    assert shell.machine.fresh_at == heard_at


# ---- the watch stalls


def test_a_stalled_watch_is_found_out_and_listed_again(shell: Shell) -> None:
    shell.is_mute = True
    shell.store.put(C, b"1", lease=1)
    to_probe(shell)
    shell.settle()
    assert shell.machine.phase is Phase.SUSPECT
    assert shell.machine.wake_at == shell.now + 2.0
    assert shell.asks(Do.LIST) == []
    shell.run(1.9)
    assert shell.asks(Do.LIST) == []
    shell.run(0.2)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.published == [truth(shell.store)]
    assert "stalled" in shell.kinds()
    assert shell.asked[-1][1].what is Do.WATCH  # a new watch, too


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda store: store.put(A, b"2", lease=1), id="a change"),
        pytest.param(lambda store: store.delete(A), id="a deletion"),
        pytest.param(lambda store: (store.delete(A), store.put(A, b"1", lease=1)), id="gone and back"),
        pytest.param(lambda store: (store.delete(A), store.put(C, b"1", lease=1)), id="one for another"),
        pytest.param(lambda store: store.put(C, b"bad"), id="a value that is skipped"),
    ],
)
def test_no_change_that_a_stalled_watch_keeps_for_itself_is_missed(shell: Shell, change: object) -> None:
    assert callable(change)
    change(shell.store)
    shell.is_mute = True
    shell.run(14)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.machine.records == truth(shell.store)


def test_an_event_that_is_merely_late_saves_the_watch(shell: Shell) -> None:
    shell.is_mute = True
    shell.store.put(C, b"1", lease=1)
    to_probe(shell)
    shell.settle()
    assert shell.machine.phase is Phase.SUSPECT
    shell.now += 1.5
    shell.is_mute = False
    shell.run(60)
    assert shell.asks(Do.LIST) == []
    assert shell.machine.phase is Phase.LIVE


def test_an_old_event_does_not_save_a_stalled_watch(shell: Shell) -> None:
    shell.store.put(C, b"1", lease=1)
    old = shell.pending()[0]
    shell.settle()
    shell.is_mute = True
    shell.store.delete(A)
    to_probe(shell)
    shell.settle()
    shell.now += 1
    shell.tell(old)
    shell.run(1.1)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.published[-1] == truth(shell.store)


def test_keys_that_are_skipped_count_as_keys(store: MemoryStore) -> None:
    """The probe counts raw keys: a foreign value must not look like a stall for ever."""
    store.put(f"{RANGE}foreign", b"bad")
    store.put(f"{RANGE}leased", b"bad", lease=1)
    shell = Shell(store).live()
    shell.run(60)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.machine.phase is Phase.LIVE


# ---- the registry went back


def restored(shell: Shell, backup: MemoryStore) -> None:
    """As etcd: the streams break, and cluster id and raft term are what they were."""
    shell.store = backup
    if Do.WATCH in shell.jobs:
        shell.fail(Do.WATCH)


def test_a_restored_backup_is_believed(shell: Shell) -> None:
    backup = copy.deepcopy(shell.store)
    for _ in range(30):
        shell.store.put(C, b"1", lease=1)
    shell.store.delete(A)
    shell.settle()
    shell.forget()
    restored(shell, backup)
    shell.run(5)
    assert "rewound" in shell.kinds()
    assert shell.published == [truth(backup)]
    assert set(shell.machine.records) == {A, B}
    assert shell.machine.revision == backup.revision
    assert shell.machine.phase is Phase.LIVE


def test_after_a_restored_backup_its_changes_are_followed(shell: Shell) -> None:
    backup = copy.deepcopy(shell.store)
    for _ in range(30):
        shell.store.put(C, b"1", lease=1)
    shell.settle()
    restored(shell, backup)
    shell.run(5)
    shell.store.put(C, b"new", lease=1)
    shell.settle()
    assert shell.published[-1] == truth(shell.store)


def test_a_key_of_the_same_revision_and_lease_in_another_history_is_read_again(shell: Shell) -> None:
    backup = copy.deepcopy(shell.store)
    shell.store.put(A, b"old", lease=1)
    for _ in range(9):
        shell.store.put(ELSEWHERE, b"1", lease=1)
    shell.run(12)
    assert shell.machine.revision == shell.store.revision
    backup.put(A, b"new", lease=1)  # its mod_revision and lease are those of the one above
    restored(shell, backup)
    shell.run(5)
    assert shell.machine.records[A][0] == b"new"


def test_even_when_the_restored_registry_has_caught_up_the_difference_is_found(shell: Shell) -> None:
    """Its revision gives nothing away any more; and this one key's revision and lease do not either."""
    backup = copy.deepcopy(shell.store)
    shell.store.put(A, b"old", lease=1)
    shell.settle()
    backup.put(A, b"new", lease=1)
    for _ in range(9):
        backup.put(ELSEWHERE, b"1", lease=1)
    restored(shell, backup)
    shell.run(5)
    assert shell.machine.records[A][0] == b"new"


def test_the_same_value_at_the_same_revision_under_another_lease_is_told_apart(shell: Shell) -> None:
    backup = copy.deepcopy(shell.store)
    shell.store.put(A, b"same", lease=1)
    shell.settle()
    backup.put(A, b"same")  # without a lease: it is to be ignored
    restored(shell, backup)
    shell.run(5)
    assert A not in shell.machine.records


def test_a_wiped_registry_is_believed_to_be_empty(shell: Shell) -> None:
    restored(shell, MemoryStore())
    shell.run(5)
    assert shell.published == [{}]
    assert shell.machine.revision == 1
    assert shell.machine.phase is Phase.LIVE


def test_a_registry_that_went_back_behind_a_silent_watch_is_found_out_by_asking(shell: Shell) -> None:
    """Nothing breaks, for example behind a proxy: a watch of the future is silence, and etcd allows it."""
    shell.store = MemoryStore()
    shell.jobs[Do.WATCH].seen = 10**9
    shell.run(12)
    assert shell.published == [{}]
    assert "rewound" in shell.kinds()


def test_a_member_that_merely_lags_is_no_registry_that_went_back(shell: Shell) -> None:
    shell.fail(Do.WATCH)
    shell.now += 1
    shell.tick()
    shell.open(revision=2)  # behind us, who are at 3
    assert shell.asked[-1][1] == Ask(Do.PROBE, 3, is_past=True)
    assert shell.machine.phase is Phase.SUSPECT
    shell.settle()
    assert shell.machine.phase is Phase.LIVE
    assert shell.asks(Do.LIST) == []
    assert shell.published == []


def test_an_answer_from_before_the_registry_went_back_changes_nothing_after_it(shell: Shell) -> None:
    for _ in range(30):
        shell.store.put(C, b"1", lease=1)
    shell.settle()
    to_probe(shell)
    after = shell.jobs.pop(Do.PROBE).after
    restored(shell, MemoryStore())
    shell.run(5)
    shell.forget()
    assert shell.machine.revision == 1
    from discoclient.registry.happenings import Probed

    shell.tell(Probed(Probe(33, 0, 3), after))
    shell.settle()
    assert shell.machine.revision == 1
    assert shell.asks(Do.LIST) == []


# ---- list again now and then


def test_now_and_then_it_lists_again_and_publishes_nothing_new(shell: Shell) -> None:
    shell.run(3000)
    assert 8 <= len(shell.asks(Do.LIST)) <= 13  # 300 s, give or take a fifth
    assert shell.published == []
    assert shell.notices == []
    assert shell.machine.phase is Phase.LIVE


def test_listing_again_finds_what_the_watch_lost(shell: Shell) -> None:
    shell.store.put(A, b"lost", lease=1)
    shell.store.put(B, b"2", lease=1)
    lost, delivered = shell.pending()
    shell.jobs[Do.WATCH].seen = shell.store.revision
    shell.tell(Batch(lost.revision + 1, delivered.changes))
    assert shell.machine.records != truth(shell.store)
    shell.run(361)
    assert shell.machine.records == truth(shell.store)
    assert "repaired" in shell.kinds()


# ---- a start without a quorum


def no_quorum(shell: Shell) -> None:
    """Linearizable reads hang and fail; one member's word is to be had."""
    shell.start()
    until = shell.now + 60
    while shell.now < until and not shell.published:
        if Do.LIST in shell.jobs:
            shell.fail(Do.LIST)
        if Do.LIST_STALE in shell.jobs:
            shell.work_out(Do.LIST_STALE)
            shell.arrive(Do.LIST_STALE)
        shell.now = shell.machine.wake_at or until
        shell.tick()


def test_without_a_quorum_at_the_start_one_members_word_is_taken_and_marked(store: MemoryStore) -> None:
    shell = Shell(store)
    no_quorum(shell)
    assert shell.published == [truth(store)]
    assert shell.machine.is_stale
    assert shell.machine.phase is Phase.SUSPECT
    assert shell.machine.fresh_at is None
    assert shell.asks(Do.LIST_STALE) == [1002.5]


def test_one_members_word_that_there_is_nothing_is_not_believed(store: MemoryStore) -> None:
    """Cut off, it may not have heard yet of what was registered. It is asked again, for it may have by then."""
    shell = Shell(MemoryStore())
    no_quorum(shell)
    assert shell.published == []
    assert shell.machine.phase is Phase.EMPTY
    assert not shell.machine.is_stale
    assert 40 <= len(shell.asks(Do.LIST_STALE)) <= 80
    shell.store = store
    no_quorum(shell)
    assert shell.published == [truth(store)]
    assert shell.machine.is_stale


def test_a_quorums_word_that_there_is_nothing_is_believed_after_a_members(store: MemoryStore) -> None:
    """The negative control of the one above: an empty service must be able to say so."""
    shell = Shell(MemoryStore())
    shell.start()
    shell.now += 2.5
    shell.tick()
    shell.work_out(Do.LIST_STALE)
    shell.arrive(Do.LIST_STALE)
    assert shell.published == []
    shell.work_out(Do.LIST)
    shell.arrive(Do.LIST)
    assert shell.published == [{}]


def test_one_members_word_is_replaced_as_soon_as_there_is_a_quorum(store: MemoryStore) -> None:
    shell = Shell(store)
    no_quorum(shell)
    shell.store.delete(A)
    shell.run(5)
    assert not shell.machine.is_stale
    assert shell.published[-1] == truth(store)
    assert shell.machine.phase is Phase.LIVE


def test_that_one_members_word_turned_out_right_is_published_too(store: MemoryStore) -> None:
    shell = Shell(store)
    no_quorum(shell)
    shell.run(5)
    assert shell.published == [truth(store)] * 2


def test_one_members_word_of_a_later_revision_is_no_reason_to_speak_of_a_rewind(store: MemoryStore) -> None:
    shell = Shell(store)
    no_quorum(shell)
    shell.store = MemoryStore()
    shell.run(5)
    assert shell.machine.records == {}
    assert shell.kinds() == []


def test_nobody_asks_for_one_members_word_while_the_registry_answers(store: MemoryStore) -> None:
    shell = Shell(store).live()
    shell.is_down = True
    shell.fail(Do.WATCH)
    shell.run(100)
    assert shell.asks(Do.LIST_STALE) == []


def test_one_members_word_that_fails_late_is_not_asked_for_again(store: MemoryStore) -> None:
    shell = Shell(store)
    shell.start()
    shell.now += 2.5
    shell.tick()
    shell.work_out(Do.LIST)
    shell.arrive(Do.LIST)
    shell.fail(Do.LIST_STALE)
    shell.run(60)
    assert len(shell.asks(Do.LIST_STALE)) == 1


def test_while_nothing_is_known_one_members_word_is_asked_for_again(store: MemoryStore) -> None:
    shell = Shell(store)
    shell.is_down = True
    shell.start()
    shell.run(30)
    assert 20 <= len(shell.asks(Do.LIST_STALE)) <= 40
    assert shell.machine.phase is Phase.EMPTY


@pytest.mark.parametrize("is_begun", [True, False])
def test_who_waits_less_long_has_one_members_word_earlier(store: MemoryStore, is_begun: bool) -> None:
    shell = Shell(store, settings=WatchSettings(stale_after=30.0))
    if not is_begun:
        shell.machine.hasten(1000.5)
    shell.start()
    if is_begun:
        shell.machine.hasten(1000.5)
    shell.machine.hasten(1020.0)  # who waits longer changes nothing
    while not shell.published:
        if Do.LIST in shell.jobs:
            shell.fail(Do.LIST)
        if Do.LIST_STALE in shell.jobs:
            shell.work_out(Do.LIST_STALE)
            shell.arrive(Do.LIST_STALE)
        shell.now = shell.machine.wake_at or 0.0
        shell.tick()
    assert shell.asks(Do.LIST_STALE) == [1000.5]
    shell.run(5)
    shell.machine.hasten(0.0)
    shell.run(5)
    assert len(shell.asks(Do.LIST_STALE)) == 1, "something is known"
