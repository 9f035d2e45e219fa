"""The watch machine: listing, watching, and streams that break. Virtual time."""

from __future__ import annotations

import itertools

import pytest

from discoclient.model.errors import RegistryUnavailable, RevisionCompacted
from discoclient.registry.happenings import Ask, Broke, Do, Failed, Listed, Phase
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Deletion, Entry
from tests.registry.shell import RANGE, Shell, truth

A, B, C = (f"{RANGE}{name * 8}" for name in "abc")


@pytest.fixture
def store() -> MemoryStore:
    """Two instances under one lease each, and a neighbour that is none of ours."""
    store = MemoryStore()
    for key in (A, B):
        store.put(key, b"1", lease=store.grant(10, 0)[0])
    store.put("/p/services/web2/aaaaaaaa", b"1", lease=1)
    return store


@pytest.fixture
def shell(store: MemoryStore) -> Shell:
    return Shell(store)


# ---- list at R, watch from R + 1


def test_first_of_all_it_lists(shell: Shell) -> None:
    shell.start()
    assert [ask for _, ask in shell.asked] == [Ask(Do.LIST)]
    assert shell.machine.phase is Phase.EMPTY
    assert shell.published == []


def test_the_list_is_published_at_once_and_watched_from_its_revision_on(shell: Shell) -> None:
    shell.start()
    shell.work_out(Do.LIST)
    shell.arrive(Do.LIST)
    assert shell.published == [truth(shell.store)]
    assert sorted(shell.published[0]) == [A, B]
    assert shell.machine.revision == shell.store.revision == 4
    assert shell.asked[-1][1] == Ask(Do.WATCH, 4)
    assert shell.machine.phase is Phase.SYNCING


def test_it_is_live_once_the_watch_stands(shell: Shell) -> None:
    shell.live()
    assert shell.machine.phase is Phase.LIVE
    assert shell.machine.fresh_at == shell.now
    assert len(shell.published) == 1


def test_what_changes_between_the_list_and_the_watch_is_delivered(shell: Shell) -> None:
    shell.start()
    shell.work_out(Do.LIST)
    shell.store.put(C, b"1", lease=1)
    shell.arrive(Do.LIST)
    assert C not in shell.published[-1]
    shell.settle()
    assert shell.published[-1] == truth(shell.store)
    assert len(shell.asks(Do.LIST)) == 1


def test_an_empty_range_is_known_to_be_empty(store: MemoryStore) -> None:
    store.delete(A, B)
    shell = Shell(store).live()
    assert shell.published == [{}]
    assert shell.machine.phase is Phase.LIVE


def test_the_watch_being_created_does_not_move_the_resume_point(shell: Shell) -> None:
    shell.start()
    shell.work_out(Do.LIST)
    shell.arrive(Do.LIST)
    shell.store.put(C, b"1", lease=1)
    shell.open()  # its header says 5, and the event of revision 5 is not delivered yet
    assert shell.machine.revision == 4
    shell.fail(Do.WATCH)
    shell.run(5)
    assert shell.published[-1] == truth(shell.store)


def test_progress_without_events_does_not_move_the_resume_point(shell: Shell) -> None:
    shell.live()
    shell.store.put(C, b"1", lease=1)
    shell.tell(Batch(shell.store.revision))
    assert shell.machine.revision == 4
    assert shell.machine.phase is Phase.LIVE


# ---- events


def test_a_put_a_change_and_a_deletion_are_published_one_by_one(shell: Shell) -> None:
    shell.live().forget()
    expected = []
    for change in (
        lambda: shell.store.put(C, b"1", lease=1),
        lambda: shell.store.put(A, b"2", lease=1),
        lambda: shell.store.delete(B),
    ):
        change()
        expected.append(truth(shell.store))
        shell.settle()
        assert shell.machine.revision == shell.store.revision
    assert shell.published == expected
    assert shell.asked == []


def test_what_one_revision_changed_is_published_as_one(shell: Shell) -> None:
    shell.store.put(A, b"2", lease=1)
    shell.store.put(B, b"2", lease=1)  # both on lease 1 now
    shell.live().forget()
    shell.store.revoke(1)
    shell.settle()
    assert shell.published == [{}]


def test_what_was_published_before_is_never_changed(shell: Shell) -> None:
    shell.live()
    before = shell.machine.records
    copy = dict(before)
    shell.store.put(C, b"1", lease=1)
    shell.store.delete(A)
    shell.settle()
    assert before == copy
    assert shell.machine.records != copy


def test_several_revisions_in_one_batch_are_applied_in_order(shell: Shell) -> None:
    shell.live().forget()
    shell.store.put(C, b"1", lease=1)
    shell.store.delete(C)
    shell.store.put(C, b"3", lease=1)
    shell.deliver()
    assert shell.published == [truth(shell.store)]
    assert shell.machine.revision == 7


# ---- a stream breaks


def test_a_broken_stream_is_resumed_where_it_broke_without_listing_again(shell: Shell) -> None:
    shell.live()
    shell.store.put(C, b"1", lease=1)
    shell.settle()
    shell.forget()
    shell.fail(Do.WATCH)
    assert shell.machine.phase is Phase.SUSPECT
    shell.store.delete(A)
    shell.run(5)
    assert [ask for _, ask in shell.asked][:1] == [Ask(Do.WATCH, 5)]
    assert shell.asks(Do.LIST) == []
    assert shell.published == [truth(shell.store)]
    assert shell.machine.phase is Phase.LIVE


def test_while_the_registry_is_away_what_is_known_is_served(shell: Shell) -> None:
    shell.live()
    known = shell.machine.records
    shell.forget()
    shell.is_down = True
    shell.fail(Do.WATCH)
    shell.run(1000)
    assert shell.machine.records == known
    assert shell.machine.phase is Phase.SUSPECT
    assert shell.machine.fresh_at == 1000.0
    assert shell.published == []
    shell.is_down = False
    shell.store.delete(B)
    shell.run(5)
    assert shell.machine.phase is Phase.LIVE
    assert shell.published == [truth(shell.store)]


def test_every_break_is_noted(shell: Shell) -> None:
    shell.live()
    shell.fail(Do.WATCH, RegistryUnavailable("etcd 127.0.0.1:1 ended the watch"))
    assert [(notice.kind, notice.text) for notice in shell.notices] == [
        ("broke", "etcd 127.0.0.1:1 ended the watch")
    ]


@pytest.mark.parametrize("seed", range(20))
def test_waiting_grows_to_the_cap_and_is_drawn_anew_each_time(seed: int) -> None:
    shell = Shell(MemoryStore()).live()
    shell.rng.seed(seed)
    shell.is_down = True
    shell.fail(Do.WATCH)
    shell.run(60)
    times = shell.asks(Do.WATCH)[1:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    bounds = [0.4, 0.8, 1.6] + [2.0] * len(gaps)
    assert all(0 <= gap <= bound for gap, bound in zip(gaps, bounds)), gaps
    assert min(gaps[3:]) < 0.5 < 1.5 < max(gaps[3:])  # full jitter: anything from nothing to the bound
    assert len(set(gaps)) == len(gaps)


def test_processes_that_lose_the_registry_at_once_do_not_come_back_at_once() -> None:
    firsts = set()
    for seed in range(50):
        shell = Shell(MemoryStore()).live()
        shell.rng.seed(seed)
        shell.fail(Do.WATCH)
        assert shell.machine.wake_at is not None
        firsts.add(round(shell.machine.wake_at - shell.now, 2))
    assert min(firsts) < 0.05 < 0.15 < max(firsts) <= 0.2
    assert len(firsts) > 10


def test_a_failing_list_is_tried_for_ever(shell: Shell) -> None:
    shell.is_down = True
    shell.start()
    shell.run(3600)
    assert shell.machine.phase is Phase.EMPTY
    assert 1800 < len(shell.asks(Do.LIST)) < 36_000
    shell.is_down = False
    shell.run(5)
    assert shell.published == [truth(shell.store)]


def test_a_stream_that_breaks_again_and_again_does_not_list(shell: Shell) -> None:
    shell.live().forget()
    for number in range(50):
        shell.store.put(C, b"%d" % number, lease=1)
        shell.fail(Do.WATCH)
        shell.run(3)
        assert shell.published[-1] == truth(shell.store)
    assert shell.asks(Do.LIST) == []
    assert len(shell.asks(Do.WATCH)) == 50


# ---- compaction


def test_compaction_while_cut_off_is_one_list_and_the_set_never_dips(shell: Shell) -> None:
    shell.live().forget()
    shell.fail(Do.WATCH)
    for number in range(10):
        shell.store.put(C, b"%d" % number, lease=1)
    shell.store.compact(shell.store.revision)
    shell.run(30)
    assert len(shell.asks(Do.LIST)) == 1
    assert shell.published == [truth(shell.store)]
    assert all({A, B} <= set(known) for known in shell.published)
    assert shell.machine.phase is Phase.LIVE
    assert "compacted" in shell.kinds()


def test_after_a_compaction_the_set_is_replaced_by_difference(shell: Shell) -> None:
    shell.live().forget()
    kept = shell.machine.records[B]
    shell.fail(Do.WATCH)
    shell.store.delete(A)
    shell.store.put(C, b"1", lease=1)
    shell.store.compact(shell.store.revision)
    shell.run(5)
    assert len(shell.published) == 1
    assert shell.machine.records[B] is kept  # not decoded again
    assert set(shell.machine.records) == {B, C}


def test_the_first_compaction_lists_at_once_and_one_that_comes_back_waits(shell: Shell) -> None:
    shell.live().forget()
    shell.fail(Do.WATCH, RevisionCompacted("gone"))
    assert shell.asks(Do.LIST) == [shell.now]
    for _ in range(5):
        shell.work_out(Do.LIST)
        shell.arrive(Do.LIST)
        shell.fail(Do.WATCH, RevisionCompacted("gone"))
        assert shell.machine.wake_at is not None
        assert shell.machine.wake_at > shell.now
        shell.now = shell.machine.wake_at
        shell.tick()
    times = shell.asks(Do.LIST)
    assert times[0] == 1000.0
    assert len(set(times)) == len(times)


def test_a_watch_that_stands_does_not_care_about_compaction(shell: Shell) -> None:
    shell.live().forget()
    for number in range(10):
        shell.store.put(C, b"%d" % number, lease=1)
        shell.settle()
        shell.store.compact(shell.store.revision)
        shell.run(20)
    assert shell.asks(Do.LIST) == []
    assert shell.published[-1] == truth(shell.store)


def test_a_list_that_is_under_way_is_not_begun_anew(shell: Shell) -> None:
    """Whatever else calls for one: a list of 10,000 takes its time."""
    shell.live().forget()
    shell.now += 400
    shell.tick()
    assert Do.LIST in shell.jobs
    shell.work_out(Do.LIST)
    shell.fail(Do.WATCH, RevisionCompacted("gone"))
    shell.now += 1
    shell.tick()
    assert len(shell.asks(Do.LIST)) == 1
    shell.arrive(Do.LIST)
    shell.settle()
    assert shell.machine.phase is Phase.LIVE
    assert len(shell.asks(Do.LIST)) == 1


# ---- what can't be


def entry(key: str, revision: int, value: bytes = b"1", lease: int = 1) -> Entry:
    return Entry(key, value, revision, revision, lease)


def test_events_that_come_twice_change_nothing(shell: Shell) -> None:
    shell.live()
    shell.store.put(C, b"1", lease=1)
    shell.store.delete(A)
    batches = shell.pending()
    shell.settle()
    known, revision = shell.machine.records, shell.machine.revision
    shell.forget()
    for batch in batches * 2:
        shell.tell(batch)
    assert shell.machine.records is known
    assert shell.machine.revision == revision
    assert shell.published == []
    assert shell.asked == []


def test_of_a_batch_that_is_partly_old_only_the_new_part_counts(shell: Shell) -> None:
    shell.live()
    shell.store.put(C, b"1", lease=1)
    shell.settle()
    shell.store.delete(C)
    shell.forget()
    shell.tell(Batch(6, (entry(C, 5, b"old"), Deletion(C, 6))))
    assert shell.published == [truth(shell.store)]
    assert shell.asked == []


def test_the_deletion_of_an_unknown_key_means_list_again(shell: Shell) -> None:
    shell.live().forget()
    known = shell.machine.records
    shell.tell(Batch(9, (Deletion(C, 5),)))
    assert [ask for _, ask in shell.asked] == [Ask(Do.LIST)]
    assert shell.machine.records is known
    assert shell.machine.revision == 4
    assert shell.machine.phase is Phase.SUSPECT
    assert "repaired" in shell.kinds()
    shell.settle()
    assert shell.machine.phase is Phase.LIVE
    assert shell.published == []  # nothing was different


def test_of_a_batch_that_cannot_be_nothing_is_applied(shell: Shell) -> None:
    shell.live().forget()
    shell.tell(Batch(9, (entry(C, 5), Deletion(A, 6), Deletion("/p/services/web/never-seen", 7))))
    assert shell.published == []
    assert set(shell.machine.records) == {A, B}


def test_a_batch_out_of_order_means_list_again(shell: Shell) -> None:
    shell.live().forget()
    shell.tell(Batch(9, (entry(C, 7), entry(A, 6))))
    assert shell.asks(Do.LIST) == [shell.now]
    assert shell.published == []


def test_a_key_may_come_and_go_within_one_batch(shell: Shell) -> None:
    shell.live().forget()
    shell.tell(Batch(6, (entry(C, 5), Deletion(C, 6))))
    assert shell.asks(Do.LIST) == []
    assert C not in shell.machine.records
    assert shell.machine.revision == 6


def test_after_what_cannot_be_nothing_more_is_applied_until_it_listed_again(shell: Shell) -> None:
    """A set with a hole is no revision's: readers keep the last whole one."""
    shell.live().forget()
    known = shell.machine.records
    shell.tell(Batch(6, (Deletion("/p/services/web/never-seen", 5), entry(A, 5, b"2"))))
    shell.tell(Batch(6, (entry(B, 6, b"2"),)))
    assert shell.machine.records is known
    assert shell.machine.revision == 4


def test_impossible_events_one_after_the_other_do_not_begin_the_list_anew(shell: Shell) -> None:
    """A list takes time; asked for anew with each event, it would never come to its end."""
    shell.live().forget()
    for revision in range(5, 15):
        shell.tell(Batch(revision, (Deletion("/p/services/web/never-seen", revision),)))
    assert len(shell.asks(Do.LIST)) == 1


def test_while_that_list_fails_events_do_not_have_it_asked_for_more_often(shell: Shell) -> None:
    shell.live().forget()
    for revision in range(5, 500):
        shell.tell(Batch(revision, (Deletion("/p/services/web/never-seen", revision),)))
        if Do.LIST in shell.jobs:
            shell.fail(Do.LIST)
        shell.now += 0.01
    assert len(shell.asks(Do.LIST)) < 20
    shell.run(5)
    assert shell.machine.phase is Phase.LIVE


# ---- an answer that took its time


def test_a_list_that_the_watch_has_overtaken_takes_nothing_back(shell: Shell) -> None:
    """The watch and the list travel on different connections; a list of 10,000 is the slower one."""
    shell.live()
    shell.forget()
    shell.now = shell.machine.wake_at or 0.0
    shell.now += 400  # past the time to list again
    shell.tick()
    shell.work_out(Do.LIST)
    shell.store.delete(A)
    shell.store.put(C, b"1", lease=1)
    shell.deliver()
    after = dict(shell.machine.records)
    assert after == truth(shell.store)
    shell.arrive(Do.LIST)
    assert "rewound" not in shell.kinds()
    assert shell.machine.records == after
    assert shell.published == [after]
    assert shell.machine.revision == shell.store.revision
    shell.run(60)
    assert shell.published == [after]


def test_an_overtaken_list_still_repairs_what_the_watch_lost(shell: Shell) -> None:
    shell.live()
    shell.store.put(B, b"lost", lease=1)
    shell.jobs[Do.WATCH].seen = shell.store.revision  # lost: a bug of the server's
    shell.forget()
    shell.now += 400
    shell.tick()
    shell.work_out(Do.LIST)
    shell.store.put(C, b"1", lease=1)
    shell.deliver()
    shell.arrive(Do.LIST)
    shell.run(5)
    assert shell.machine.records == truth(shell.store)
    assert "repaired" in shell.kinds()


def test_a_list_asked_before_the_registry_went_back_is_no_proof_of_that(shell: Shell) -> None:
    """Two lists in a row of which the second is older than the events between is two times nothing."""
    shell.live()
    for _ in range(3):
        shell.forget()
        shell.now += 400
        shell.tick()
        shell.work_out(Do.LIST)
        shell.store.put(C, b"%d" % shell.store.revision, lease=1)
        shell.deliver()
        shell.arrive(Do.LIST)
        shell.settle()
        assert shell.machine.records == truth(shell.store)
        assert "rewound" not in shell.kinds()


def test_a_failed_resync_leaves_a_healthy_watch_alone(shell: Shell) -> None:
    shell.live().forget()
    shell.now += 400
    shell.tick()
    shell.fail(Do.LIST)
    assert shell.machine.phase is not Phase.EMPTY
    shell.store.put(C, b"1", lease=1)
    shell.settle()
    assert shell.published == [truth(shell.store)]
    shell.run(5)
    assert len(shell.asks(Do.LIST)) == 2


def test_events_of_a_list_are_the_same_whoever_tells_first() -> None:
    """`Broke` before, after or without the failed list: it ends in one watch."""
    for events in (
        (Broke(RegistryUnavailable("x")), Failed(Do.LIST, RegistryUnavailable("x"))),
        (Failed(Do.LIST, RegistryUnavailable("x")), Broke(RegistryUnavailable("x"))),
    ):
        shell = Shell(MemoryStore()).live()
        shell.now += 400
        shell.tick()
        shell.jobs.clear()
        for event in events:
            shell.tell(event)
        shell.run(10)
        assert shell.machine.phase is Phase.LIVE
        assert set(shell.jobs) == {Do.WATCH}


def test_a_stale_list_that_comes_after_the_real_one_is_dropped(shell: Shell) -> None:
    shell.live().forget()
    shell.tell(Listed(MemoryStore().list(RANGE), is_stale=True))
    assert shell.published == []
    assert not shell.machine.is_stale
