"""The keeper against a model of the registry: whatever happens, and in whatever order, it ends up registered once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.serving.happenings import Seen, Step
from tests.serving.keeping import KEY, TTL, Keeping, StoredLease
from tests.support.properties import thorough


class KeeperMachine(RuleBasedStateMachine):
    """Answers come when hypothesis lets them, or never; the key and the lease are taken away; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping = Keeping()
        self.wanted = b"v1"
        self.sightings: list[Seen] = []

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.keeping = Keeping(seed=seed).start()

    def pending(self) -> list[Step]:
        return sorted(self.keeping.jobs)

    @precondition(lambda self: self.keeping.jobs)
    @rule(data=st.data())
    def the_registry_does_it(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.pending()))
        if self.keeping.jobs[step].answer is None:
            self.keeping.do(step)

    @precondition(lambda self: any(job.answer for job in self.keeping.jobs.values()))
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        done = [step for step in self.pending() if self.keeping.jobs[step].answer is not None]
        self.keeping.answer(data.draw(st.sampled_from(done)))

    @precondition(lambda self: self.keeping.jobs)
    @rule(data=st.data())
    def an_answer_is_lost(self, data: st.DataObject) -> None:
        """Done or not: the keeper can't tell."""
        self.keeping.fail(data.draw(st.sampled_from(self.pending())))

    @rule()
    def somebody_deletes_the_key(self) -> None:
        self.keeping.store.delete(KEY)

    @precondition(lambda self: self.keeping.keeper.is_registered)
    @rule(has_lease=st.booleans(), value=st.sampled_from([b"v1", b"rival"]))
    def somebody_overwrites_the_key(self, has_lease: bool, value: bytes) -> None:
        store = self.keeping.store
        store.put(KEY, value, lease=store.grant(TTL, self.keeping.now)[0] if has_lease else 0)

    @rule()
    def somebody_revokes_the_lease(self) -> None:
        if self.keeping.keeper.lease is not None:
            self.keeping.store.revoke(self.keeping.keeper.lease.id)

    @rule()
    def the_watch_sees_the_key(self) -> None:
        entries = self.keeping.store.list(KEY).entries
        self.sightings.append(Seen(entries[0] if entries else None, self.keeping.store.revision))

    @precondition(lambda self: self.sightings)
    @rule()
    def a_sighting_arrives(self) -> None:
        self.keeping.tell(self.sightings.pop(0))

    @rule(value=st.sampled_from([b"v1", b"v2", b"v3"]))
    def another_value_is_wanted(self, value: bytes) -> None:
        self.wanted = value
        self.keeping.want(value)

    @rule(seconds=st.floats(0.1, 2 * TTL))
    def time_passes(self, seconds: float) -> None:
        """The process may have been stopped all that time."""
        self.keeping.now += seconds
        self.keeping.store.expire(self.keeping.now)
        self.keeping._tick()

    @invariant()
    def it_never_believes_in_a_lease_past_its_time(self) -> None:
        keeper = self.keeping.keeper
        if keeper.lease is not None:
            assert self.keeping.now < keeper.deadline

    @invariant()
    def it_asks_for_one_thing_of_a_kind_at_a_time(self) -> None:
        for job in self.keeping.jobs.values():
            assert job.lease is None or isinstance(job.lease, StoredLease)

    def teardown(self) -> None:
        """When the trouble is over, everybody agrees: one key, our value, our newest lease."""
        keeping = self.keeping
        self.sightings.clear()
        for step in self.pending():
            if step in keeping.jobs:
                keeping.fail(step)
        keeping.see()
        keeping.run(6 * TTL, watching=True)
        assert keeping.keeper.fatal is None
        assert keeping.keeper.is_settled
        (entry,) = keeping.store.list(KEY).entries
        assert entry.value == self.wanted
        assert keeping.keeper.lease is not None
        assert entry.lease == keeping.keeper.lease.id


KeeperMachine.TestCase.settings = thorough(60, steps=40)
TestWhateverHappensItEndsUpRegistered = KeeperMachine.TestCase
