"""The keeper against a model whose watch is honest: each change of the key is told once, in order, some time later.

`test_keeper_model` looks at the key again and again; here a sighting that is not heeded never comes back.
"""

from __future__ import annotations

import copy

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Entry
from discoclient.serving.happenings import Seen, Step
from tests.serving.keeping import KEY, TTL, Keeping
from tests.support.properties import thorough


class HonestWatch(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.keeping = Keeping(seed=seed)
        self.wanted = b"v1"
        self.pending: list[Seen] = []
        self.noted: tuple[Entry | None, int] = (None, 0)
        self.backups: list[MemoryStore] = []
        self.keeping.start()

    # ---- the watch

    @invariant()
    def the_watch_notes_what_changed(self) -> None:
        store = self.keeping.store
        entries = store.list(KEY).entries
        entry = entries[0] if entries else None
        went_back = store.revision < self.noted[1]
        if entry != self.noted[0] or went_back:  # a registry that went back is listed again, and that is told
            self.pending.append(Seen(entry, store.revision))
        self.noted = (entry, store.revision)

    @precondition(lambda self: self.pending)
    @rule(skip=st.integers(0, 2))
    def a_sighting_arrives(self, skip: int) -> None:
        """Several changes may arrive as one: the newest of them counts."""
        skip = min(skip, len(self.pending) - 1)
        seen, self.pending = self.pending[skip], self.pending[skip + 1 :]
        self.keeping.tell(seen)

    # ---- answers

    def steps(self) -> list[Step]:
        return sorted(self.keeping.jobs)

    @precondition(lambda self: any(job.answer is None for job in self.keeping.jobs.values()))
    @rule(data=st.data())
    def it_is_done(self, data: st.DataObject) -> None:
        left = [step for step in self.steps() if self.keeping.jobs[step].answer is None]
        self.keeping.do(data.draw(st.sampled_from(left)))

    @precondition(lambda self: any(job.answer is not None for job in self.keeping.jobs.values()))
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        done = [step for step in self.steps() if self.keeping.jobs[step].answer is not None]
        self.keeping.answer(data.draw(st.sampled_from(done)))

    @precondition(lambda self: self.keeping.jobs)
    @rule(data=st.data())
    def an_answer_is_lost(self, data: st.DataObject) -> None:
        self.keeping.fail(data.draw(st.sampled_from(self.steps())))

    # ---- accidents

    @rule()
    def the_key_is_deleted(self) -> None:
        self.keeping.store.delete(KEY)

    @precondition(lambda self: self.keeping.keeper._was_registered)
    @rule(value=st.sampled_from([b"v1", b"v2", b"rival"]), has_lease=st.booleans())
    def the_key_is_overwritten(self, value: bytes, has_lease: bool) -> None:
        store = self.keeping.store
        store.put(KEY, value, lease=store.grant(TTL, self.keeping.now)[0] if has_lease else 0)

    @precondition(lambda self: self.keeping.keeper.lease is not None)
    @rule()
    def the_lease_is_revoked(self) -> None:
        assert self.keeping.keeper.lease is not None
        self.keeping.store.revoke(self.keeping.keeper.lease.id)

    @rule()
    def somebody_else_writes(self) -> None:
        self.keeping.store.put("/elsewhere", b"")

    @rule()
    def a_backup_is_made(self) -> None:
        self.backups.append(copy.deepcopy(self.keeping.store))

    @precondition(lambda self: self.backups and self.keeping.keeper._was_registered)
    @rule(data=st.data())
    def a_backup_is_restored(self, data: st.DataObject) -> None:
        """As etcd does it: leases begin anew. Answers that were under way are lost, and the watch lists again."""
        store = copy.deepcopy(data.draw(st.sampled_from(self.backups)))
        for lease in store._leases.values():
            lease.expires_at = self.keeping.now + lease.ttl
        if store.revision < self.noted[1]:  # else nobody could tell: see the watch machine's tests
            store._last_lease += 1000  # ids are random numbers: a new history gives out others
            self.keeping.store = store

    @rule(value=st.sampled_from([b"v1", b"v2"]))
    def another_value_is_wanted(self, value: bytes) -> None:
        self.wanted = value
        self.keeping.want(value)

    @rule(seconds=st.sampled_from([0.05, 1.0, 5.0, TTL, 3 * TTL]))
    def time_passes(self, seconds: float) -> None:
        self.keeping.now += seconds
        self.keeping.store.expire(self.keeping.now)
        self.keeping._tick()

    # ---- what must hold

    @invariant()
    def it_never_believes_in_a_lease_past_its_time(self) -> None:
        keeping = self.keeping
        if keeping.keeper.lease is not None:
            assert keeping.now < keeping.keeper.deadline

    @invariant()
    def it_is_never_stuck(self) -> None:
        assert self.keeping.jobs or self.keeping.keeper.wake_at is not None

    @invariant()
    def it_never_takes_itself_for_another(self) -> None:
        assert self.keeping.keeper.fatal is None

    @rule()
    def the_trouble_is_over_for_a_while(self) -> None:
        """Everything is answered, and each change is told once: one key, the wanted value, the newest lease."""
        keeping = self.keeping
        for step in self.steps():
            if step in keeping.jobs and keeping.jobs[step].answer is not None:
                keeping.answer(step)
        until = keeping.now + 5 * TTL
        while keeping.now < until:
            keeping.settle()
            self.the_watch_notes_what_changed()
            while self.pending:
                keeping.tell(self.pending.pop(0))
                keeping.settle()
                self.the_watch_notes_what_changed()
            assert keeping.keeper.wake_at is not None
            keeping.now = max(keeping.now, keeping.keeper.wake_at)
            keeping.store.expire(keeping.now)
            keeping._tick()
        keeping.settle()
        assert keeping.keeper.is_settled
        (entry,) = keeping.store.list(KEY).entries
        assert entry.value == self.wanted
        assert keeping.keeper.lease is not None
        assert entry.lease == keeping.keeper.lease.id

    def teardown(self) -> None:
        if hasattr(self, "keeping"):
            self.the_trouble_is_over_for_a_while()


TestHonestWatch = HonestWatch.TestCase
TestHonestWatch.settings = thorough(70, steps=40)
