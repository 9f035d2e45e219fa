"""A shell for the watch machine in virtual time: `control.follower` without a loop, every step in the test's hands.

The registry is a `MemoryStore`, which is the truth. An ask becomes a job; the registry *works it out* at one moment and the
answer *arrives* at another, as in life, so that a test may let anything happen in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from discoclient.model.errors import RegistryError, RegistryUnavailable, RevisionCompacted
from discoclient.registry.codec import BadRecord
from discoclient.registry.happenings import (
    Ask,
    Broke,
    Do,
    Event,
    Failed,
    Listed,
    Notice,
    Probed,
    WatchSettings,
)
from discoclient.registry.machine import WatchMachine
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Batch, Entry

__all__ = ["RANGE", "Job", "Shell", "read", "truth"]

RANGE = "/p/services/web/"
DOWN = RegistryUnavailable("no member answers")

Record = tuple[bytes, int, int]


def read(entry: Entry) -> Record:
    """What the tests' machine keeps of an entry: enough to tell any two writes apart. ``bad...`` is skipped."""
    if not entry.lease:
        raise BadRecord("it has no lease")
    if entry.value.startswith(b"bad"):
        raise BadRecord("it is bad")
    return entry.value, entry.mod_revision, entry.lease


def truth(store: MemoryStore) -> dict[str, Record]:
    """What a reader who misses nothing knows of *store* now."""
    known = {}
    for entry in store.list(RANGE).entries:
        try:
            known[entry.key] = read(entry)
        except BadRecord:
            pass
    return known


@dataclass
class Job:
    """One thing that the machine asked for and that is under way."""

    what: Do
    after: int
    since: float
    is_past: bool = False
    answer: Event | None = None
    is_open: bool = False
    seen: int = 0


@dataclass
class Shell:
    """``asked`` has every ask with its time; ``published`` every set that readers were given."""

    store: MemoryStore
    settings: WatchSettings = field(default_factory=WatchSettings)
    rng: Random = field(default_factory=lambda: Random(1))
    now: float = 1000.0
    is_down: bool = False
    is_mute: bool = False
    """A watch that stands and delivers nothing."""
    jobs: dict[Do, Job] = field(default_factory=dict)
    asked: list[tuple[float, Ask]] = field(default_factory=list)
    published: list[Mapping[str, Record]] = field(default_factory=list)
    needless: int = 0
    """How many lists were published that brought nothing new."""
    notices: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = WatchMachine(read, settings=self.settings, rng=self.rng)

    # ---- the shell's part

    def start(self) -> None:
        self._do(self.machine.start(self.now))

    def tell(self, event: Event) -> None:
        before = 0 if self.machine.is_stale else len(self.published)
        asks = self.machine.handle(event, self.now)
        if self.machine.wake_at is not None and self.machine.wake_at <= self.now:
            asks = asks + self.machine.tick(self.now)
        self._do(asks)
        self._report()
        if isinstance(event, Listed) and 0 < before < len(self.published):
            self.needless += self.published[-1] == self.published[-2]

    def tick(self) -> None:
        self._do(self.machine.tick(self.now))
        self._report()

    def _do(self, asks: list[Ask]) -> None:
        for ask in asks:
            self.asked.append((self.now, ask))
            self.jobs[ask.what] = Job(ask.what, ask.after, self.now, ask.is_past, seen=ask.after)

    def _report(self) -> None:
        self.notices += self.machine.notices
        self.machine.notices = []
        if self.machine.take_change() is not None:
            self.published.append(dict(self.machine.records))

    # ---- the registry's part

    def work_out(self, what: Do) -> None:
        """The registry comes to a list or a probe, and answers as of now."""
        job = self.jobs[what]
        if what is Do.PROBE:
            job.answer = self._probe(job)
        else:
            job.answer = Listed(self.store.list(RANGE), what is Do.LIST_STALE)

    def _probe(self, job: Job) -> Event:
        try:
            return Probed(self.store.probe(RANGE, job.after, is_past=job.is_past), job.after, job.is_past)
        except RevisionCompacted as error:
            return Failed(Do.PROBE, error)

    def arrive(self, what: Do) -> None:
        """The answer to a list or a probe comes in."""
        answer = self.jobs.pop(what).answer
        assert answer is not None
        self.tell(answer)

    def fail(self, what: Do, error: RegistryError = DOWN) -> None:
        del self.jobs[what]
        self.tell(Broke(error) if what is Do.WATCH else Failed(what, error))

    def open(self, revision: int | None = None) -> None:
        """The watch stands. *revision*: what its member says, if that is not the registry's own."""
        job = self.jobs[Do.WATCH]
        job.is_open = True
        self.tell(Batch(self.store.revision if revision is None else revision))

    def pending(self) -> list[Batch]:
        """What the watch has still to deliver, a revision at a time. Raises `RevisionCompacted`."""
        return list(self.store.batches(RANGE, self.jobs[Do.WATCH].seen))

    def deliver(self, revisions: int | None = None) -> None:
        """The watch brings the next *revisions* (default: all) in one batch, or breaks because they are compacted."""
        job = self.jobs[Do.WATCH]
        try:
            batches = self.pending()
        except RevisionCompacted as error:
            self.fail(Do.WATCH, error)
            return
        taken = batches if revisions is None else batches[:revisions]
        if len(taken) == len(batches):
            job.seen = max(job.seen, self.store.revision)
        else:
            job.seen = taken[-1].revision if taken else job.seen
        if taken:
            changes = tuple(change for batch in taken for change in batch.changes)
            self.tell(Batch(self.store.revision, changes))

    # ---- both, by themselves

    def settle(self) -> None:
        """Everything that is under way comes to its end, at once."""
        for _ in range(1000):
            if self.is_down and self.jobs:
                self.fail(next(iter(self.jobs)))
            elif (what := next((what for what in self.jobs if what is not Do.WATCH), None)) is not None:
                if self.jobs[what].answer is None:
                    self.work_out(what)
                self.arrive(what)
            elif Do.WATCH in self.jobs and not self.jobs[Do.WATCH].is_open:
                self.open()
            elif Do.WATCH in self.jobs and not self.is_mute and self._is_behind():
                self.deliver()
            else:
                return
        raise AssertionError("the machine does not come to rest")

    def _is_behind(self) -> bool:
        try:
            return bool(self.pending())
        except RevisionCompacted:
            return True

    def run(self, seconds: float) -> None:
        """Let *seconds* pass, with everything done as soon as it is asked for."""
        until = self.now + seconds
        for _ in range(100_000):
            self.settle()
            due = self.machine.wake_at
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            self.tick()
        raise AssertionError("the machine spins")

    def live(self) -> Shell:
        """Started, listed, and the watch stands."""
        self.start()
        self.settle()
        return self

    # ---- looking

    def asks(self, what: Do) -> list[float]:
        """When *what* was asked for."""
        return [at for at, ask in self.asked if ask.what is what]

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]

    def forget(self) -> None:
        """Only what follows counts."""
        self.asked.clear()
        self.published.clear()
        self.notices.clear()
