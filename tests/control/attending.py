"""A shell for an attendance in virtual time: `control.presence` without a loop, over a `MemoryStore`.

A step becomes a job; the registry does it when the test says so, and its answer may be lost, delayed, or an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from discoclient.control.attendance import (
    Attendance,
    Delete,
    Deleted,
    Event,
    Failed,
    Grant,
    Granted,
    Renew,
    Renewed,
    Step,
    Write,
    Written,
)
from discoclient.model.errors import LeaseExpired, RegistryError, RegistryUnavailable
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Lease
from tests.serving.keeping import StoredLease

__all__ = ["DOWN", "TTL", "Attending", "Job", "key_of"]

TTL = 10.0
DOWN = RegistryUnavailable("no member answers")


def key_of(service: str) -> str:
    return f"/disco/v1/clients/{service}/me"


@dataclass(eq=False)
class Job:
    step: Step
    lease: Lease | None
    since: float
    answer: Event | None = None


@dataclass
class Attending:
    """One attendance, its registry, and the time."""

    seed: int = 1
    now: float = 1000.0
    is_down: bool = False
    """Nothing reaches the registry, and no answer comes back but an error."""
    store: MemoryStore = field(default_factory=MemoryStore)
    jobs: list[Job] = field(default_factory=list)
    asked: list[tuple[float, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.attendance = Attendance(rng=Random(self.seed))

    # ---- what is asked of it

    def want(self, service: str, value: bytes = b"v1") -> None:
        self._take(self.attendance.want(service, value, self.now))

    def drop(self, service: str) -> None:
        self._take(self.attendance.drop(service, self.now))

    def announced(self, service: str = "web", value: bytes = b"v1") -> Attending:
        """*service* wanted, and all that is asked for done."""
        self.want(service, value)
        self.settle()
        assert self.attendance.is_announced(service)
        return self

    # ---- what the registry does

    def job(self, kind: type[Any], service: str | None = None) -> Job:
        """The only job that is a *kind* of step, for *service* where there are more."""
        (found,) = (
            job
            for job in self.jobs
            if isinstance(job.step, kind) and (service is None or getattr(job.step, "service", "") == service)
        )
        return found

    def do(self, job: Job) -> Job:
        """The registry does it now; the answer is under way."""
        job.answer = self._work(job)
        return job

    def answer(self, job: Job) -> None:
        """The answer arrives."""
        assert job.answer is not None
        self.jobs.remove(job)
        self.tell(job.answer)

    def fail(self, job: Job, error: RegistryError = DOWN) -> None:
        """An error arrives in place of the answer, whether it was done or not."""
        self.jobs.remove(job)
        of = 0 if job.lease is None or isinstance(job.step, Grant) else job.lease.id
        self.tell(Failed(job.step, error, of))

    def tell(self, event: Event) -> None:
        self._take(self.attendance.handle(event, self.now))
        self.tick()

    def tick(self) -> None:
        wake_at = self.attendance.wake_at
        if wake_at is not None and wake_at <= self.now:
            self._take(self.attendance.tick(self.now))

    def settle(self) -> None:
        """Do and answer whatever is asked for, until nothing is."""
        for _ in range(100):
            if not self.jobs:
                return
            job = self.jobs[0]
            if self.is_down:
                self.fail(job)
            else:
                if job.answer is None:
                    self.do(job)
                self.answer(job)
        raise AssertionError("it goes on asking without a pause")

    def run(self, seconds: float, between: Callable[[], None] = lambda: None) -> None:
        """Let time pass, with everything done and answered at once; *between* is called whenever it has woken up."""
        end = self.now + seconds
        self.settle()
        while True:
            wake_at = self.attendance.wake_at
            if wake_at is None or wake_at > end:
                break
            self.now = max(self.now, wake_at)
            self.store.expire(self.now)
            self.tick()
            self.settle()
            between()
        self.now = end
        self.store.expire(self.now)

    # ---- what can be seen

    def held(self, service: str = "web") -> bytes | None:
        """What the registry holds for *service*."""
        entries = self.store.list(key_of(service)).entries
        return entries[0].value if entries else None

    def times(self, kind: type[Any], service: str | None = None) -> list[float]:
        """When such a step was asked for."""
        return [
            at
            for at, step in self.asked
            if isinstance(step, kind) and service in (None, getattr(step, "service", None))
        ]

    def steps(self) -> list[type[Any]]:
        """The kinds of what is asked for and not answered yet."""
        return [type(job.step) for job in self.jobs]

    def _take(self, steps: list[Step]) -> None:
        for step in steps:
            self.jobs.append(Job(step, self.attendance.lease, self.now))
            self.asked.append((self.now, step))

    def _work(self, job: Job) -> Event:
        store, lease = self.store, job.lease
        store.expire(self.now)
        of = lease.id if lease is not None else 0
        try:
            match job.step:
                case Grant():
                    id, ttl = store.grant(TTL, self.now)
                    return Granted(StoredLease(id, float(ttl)), job.since)
                case Renew():
                    return Renewed(float(store.renew(of, self.now)), job.since, of)
                case Write(service, value, expected):
                    put = store.put(key_of(service), value, lease=of, expected=expected)
                    return Written(service, value, put, of)
                case Delete(service):
                    store.delete(key_of(service))
                    return Deleted(service)
        except LeaseExpired as error:
            return Failed(job.step, error, of)
