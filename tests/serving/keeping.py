"""A shell for the keeper of a registration in virtual time: `serving.registrar` without a loop, over a `MemoryStore`.

An ask becomes a job; the registry does it when the test says so, and its answer may be lost, delayed, or an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from discoclient.model.errors import LeaseExpired, RegistryError, RegistryUnavailable
from discoclient.registry.memory_store import MemoryStore
from discoclient.serving.happenings import (
    Ask,
    Event,
    Failed,
    Granted,
    PutAnswer,
    Renewed,
    Revoked,
    Seen,
    Step,
)
from discoclient.serving.keeper import Keeper

__all__ = ["KEY", "TTL", "Keeping", "StoredLease"]

KEY = "/disco/v1/services/web/aaaaaaaaaaaaaaaa"
TTL = 15.0
DOWN = RegistryUnavailable("no member answers")


@dataclass(frozen=True)
class StoredLease:
    id: int
    ttl: float

    async def renew(self) -> float:
        raise AssertionError("the shell renews")

    async def revoke(self) -> None:
        raise AssertionError("the shell revokes")


@dataclass
class Job:
    ask: Ask
    lease: StoredLease | None
    since: float
    answer: Event | None = None


@dataclass
class Keeping:
    """One keeper, its registry, and the time."""

    store: MemoryStore = field(default_factory=MemoryStore)
    value: bytes = b"v1"
    seed: int = 1
    now: float = 1000.0
    is_down: bool = False
    """Nothing reaches the registry, and no answer comes back but an error."""
    jobs: dict[Step, Job] = field(default_factory=dict)
    asked: list[tuple[float, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.value, rng=Random(self.seed))

    def start(self) -> Keeping:
        self._take(self.keeper.start(self.now))
        return self

    def registered(self) -> Keeping:
        """Started, and everything that is asked for done."""
        self.start().settle()
        assert self.keeper.is_registered
        return self

    def want(self, value: bytes) -> None:
        self._take(self.keeper.want(value, self.now))

    def leave(self) -> None:
        self._take(self.keeper.leave(self.now))

    def do(self, step: Step) -> None:
        """The registry does it now; the answer is under way."""
        job = self.jobs[step]
        job.answer = self._work(job)

    def answer(self, step: Step) -> None:
        """The answer arrives."""
        job = self.jobs.pop(step)
        assert job.answer is not None
        self.tell(job.answer)

    def fail(self, step: Step, error: RegistryError = DOWN) -> None:
        """An error arrives in place of the answer, whether it was done or not."""
        job = self.jobs.pop(step)
        of = job.lease.id if job.lease is not None and step is not Step.GRANT else 0
        self.tell(Failed(step, error, of))

    def see(self) -> None:
        """The watch of the own key delivers what stands there now."""
        entries = self.store.list(KEY).entries
        self.tell(Seen(entries[0] if entries else None, self.store.revision))

    def tell(self, event: Event) -> None:
        self._take(self.keeper.handle(event, self.now))
        self._tick()

    def settle(self) -> None:
        """Do and answer whatever is asked for, until nothing is."""
        for _ in range(100):
            if not self.jobs:
                return
            step = next(iter(self.jobs))
            if self.is_down:
                self.fail(step)
            else:
                self.do(step)
                self.answer(step)
        raise AssertionError("the keeper goes on asking without a pause")

    def run(self, seconds: float, *, watching: bool = False) -> None:
        """Let time pass, with everything done and answered at once."""
        end = self.now + seconds
        self.settle()
        while True:
            wake_at = self.keeper.wake_at
            if wake_at is None or wake_at > end:
                break
            self.now = max(self.now, wake_at)
            self.store.expire(self.now)
            self._tick()
            self.settle()
            if watching and not self.is_down:
                self.see()
                self.settle()
        self.now = end
        self.store.expire(self.now)

    def asks(self, step: Step) -> list[float]:
        """When *step* was asked for."""
        return [at for at, what in self.asked if what is step]

    def _tick(self) -> None:
        if self.keeper.wake_at is not None and self.keeper.wake_at <= self.now:
            self._take(self.keeper.tick(self.now))

    def _take(self, asks: list[Ask]) -> None:
        for ask in asks:
            if ask.step is Step.REVOKE:
                self.jobs.clear()
            elif ask.step is Step.GRANT:
                self.jobs.pop(Step.PUT, None)
            lease = self.keeper.lease
            assert lease is None or isinstance(lease, StoredLease)
            self.jobs[ask.step] = Job(ask, lease, self.now)
            self.asked.append((self.now, ask.step))

    def _work(self, job: Job) -> Event:
        store, lease = self.store, job.lease
        store.expire(self.now)
        try:
            match job.ask.step:
                case Step.GRANT:
                    id, ttl = store.grant(TTL, self.now)
                    return Granted(StoredLease(id, float(ttl)), job.since)
                case Step.RENEW:
                    assert lease is not None
                    return Renewed(float(store.renew(lease.id, self.now)), job.since, lease.id)
                case Step.PUT:
                    assert lease is not None
                    put = store.put(KEY, job.ask.value, lease=lease.id, expected=job.ask.expected)
                    return PutAnswer(put, job.ask.value, lease.id)
                case Step.REVOKE:
                    assert lease is not None
                    store.revoke(lease.id)
                    return Revoked(lease.id)
        except LeaseExpired as error:
            assert lease is not None
            return Failed(job.ask.step, error, lease.id)
