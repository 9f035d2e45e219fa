"""A simulated instance: a queue with a few workers, and all that can go wrong with it."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from statistics import median
from typing import Protocol

from discoclient.model.instance import Instance

from .loop import Loop

__all__ = ["Arrival", "Mode", "Server"]

RECENT = 32
"""Answers that a server remembers, to say how long one takes."""
NEAREST = 5
"""Of these, how many it goes by: those that came at a load most like the present one."""


class Mode(Enum):
    WELL = auto()
    HUNG = auto()
    """It accepts, and never answers."""
    FAILING = auto()
    """503, as fast as it can."""
    DEAD = auto()
    """Its port refuses."""


class Arrival(Protocol):
    """A request as a server sees it."""

    work: float
    """Seconds that it takes at speed 1."""
    is_over: bool
    """Nobody waits for the answer any more."""

    def answer(self, status: int) -> None: ...
    def refuse(self) -> None: ...
    def reset(self) -> None: ...


class _Job:
    __slots__ = ("arrival", "came", "left", "load", "since", "turn")

    def __init__(self, arrival: Arrival, came: float, load: int) -> None:
        self.arrival = arrival
        self.came = came
        self.load = load
        """Requests that were there when it came."""
        self.left = arrival.work
        self.since = 0.0
        self.turn = 0
        """Which of the ends that were foreseen for it is the true one."""


class Server:
    """First come, first served, by ``workers`` that each do ``speed`` seconds of work in a second.
     ``notices``: whether it drops a request whose caller has left, as a server that is cancelled does; otherwise it does the
    work for nobody, as most do.
    """

    def __init__(
        self,
        loop: Loop,
        instance: Instance,
        *,
        workers: int = 4,
        speed: float = 1.0,
        mode: Mode = Mode.WELL,
        notices: bool = False,
        failing_after: float = 0.001,
    ) -> None:
        """*failing_after*: seconds that a failing one takes to say so."""
        self.instance = instance
        self.workers = workers
        self.speed = speed
        self.mode = mode
        self.load = 0
        """Requests that are here: Prequal's *requests in flight*."""
        self.arrivals: list[float] = []
        """When each request came."""
        self.served = 0
        self._loop = loop
        self._notices = notices
        self._failing_after = failing_after
        self._waiting: deque[_Job] = deque()
        self._running: dict[_Job, None] = {}
        self._here: dict[Arrival, _Job] = {}
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._estimate: tuple[int, float] | None = None

    def accept(self, arrival: Arrival) -> None:
        """A request reaches it."""
        self.arrivals.append(self._loop.now)
        if self.mode is Mode.DEAD:
            arrival.refuse()
            return
        if arrival.is_over:
            return
        job = _Job(arrival, self._loop.now, self.load)
        self._here[arrival] = job
        self.load += 1
        if self.mode is Mode.FAILING:
            self._loop.after(self._failing_after, self._fail, job)
        elif self.mode is Mode.WELL and len(self._running) < self.workers:
            self._begin(job)
        elif self.mode is Mode.WELL:
            self._waiting.append(job)

    def abandon(self, arrival: Arrival) -> None:
        """Whoever sent it has left."""
        if not self._notices and self.mode is not Mode.HUNG:
            return
        job = self._here.pop(arrival, None)
        if job is None:
            return
        self.load -= 1
        job.turn += 1
        if job in self._running:
            del self._running[job]
            self._fill()

    def change(self, *, workers: int | None = None, speed: float | None = None) -> None:
        """An antagonist comes or goes. What runs goes on at the new speed; workers that are taken away finish what they
        have.
        """
        now = self._loop.now
        if workers is not None:
            self.workers = workers
        if speed is not None and speed != self.speed:
            for job in self._running:
                job.left -= (now - job.since) * self.speed
                self._foresee(job, speed)
            self.speed = speed
        self._fill()

    def hang(self) -> None:
        """From now on nothing is answered."""
        self.mode = Mode.HUNG
        for job in self._here.values():
            job.turn += 1
        self._running.clear()
        self._waiting.clear()

    def crash(self) -> None:
        """All connections break, and nobody listens any more."""
        self.mode = Mode.DEAD
        here = list(self._here.values())
        self._here.clear()
        self._running.clear()
        self._waiting.clear()
        self.load = 0
        for job in here:
            job.turn += 1
            job.arrival.reset()

    def estimate(self) -> float:
        """Seconds that a request takes at the present load, by the median of the answers that came at a load like it."""
        if self._estimate is None or self._estimate[0] != self.load:
            load = self.load
            nearest = sorted(self._recent, key=lambda pair: abs(pair[0] - load))[:NEAREST]
            self._estimate = load, median(seconds for _, seconds in nearest) if nearest else 0.0
        return self._estimate[1]

    def _begin(self, job: _Job) -> None:
        self._running[job] = None
        self._foresee(job, self.speed)

    def _foresee(self, job: _Job, speed: float) -> None:
        job.since = self._loop.now
        job.turn += 1
        self._loop.after(max(0.0, job.left) / speed, self._end, job, job.turn)

    def _end(self, job: _Job, turn: int) -> None:
        if turn != job.turn:
            return
        del self._running[job]
        del self._here[job.arrival]
        self.load -= 1
        self.served += 1
        self._recent.append((job.load, self._loop.now - job.came))
        self._estimate = None
        self._fill()
        job.arrival.answer(200)

    def _fail(self, job: _Job) -> None:
        if self._here.pop(job.arrival, None) is not None:
            self.load -= 1
            job.arrival.answer(503)

    def _fill(self) -> None:
        waiting = self._waiting
        while waiting and len(self._running) < self.workers:
            job = waiting.popleft()
            if job.arrival in self._here:  # not, if it was dropped while it waited
                self._begin(job)
