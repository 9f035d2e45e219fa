"""The resolver of one service: snapshots in, views out. One per process and service, shared by all its clients."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection, Hashable, Mapping
from random import Random
from typing import Any, TypeVar

from ..balancing.balancer import Balancer
from ..balancing.endpoint import Endpoint
from ..balancing.reconcile import reconcile
from ..balancing.view import View, build_view
from ..model.errors import DiscoveryTimeout
from ..model.instance import Instance
from ..model.snapshot import Snapshot
from ..registry.codec import BadRecord, decode
from ..registry.happenings import Phase, WatchSettings
from ..registry.keys import Keys
from ..registry.protocol import Entry, Registry
from .follower import Follower

__all__ = ["Resolver", "Slot"]

T = TypeVar("T")

logger = logging.getLogger("discoclient.control")


class Slot:
    """Where a balancer's newest `View` stands. Read without a lock; ``None`` until something is known."""

    __slots__ = ("__weakref__", "balancer", "view")

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.view: View | None = None


class Resolver:
    """Follows a service, keeps its endpoints over the changes, and publishes a view for each balancer in use.

    Everything is called from the threads of the application, but for `run` and what it calls.
    """

    def __init__(
        self,
        service: str,
        *,
        registry: Registry,
        keys: Keys,
        hostnames: bool,
        settings: WatchSettings,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self.service = service
        self.users = 0
        """How many clients hold it; for the hub."""
        self._clock = clock
        self._rng = rng
        self._prefix = keys.service(service)
        self._hostnames = hostnames
        self._lock = threading.Lock()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._listeners: set[Callable[[], None]] = set()
        self._shared: dict[Hashable, Any] = {}
        self._follower = Follower(
            registry, self._prefix, self._decode, self._publish, settings=settings, clock=clock, rng=rng
        )
        self.snapshot: Snapshot | None = None
        self.endpoints: Mapping[str, Endpoint] = {}

    # ---- reading

    @property
    def phase(self) -> Phase:
        return self._follower.phase

    @property
    def revision(self) -> int:
        """Everything up to this revision of the registry is known."""
        return self._follower.revision

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys that hold no valid record, with the reason."""
        return dict(self._follower.skipped)

    def age(self) -> float | None:
        """Seconds since the registry last proved that the snapshot was all there is; ``None`` if it never did."""
        fresh_at = self._follower.fresh_at
        return None if fresh_at is None else max(0.0, self._clock() - fresh_at)

    def slot(self, balancer: Balancer) -> Slot:
        """A slot that is kept up to date for as long as somebody holds it."""
        slot = Slot(balancer)
        with self._lock:
            if self.snapshot is not None:
                slot.view = build_view(self.snapshot, self.endpoints, balancer, self._rng)
            self._slots.add(slot)
        return slot

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What clients share per service and *key* beside the endpoints (their connections). Has a method ``close()``."""
        with self._lock:
            if key not in self._shared:
                self._shared[key] = make()
            found: T = self._shared[key]
            return found

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* on the background thread after every change, until the function returned is called."""
        with self._lock:
            self._listeners.add(callback)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.discard(callback)

        return unsubscribe

    def wait(self, is_enough: Callable[[], bool], timeout: float | None) -> bool:
        """Block until *is_enough*, or *timeout* seconds; whether it came to that."""
        if is_enough():
            return True
        changed = threading.Event()
        unsubscribe = self.subscribe(changed.set)
        try:
            deadline = None if timeout is None else self._clock() + timeout
            while not is_enough():
                left = None if deadline is None else deadline - self._clock()
                if (left is not None and left <= 0) or not changed.wait(left):
                    return is_enough()
                changed.clear()
            return True
        finally:
            unsubscribe()

    def wake(self) -> None:
        """Have everybody who waits look again."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception:  # a listener is a caller's
                logger.exception("a listener failed")

    def timed_out(self, timeout: float) -> DiscoveryTimeout:
        """The error for a caller who waited *timeout* seconds in vain for the first knowledge."""
        reason = self._follower.last_error
        detail = f": {reason}" if reason else ""
        error = DiscoveryTimeout(
            f"nothing is known of service {self.service!r} after {timeout:g} s; the registry did not answer{detail}. "
            "Is its address right ('disco doctor' tells), and does it run?"
        )
        error.__cause__ = reason
        return error

    # ---- on the background loop

    async def run(self) -> None:
        """Until cancelled."""
        await self._follower.run()

    def close(self) -> None:
        """Retire everything, and close what was shared."""
        with self._lock:
            endpoints = self.endpoints
        for endpoint in endpoints.values():
            endpoint.retire()
        self.close_shared()

    def close_shared(self) -> None:
        """Close what was shared: for callers that still call, it is opened anew."""
        with self._lock:
            shared = list(self._shared.values())
            self._shared.clear()
        for thing in shared:
            thing.close()

    def _decode(self, entry: Entry) -> Instance:
        if not entry.lease:
            raise BadRecord("it has no lease")
        id = entry.key[len(self._prefix) :]
        return decode(entry.value, service=self.service, id=id, hostnames=self._hostnames)

    def _publish(self, follower: Follower[Instance], touched: Collection[str]) -> None:
        changed = [key[len(self._prefix) :] for key in touched]
        by_id = dict(self.snapshot.by_id) if self.snapshot is not None else {}
        for id in changed:
            instance = follower.records.get(self._prefix + id)
            if instance is not None:
                by_id[id] = instance
            else:
                by_id.pop(id, None)
        snapshot = Snapshot(self.service, follower.revision, by_id, follower.is_stale)
        with self._lock:
            self.endpoints, left = reconcile(self.endpoints, snapshot, self._clock(), changed)
            self.snapshot = snapshot
            for slot in self._slots:
                try:
                    slot.view = build_view(snapshot, self.endpoints, slot.balancer, self._rng)
                except Exception:  # a caller's balancer goes on with its old view, and the others with theirs
                    logger.exception("%s: the balancer %r failed", self.service, slot.balancer)
        for endpoint in left:  # a pick from the old view that is not sent yet sees this, and picks again
            endpoint.retire()
        self.wake()
