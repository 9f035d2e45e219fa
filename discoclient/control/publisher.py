"""The publisher of one service: the slow path from a new snapshot to the views that requests read."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from random import Random

from cachetools import LRUCache

from ..balancing.endpoint import Endpoint, Rank
from ..balancing.guard import VanishGuard
from ..balancing.preferences import Preferences
from ..balancing.reconcile import reconcile
from ..balancing.view import View, build_view
from ..model.events import Event, InstancesHeld, PhaseChanged, SnapshotChanged
from ..model.instance import Instance
from ..model.snapshot import Snapshot
from .emitter import Emitter, nobody
from .slot import Slot

__all__ = ["Publisher"]

logger = logging.getLogger("discoclient.control")

REMEMBERED = 256
"""Endpoints that left, and are remembered in case that they come back: an ejected one stays ejected."""
SHORTEST = 0.01
"""Seconds between two rebuilds at least, where nothing but time has passed."""
REST, LONGEST_REST = 20.0, 1.0
"""And so many times as long as the last one took, but no more seconds than that: where hundreds come and go there is always a
newcomer that is due for more.
"""


class Publisher:
    """Keeps the endpoints over the changes, and a view for each slot. `slot` may be called from any thread, all else on the
    background loop; *post* calls a function there.
    """

    def __init__(
        self,
        service: str,
        *,
        clock: Callable[[], float],
        rng: Random,
        post: Callable[[Callable[[], None]], None],
        on_idle: Callable[[], None] | None = None,
        age: Callable[[], float | None] = lambda: None,
    ) -> None:
        """*on_idle* is called when a retired endpoint has nothing in flight any more, in whatever thread that happens. *age*
        is that of what is known, as `PhaseChanged` has it.
        """
        self.service = service
        self.snapshot: Snapshot | None = None
        self.endpoints: Mapping[str, Endpoint] = {}
        self._clock = clock
        self._rng = rng
        self._post = post
        self._lock = threading.Lock()
        self._log = Emitter()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._newcomers: weakref.WeakSet[Slot] = weakref.WeakSet()  # not told yet where things stand
        self._phase: PhaseChanged | None = None  # the last that was told
        self._age = age
        self._guard = VanishGuard()
        self._held: dict[str, tuple[Endpoint, float]] = {}  # with when they vanished
        self._memory: LRUCache[str, Endpoint] = LRUCache(REMEMBERED)
        self._timer: asyncio.TimerHandle | None = None
        self._took = 0.0  # the last rebuild
        self._on_idle = on_idle
        self._finishing: list[Endpoint] = []

    def slot(self, preferences: Preferences, emit: Callable[[Event], None] = nobody) -> Slot:
        """A slot that is kept up to date for as long as somebody holds it. *emit* is told first where things stand: what is
        known to others already is news to it.
        """
        slot = Slot(preferences, emit)
        with self._lock:
            if self.snapshot is not None:
                slot.view = self._build(preferences, self.snapshot)
            self._slots.add(slot)
            is_late = emit is not nobody and (self.snapshot is not None or self._phase is not None)
            if is_late:
                self._newcomers.add(slot)
        if is_late:
            self._post(self._greet)
        if slot.view is not None and (slot.view.rebuild_at is not None or self._held):
            self._post(self._schedule)
        return slot

    def publish(self, snapshot: Snapshot, changed: Collection[str], drained: Collection[str]) -> None:
        """*changed*: the ids that may have. *drained*: those that were last seen draining, and are gone."""
        now = self._clock()
        before = self.snapshot.by_id if self.snapshot is not None else {}
        with self._lock:
            known = ChainMap({id: endpoint for id, (endpoint, _) in self._held.items()}, self._memory)
            self.endpoints, left = reconcile(self.endpoints, snapshot, now, changed, memory=known)
            self.snapshot = snapshot
            retiring, held = self._part(left, drained, now)
            self._rebuild(self._slots)
        self._retire(retiring)
        self.tell(_difference(before, snapshot, changed))
        if held:
            self.tell(InstancesHeld(self.service, held, self._grace()))
        self._schedule()

    def tell(self, event: Event) -> None:
        """To the log, once, and to the hooks of every client."""
        self._log(event)
        is_standing = isinstance(event, PhaseChanged | SnapshotChanged)
        with self._lock:
            if isinstance(event, PhaseChanged):
                self._phase = event
            # A newcomer is told of the present in a moment, and this is part of it.
            slots = [slot for slot in self._slots if not (is_standing and slot in self._newcomers)]
        for slot in slots:
            slot.emit(event)

    def busy(self) -> dict[str, int]:
        """The requests in flight of those that are retired, by id. Nothing is added to them any more."""
        self._finishing = [endpoint for endpoint in self._finishing if endpoint.in_flight]
        found: Counter[str] = Counter()
        for endpoint in self._finishing:
            found[endpoint.id] += endpoint.in_flight
        return dict(found)

    def close(self) -> None:
        """Retire everything."""
        with self._lock:
            endpoints = [*self.endpoints.values(), *(endpoint for endpoint, _ in self._held.values())]
            self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in endpoints:
            endpoint.retire()

    def _greet(self) -> None:
        """Tell newcomers where things stand, as those who were there from the start were told."""
        with self._lock:
            newcomers, snapshot, phase = list(self._newcomers), self.snapshot, self._phase
            self._newcomers.clear()
        events: list[Event] = [] if phase is None else [replace(phase, age=self._age())]
        if snapshot is not None and newcomers:
            events.append(_difference({}, snapshot, snapshot.by_id))
        for slot in newcomers:
            for event in events:
                slot.emit(event)

    def _retire(self, leavers: Iterable[Endpoint]) -> None:
        """A pick from an old view that is not sent yet sees this, and picks again; so what is in flight only falls from now."""
        for endpoint in leavers:
            endpoint.on_idle = self._on_idle
            endpoint.retire()
            if endpoint.in_flight:
                self._finishing.append(endpoint)

    def _part(
        self, left: Iterable[Endpoint], drained: Collection[str], now: float
    ) -> tuple[list[Endpoint], tuple[str, ...]]:
        """Of those that left, who is to be retired, and who is held in case that it was the registry that forgot them."""
        present = self.endpoints
        # Who is back is held no more; and is another endpoint, if it drains now, or listens elsewhere.
        back = {id: held for id, (held, _) in self._held.items() if id in present}
        replaced = [held for id, held in back.items() if held is not present[id]]
        self._held = {id: held for id, held in self._held.items() if id not in back}
        if self._guard.is_wary:
            self._guard.forget(present)
        gone = [endpoint for endpoint in left if endpoint.id not in present]
        for endpoint in gone:
            self._memory[endpoint.id] = endpoint
        vanished = [
            endpoint for endpoint in gone if endpoint.rank is not Rank.NEVER and endpoint.id not in drained
        ]
        held: list[Endpoint] = []
        if vanished and self._grace():
            remaining = sum(endpoint.rank is not Rank.NEVER for endpoint in present.values())
            held = self._guard.hold(vanished, remaining, now)
        ids = tuple(endpoint.id for endpoint in held if endpoint.id not in self._held)
        for endpoint in held:
            if endpoint.id in ids:
                # One that left a moment before the others is retired by now, and its connections are closed.
                is_over = endpoint.is_retired
                twin = Endpoint(endpoint.instance, now=now, memory=endpoint) if is_over else endpoint
                twin.hold()
                self._held[endpoint.id] = twin, now
        return [*replaced, *(endpoint for endpoint in left if endpoint.id not in ids)], ids

    def _grace(self) -> float:
        return max((slot.preferences.grace for slot in self._slots), default=0.0)

    def _build(self, preferences: Preferences, snapshot: Snapshot) -> View:
        now, endpoints = self._clock(), self.endpoints
        if self._held:
            kept = {id: held for id, (held, since) in self._held.items() if now < since + preferences.grace}
            endpoints = {**kept, **endpoints}
        return build_view(snapshot, endpoints, preferences, self._rng, now)

    def _rebuild(self, slots: Iterable[Slot]) -> None:
        """Under the lock."""
        assert self.snapshot is not None
        began = self._clock()
        for slot in slots:
            try:
                slot.view = self._build(slot.preferences, self.snapshot)
                slot.failure = None
            except Exception as error:
                # A caller's balancer goes on with its old view, and the others with theirs.
                slot.failure = error
                logger.exception("%s: the balancer %r failed", self.service, slot.preferences.balancer)
        self._took = self._clock() - began

    def _schedule(self) -> None:
        """See to the next moment at which a view changes by itself: newcomers get more, and who was held is gone."""
        due: list[float] = []
        now = self._clock()
        with self._lock:
            for slot in self._slots:
                if slot.view is not None and slot.view.rebuild_at is not None:
                    due.append(slot.view.rebuild_at)
                ends = (since + slot.preferences.grace for _, since in self._held.values())
                due += [end for end in ends if end > now]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            wait = max(SHORTEST, min(LONGEST_REST, REST * self._took), min(due) - now)
            self._timer = asyncio.get_running_loop().call_later(wait, self._refresh)

    def _refresh(self) -> None:
        now = self._clock()
        with self._lock:
            grace = self._grace()
            over = [id for id, (_, since) in self._held.items() if now >= since + grace]
            is_held = bool(self._held)
            leavers = [self._held.pop(id)[0] for id in over]
            self._rebuild([slot for slot in self._slots if is_held or _is_due(slot, now)])
        self._retire(leavers)
        self._schedule()


def _is_due(slot: Slot, now: float) -> bool:
    return slot.view is not None and slot.view.rebuild_at is not None and slot.view.rebuild_at <= now


def _difference(
    before: Mapping[str, Instance], snapshot: Snapshot, changed: Collection[str]
) -> SnapshotChanged:
    after = snapshot.by_id
    return SnapshotChanged(
        service=snapshot.service,
        revision=snapshot.revision,
        total=len(after),
        added=tuple(sorted(id for id in changed if id in after and id not in before)),
        removed=tuple(sorted(id for id in changed if id not in after and id in before)),
        changed=tuple(sorted(id for id in changed if id in after and before.get(id, after[id]) != after[id])),
        is_suspect=snapshot.suspect,
    )
