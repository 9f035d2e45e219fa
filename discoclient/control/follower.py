"""The follower does what the watch machine asks, on the background loop, and tells it what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from itertools import chain
from random import Random
from time import thread_time
from typing import Generic, TypeVar

from ..model.errors import RegistryError
from ..registry.happenings import Ask, Broke, Do, Event, Failed, Listed, Notice, Phase, Probed, WatchSettings
from ..registry.machine import WatchMachine
from ..registry.protocol import Doubtable, Entry, Listing, Registry

__all__ = ["Follower"]

T = TypeVar("T")

logger = logging.getLogger("discoclient.registry")

BURST = 100
"""Events that are told as one change at most, if they are there already when the first one is taken in."""
REST = 4.0
"""Passing on a change is followed by a rest of so many times as long as that took, if the next one comes that soon. A change
of a small service is passed on at once; a hundred a second, of 10,000 instances, leave the application four fifths of a core.
"""
DEAR = 0.002
"""Seconds of CPU that it may take without a rest: a service of a hundred instances needs a fifth of that."""
LONGEST_REST = 0.5
"""Seconds at most: it may have taken so long because the process was stopped."""

_LEVELS = {"broke": logging.INFO, "compacted": logging.INFO}
_DOUBTS = {"repaired", "rewound", "stalled"}


class Follower(Generic[T]):
    """Keeps knowing what is in *range*, for as long as `run` runs.

    *on_change* is called on the background loop after every change of ``records``, the first knowledge included,
    with the keys that may have changed since the last call; *on_phase* when the knowledge is worth more or less than before.
    *recall* gives what was known in an earlier life, for a start at which no member answers. *on_refused* is called when it
    turns out that for now there is nothing to wait for: see `refusal`. *prepare* is awaited before each linearizable list.
    """

    def __init__(
        self,
        registry: Registry,
        range: str,
        decode: Callable[[Entry], T],
        on_change: Callable[[Follower[T], Collection[str]], None],
        *,
        settings: WatchSettings,
        clock: Callable[[], float],
        rng: Random,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        on_refused: Callable[[RegistryError], None] = lambda error: None,
        recall: Callable[[], Listing | None] = lambda: None,
        prepare: Callable[[], Awaitable[object]] | None = None,
        cost_clock: Callable[[], float] = thread_time,
    ) -> None:
        """*cost_clock* counts the CPU's seconds that a change costs: that the machine is busy is no reason to rest."""
        self._registry = registry
        self._range = range
        self._on_change = on_change
        self._on_phase = on_phase
        self._on_refused = on_refused
        self._recall = recall
        self._prepare = prepare
        self._phase = Phase.EMPTY
        self._is_refused = False
        self._clock = clock
        self._cost_clock = cost_clock
        self._machine = WatchMachine(decode, settings=settings, rng=rng)
        self._tasks: dict[Do, asyncio.Task[None]] = {}
        self._events: asyncio.Queue[tuple[asyncio.Task[None] | None, Event | None]] = asyncio.Queue()
        self._owed: frozenset[str] | None = None  # changes that could not be passed on yet
        self._rests_until = 0.0
        self._is_resting = False  # with something to pass on, perhaps
        self.applied = 0
        """Everything up to this revision was passed on; ``revision`` is ahead of it during a rest."""
        self.departed: dict[str, T] = {}
        """The last records of what went away with the changes that are being passed on."""
        self.last_error: RegistryError | None = None
        """Why the registry could not be asked, the last time that it couldn't."""

    @property
    def records(self) -> Mapping[str, T]:
        return self._machine.records

    @property
    def revision(self) -> int:
        return self._machine.revision

    @property
    def is_stale(self) -> bool:
        return self._machine.is_stale

    @property
    def phase(self) -> Phase:
        return self._machine.phase

    @property
    def skipped(self) -> Mapping[str, str]:
        return self._machine.skipped

    @property
    def fresh_at(self) -> float | None:
        return self._machine.fresh_at

    @property
    def refusal(self) -> RegistryError | None:
        """Why nothing is known and, as things are, nothing will be: the registry refuses us, or TLS can't work.

        ``None`` once something is known, or while it is another kind of trouble. It is tried on in the background.
        """
        return self._machine.refusal

    async def run(self) -> None:
        """Until cancelled."""
        machine = self._machine
        try:
            self._start(machine.start(self._clock()))
            while True:
                for event in chain([await self._next_event()], self._meanwhile()):
                    asks = machine.handle(event, self._clock()) if event is not None else []
                    if machine.wake_at is not None and machine.wake_at <= self._clock():
                        asks = asks + machine.tick(self._clock())
                    self._start(asks)
                self._report()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def hasten(self, stale_after: float) -> None:
        """While nothing is known, take one member's word in so many seconds, if not before."""
        self._machine.hasten(self._clock() + stale_after)
        self._events.put_nowait((None, None))

    async def _next_event(self) -> Event | None:
        """What happened, or ``None`` when it is time for the machine's next step."""
        while True:
            wake_at = self._machine.wake_at
            if self._is_resting:
                wake_at = self._rests_until if wake_at is None else min(wake_at, self._rests_until)
            try:
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - self._clock())):
                    task, event = await self._events.get()
            except TimeoutError:
                return None
            # Else the task was replaced meanwhile, and its word no longer counts; or only the time to wake has changed.
            if event is not None and task in self._tasks.values():
                return event

    def _meanwhile(self) -> Iterator[Event]:
        """What has happened by now, some at a time: ten thousand changes in a burst are to be told as a few."""
        for _ in range(BURST):
            if self._events.empty():
                return
            task, event = self._events.get_nowait()
            if event is not None and task in self._tasks.values():
                yield event

    def _start(self, asks: list[Ask]) -> None:
        for ask in asks:
            replaced = self._tasks.get(ask.what)
            if replaced is not None:
                replaced.cancel()
            self._tasks[ask.what] = asyncio.create_task(self._do(ask))

    def _tell(self, event: Event) -> None:
        self._events.put_nowait((asyncio.current_task(), event))

    async def _do(self, ask: Ask) -> None:
        registry, what = self._registry, ask.what
        try:
            match what:
                case Do.WATCH:
                    async for batch in registry.watch(self._range, after=ask.after):
                        self._tell(batch)
                case Do.PROBE:
                    probe = await registry.probe(self._range, after=ask.after, is_past=ask.is_past)
                    self._tell(Probed(probe, ask.after, ask.is_past))
                case Do.LIST_STALE:
                    self._tell(Listed(await self._list_stale(), is_stale=True))
                case _:
                    if self._prepare is not None:
                        await self._prepare()
                    self._tell(Listed(await registry.list(self._range)))
        except RegistryError as error:
            self.last_error = error
            self._tell(Broke(error) if what is Do.WATCH else Failed(what, error))
        except (
            Exception
        ) as error:  # a bug, ours or a dependency's: log it loudly, and go on as if the registry had failed
            logger.exception("%s of %s failed", what, self._range)
            failure = RegistryError(f"{type(error).__name__} in the registry client")
            self.last_error = failure
            self._tell(Broke(failure) if what is Do.WATCH else Failed(what, failure))

    async def _list_stale(self) -> Listing:
        """One member's word; and if no member has one, our own of an earlier life."""
        try:
            listing = await self._registry.list(self._range, serializable=True)
        except RegistryError:
            recalled = await asyncio.to_thread(self._recall)
            if recalled is None:
                raise
            return recalled
        if listing.entries:
            return listing
        return await asyncio.to_thread(self._recall) or listing

    def _report(self) -> None:
        machine = self._machine
        notices, machine.notices = machine.notices, []
        for notice in notices:
            self._log(notice)
            if notice.kind in _DOUBTS and isinstance(self._registry, Doubtable):
                self._registry.doubt(self._range)
        if machine.phase is not self._phase:
            self._phase = machine.phase
            self._on_phase(machine.phase)
        was_refused, self._is_refused = self._is_refused, machine.refusal is not None
        if machine.refusal is not None and not was_refused:
            self._on_refused(machine.refusal)
        self._is_resting = self._clock() < self._rests_until
        if self._is_resting:
            return
        cost = self._cost_clock()
        changed = machine.take_change()
        self.departed |= machine.take_departed()
        if changed is None and self._owed is None:
            self.applied = machine.revision
            return
        self._owed = (self._owed or frozenset()) | (changed or frozenset())
        try:
            self._on_change(self, self._owed)
        except Exception:  # a bug, ours or a balancer's: what is known must not freeze for it
            logger.exception(
                "what changed in %s could not be passed on; it will be, with the next news", self._range
            )
        else:
            self._owed = None
            self.departed = {}
            self.applied = machine.revision
        took = self._cost_clock() - cost
        if took >= DEAR:
            self._rests_until = self._clock() + min(LONGEST_REST, REST * took)

    def _log(self, notice: Notice) -> None:
        logger.log(_LEVELS.get(notice.kind, logging.WARNING), "%s: %s", self._range, notice.text)
