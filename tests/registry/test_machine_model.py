"""The watch machine against a model registry, with every interleaving that hypothesis can think of. Virtual time."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.model.errors import RevisionCompacted
from discoclient.registry.happenings import Do, Listed, Phase
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Listing
from tests.registry.shell import RANGE, Record, Shell, truth
from tests.support.properties import thorough

KEYS = [f"{RANGE}{name * 8}" for name in "abcd"]
VALUES = [b"1", b"2", b"bad"]
ANSWERED = [Do.LIST, Do.LIST_STALE, Do.PROBE]

keys = st.sampled_from(KEYS)


class FaithfulRegistry(RuleBasedStateMachine):
    """The registry and its watch keep etcd's promises: in order, whole, nothing lost. Everything else may go wrong.

    Answers are slow, members lag, events come twice, streams break, history is compacted.
    """

    enough = 30.0
    """Seconds until it must know the truth: silence, stall and the longest pause."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.shell = Shell(MemoryStore(), rng=Random(seed))
        self.at: dict[int, Mapping[str, Record]] = {}
        self.listings: list[Listing] = []
        self.delivered: list[Batch] = []
        self.leases = [self.shell.store.grant(10, 0)[0] for _ in range(2)]
        self.revision = 0
        self.record()
        self.shell.start()

    @property
    def store(self) -> MemoryStore:
        return self.shell.store

    def record(self) -> None:
        """The truth as of the present revision."""
        self.at[self.store.revision] = truth(self.store)
        self.listings = [*self.listings[-3:], self.store.list(RANGE)]

    # ---- what others write

    @rule(key=keys, value=st.sampled_from(VALUES), lease=st.integers(0, 2))
    def put(self, key: str, value: bytes, lease: int) -> None:
        self.store.put(key, value, lease=self.leases[lease - 1] if lease else 0)
        self.record()

    @rule(gone=st.sets(keys, min_size=1))
    def delete(self, gone: set[str]) -> None:
        self.store.delete(*gone)
        self.record()

    @rule(which=st.integers(0, 1))
    def revoke(self, which: int) -> None:
        """Everything on a lease goes in one revision."""
        self.store.revoke(self.leases[which])
        self.leases[which] = self.store.grant(10, 0)[0]
        self.record()

    @rule()
    def put_elsewhere(self) -> None:
        self.store.put("/p/services/web2/aaaaaaaa", b"1")
        self.record()

    @rule()
    def compact(self) -> None:
        self.store.compact(self.store.revision)

    # ---- what becomes of what the machine asked for

    @precondition(lambda self: any(what in self.shell.jobs for what in ANSWERED))
    @rule(data=st.data())
    def work_out(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from([what for what in ANSWERED if what in self.shell.jobs]))
        if self.shell.jobs[what].answer is None:
            self.shell.work_out(what)
            if what is Do.LIST_STALE:  # a member without a quorum may be behind
                self.shell.jobs[what].answer = Listed(data.draw(st.sampled_from(self.listings)), True)

    @precondition(lambda self: any(job.answer is not None for job in self.shell.jobs.values()))
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        ready = [what for what in ANSWERED if what in self.shell.jobs and self.shell.jobs[what].answer]
        self.shell.arrive(data.draw(st.sampled_from(ready)))

    @precondition(lambda self: self.shell.jobs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self.shell.fail(data.draw(st.sampled_from(sorted(self.shell.jobs))))

    @precondition(lambda self: Do.WATCH in self.shell.jobs and not self.shell.jobs[Do.WATCH].is_open)
    @rule(lag=st.integers(0, 3))
    def open(self, lag: int) -> None:
        self.shell.open(max(1, self.store.revision - lag))

    @precondition(lambda self: Do.WATCH in self.shell.jobs and self.shell.jobs[Do.WATCH].is_open)
    @rule(revisions=st.integers(1, 3))
    def deliver(self, revisions: int) -> None:
        try:
            self.delivered += self.shell.pending()[:revisions]
        except RevisionCompacted:
            pass
        self.shell.deliver(revisions)

    @precondition(
        lambda self: self.delivered and Do.WATCH in self.shell.jobs and self.shell.jobs[Do.WATCH].is_open
    )
    @rule(data=st.data())
    def deliver_twice(self, data: st.DataObject) -> None:
        job, again = self.shell.jobs[Do.WATCH], data.draw(st.sampled_from(self.delivered))
        if again.revision <= job.seen:
            self.shell.tell(again)

    @precondition(lambda self: Do.WATCH in self.shell.jobs and self.shell.jobs[Do.WATCH].is_open)
    @rule()
    def progress(self) -> None:
        """etcd before 3.4.25 and 3.5.8: it may run ahead of events that are not delivered yet."""
        self.shell.tell(Batch(self.store.revision))

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 12.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.shell.now + seconds
        while (due := self.shell.machine.wake_at) is not None and due <= until:
            self.shell.now = max(self.shell.now, due)
            self.shell.tick()
        self.shell.now = until

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def all_is_well_for_a_while(self, seconds: float) -> None:
        self.shell.run(seconds)
        self.delivered.clear()

    # ---- what must hold, at any moment

    @invariant()
    def readers_see_the_whole_set_of_one_revision(self) -> None:
        machine = self.shell.machine
        if machine.phase is not Phase.EMPTY:
            assert machine.records == self.at[machine.revision]
            assert not machine.records.keys() & machine.skipped.keys()

    @invariant()
    def the_revision_never_goes_back(self) -> None:
        machine = self.shell.machine
        assert machine.is_stale or machine.revision >= self.revision
        assert machine.revision <= self.store.revision
        self.revision = 0 if machine.is_stale else machine.revision

    @invariant()
    def nobody_cries_wolf(self) -> None:
        assert not {"rewound", "repaired"} & set(self.shell.kinds())

    @invariant()
    def a_list_that_brings_nothing_new_is_not_published(self) -> None:
        assert not self.shell.needless

    @invariant()
    def it_is_never_stuck(self) -> None:
        assert self.shell.machine.wake_at is not None or self.shell.jobs.keys() - {Do.WATCH}

    def teardown(self) -> None:
        """When the faults are over it comes to know the truth."""
        if not hasattr(self, "shell"):
            return
        self.shell.run(self.enough)
        machine = self.shell.machine
        assert machine.records == truth(self.store)
        assert machine.phase is Phase.LIVE
        assert not machine.is_stale
        assert set(self.shell.jobs) == {Do.WATCH}
        assert machine.fresh_at is not None
        assert machine.fresh_at >= self.shell.now - 11
        self.store.put(KEYS[0], b"last", lease=self.store.grant(10, 0)[0])
        self.shell.settle()
        assert machine.records == truth(self.store)


class UnfaithfulRegistry(FaithfulRegistry):
    """No promise is kept: events get lost and come out of order; the registry is restored from a backup, or wiped."""

    enough = 400.0  # what leaves no trace is found when it lists again

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.backups = [copy.deepcopy(self.store)]

    @rule()
    def back_up(self) -> None:
        self.backups.append(copy.deepcopy(self.store))

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self._become(copy.deepcopy(data.draw(st.sampled_from(self.backups))))

    @rule()
    def wipe(self) -> None:
        self._become(MemoryStore())

    def _become(self, store: MemoryStore) -> None:
        self.shell.store = store
        self.leases = [store.grant(10, 0)[0] for _ in range(2)]
        if Do.WATCH in self.shell.jobs:
            self.shell.fail(Do.WATCH)

    @precondition(lambda self: Do.WATCH in self.shell.jobs and self.shell.jobs[Do.WATCH].is_open)
    @rule()
    def lose(self) -> None:
        self.shell.jobs[Do.WATCH].seen = self.store.revision

    @precondition(lambda self: Do.WATCH in self.shell.jobs and self.shell.jobs[Do.WATCH].is_open)
    @rule(data=st.data())
    def deliver_out_of_order(self, data: st.DataObject) -> None:
        try:
            batches = self.shell.pending()
        except RevisionCompacted:
            return
        changes = [change for batch in batches for change in batch.changes]
        for change in data.draw(st.permutations(changes)):
            self.shell.tell(Batch(self.store.revision, (change,)))
            if Do.WATCH not in self.shell.jobs:
                break

    @invariant()
    def readers_see_the_whole_set_of_one_revision(self) -> None:
        """Not to be had here: what can't be told from the truth is believed, until it lists again."""

    @invariant()
    def nobody_cries_wolf(self) -> None:
        """There are wolves."""

    @invariant()
    def the_revision_never_goes_back(self) -> None:
        machine = self.shell.machine
        if machine.revision < self.revision:
            assert "rewound" in self.shell.kinds()
            self.shell.notices.clear()
        self.revision = 0 if machine.is_stale else machine.revision


TestFaithfulRegistry = FaithfulRegistry.TestCase
TestFaithfulRegistry.settings = thorough(80)
TestUnfaithfulRegistry = UnfaithfulRegistry.TestCase
TestUnfaithfulRegistry.settings = thorough(60)
