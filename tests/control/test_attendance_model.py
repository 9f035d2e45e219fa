"""The attendance against a model of the registry: whatever happens, in the end the registry holds what is wanted.

Left out is what nobody who speaks to etcd can tell: a request that is carried out after the caller was told that it failed.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from discoclient.control.attendance import (
    DENIED_PAUSE,
    LOST_PAUSE,
    PERIOD,
    RETRY_CAP,
    WRITES,
    Delete,
    Grant,
    Renew,
    Step,
    Write,
)
from discoclient.model.errors import RegistryDenied
from tests.control.attending import TTL, Attending, Job, key_of
from tests.support.properties import thorough

SERVICES = ("api", "web")
services = st.sampled_from(SERVICES)


class Presences(RuleBasedStateMachine):
    """Services come and go; what is asked for is done, and answered, when hypothesis lets it, or fails; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.here = Attending()
        self.wanted: dict[str, bytes] = {}
        self.count = 0

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.here = Attending(seed=seed)

    # ---- what is asked of it

    @rule(service=services, is_new=st.booleans())
    def a_value_is_wanted(self, service: str, is_new: bool) -> None:
        self.count += is_new
        self.wanted[service] = b"v%d" % self.count
        self.here.want(service, self.wanted[service])

    @rule(service=services)
    def a_service_is_dropped(self, service: str) -> None:
        self.wanted.pop(service, None)
        self.here.drop(service)

    # ---- what the registry does

    @precondition(lambda self: any(job.answer is None for job in self.here.jobs))
    @rule(data=st.data())
    def it_is_done(self, data: st.DataObject) -> None:
        self.here.do(data.draw(st.sampled_from([job for job in self.here.jobs if job.answer is None])))

    @precondition(lambda self: any(job.answer is not None for job in self.here.jobs))
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self.here.answer(
            data.draw(st.sampled_from([job for job in self.here.jobs if job.answer is not None]))
        )

    @precondition(lambda self: self.here.jobs)
    @rule(data=st.data(), is_denied=st.booleans())
    def an_answer_is_lost(self, data: st.DataObject, is_denied: bool) -> None:
        """Done or not: it can't tell. A denial is an answer, and nothing was done."""
        job = data.draw(st.sampled_from(self.here.jobs))
        if is_denied and job.answer is None:
            self.here.fail(job, RegistryDenied("no such role"))
        else:
            self.here.fail(job)

    @precondition(lambda self: self.here.attendance.lease is not None)
    @rule()
    def the_lease_is_revoked(self) -> None:
        assert self.here.attendance.lease is not None
        self.here.store.revoke(self.here.attendance.lease.id)

    @rule(seconds=st.sampled_from([0.01, 0.3, PERIOD, 3.0, TTL, 3 * TTL]))
    def time_passes(self, seconds: float) -> None:
        """The process may have been stopped all that time."""
        self.here.now += seconds
        self.here.store.expire(self.here.now)
        self.here.tick()

    # ---- what must hold

    @invariant()
    def no_key_is_written_more_than_twice_a_second(self) -> None:
        for service in SERVICES:
            times = self.here.times(Write, service)
            for first, later in zip(times, times[WRITES:], strict=False):
                assert later >= first + PERIOD

    @invariant()
    def no_key_has_two_steps_under_way(self) -> None:
        keys = [step_key(job) for job in self.here.jobs]
        assert len(keys) == len(set(keys))

    @invariant()
    def it_never_believes_in_a_lease_past_its_time(self) -> None:
        if self.here.attendance.lease is not None:
            assert self.here.now < self.here.attendance.deadline

    @invariant()
    def it_is_never_stuck(self) -> None:
        if self.wanted:
            assert self.here.jobs or self.here.attendance.wake_at is not None

    @rule()
    def the_trouble_is_over_for_a_while(self) -> None:
        """All is answered: exactly what is wanted stands there, under the newest lease, and is known to."""
        here = self.here
        here.run(DENIED_PAUSE + LOST_PAUSE + RETRY_CAP + 3 * TTL)
        entries = {entry.key: entry for entry in here.store.list("/").entries}
        assert {key: entry.value for key, entry in entries.items()} == {
            key_of(service): value for service, value in self.wanted.items()
        }
        for service in SERVICES:
            assert here.attendance.is_announced(service) is (service in self.wanted)
        if self.wanted:
            assert here.attendance.lease is not None
            assert {entry.lease for entry in entries.values()} == {here.attendance.lease.id}

    def teardown(self) -> None:
        self.the_trouble_is_over_for_a_while()


def step_key(job: Job) -> object:
    step: Step = job.step
    match step:
        case Grant():
            return "grant"
        case Renew():
            return ("renew", job.lease)
        case Write(service) | Delete(service):
            return service


TestPresences = Presences.TestCase
TestPresences.settings = thorough(150, steps=40)
