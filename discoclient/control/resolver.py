"""The resolver of one service: snapshots in, views out. One per process and service, shared by all its clients."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from random import Random
from typing import TypeVar

from ..balancing.endpoint import Endpoint
from ..balancing.preferences import Preferences
from ..model.errors import DiscoveryTimeout, RegistryDenied, RegistryError
from ..model.events import Event, PhaseChanged
from ..model.instance import Instance, State
from ..model.snapshot import Snapshot
from ..registry.address import RegistryAddress
from ..registry.codec import BadRecord, decode
from ..registry.happenings import Phase, WatchSettings
from ..registry.keys import Keys
from ..registry.last_known import LastKnownFile, last_known_path
from ..registry.presence import OBSERVED, Outcomes
from ..registry.protocol import Entry, Listing, Registry, Untrusted
from .emitter import nobody
from .follower import Follower
from .presence import PresenceKeeper
from .publisher import Publisher
from .saver import Saver
from .shared import SharedThings
from .slot import Slot

__all__ = ["Resolver"]

OBSERVE_PERIOD = 2.0
"""Seconds between two words on what became of the requests to an instance on trial."""

T = TypeVar("T")

logger = logging.getLogger("discoclient.control")


class Resolver:
    """Follows a service, keeps its endpoints over the changes, and publishes a view for each client's preferences.

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
        post: Callable[[Callable[[], None]], None] = lambda function: None,
        check: Callable[[], None] = lambda: None,
        presence: PresenceKeeper | None = None,
    ) -> None:
        """*post* calls a function on the background loop. *check* raises where nobody may wait. *presence*: for a resolver that
        requests are sent by, which has to be known to those who drain.
        """
        self.service = service
        self.presence = presence
        self.users = 0
        """How many clients hold it; for the hub."""
        self._clock = clock
        self._post = post
        self._check = check
        self._publisher = Publisher(
            service,
            clock=clock,
            rng=rng,
            post=post,
            on_idle=self._on_idle if presence is not None else None,
            age=self.age,
        )
        self._applied = 0  # what is published: the follower's revision may be ahead of it for a moment
        self._owes_word = True  # once, so that it is seen what we know
        self._has_joined = False
        self._observed: set[str] = set()
        self._told: dict[str, Outcomes] = {}
        self._observing: asyncio.TimerHandle | None = None
        self._keys = keys
        self._prefix = keys.service(service)
        self._hostnames = hostnames
        self._lock = threading.Lock()
        self._listeners: set[Callable[[], None]] = set()
        self._shared = SharedThings()
        self._savers: dict[Path, Saver] = {}
        self._follower = Follower(
            registry,
            self._prefix,
            self._decode,
            self._publish,
            settings=settings,
            clock=clock,
            rng=rng,
            on_phase=self._on_phase,
            on_refused=lambda error: self.wake(),
            recall=self._recall,
            prepare=self._join if presence is not None else None,
        )

    # ---- reading

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest; ``None`` while nothing is known."""
        return self._publisher.snapshot

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Those of the newest snapshot, by id."""
        return self._publisher.endpoints

    @property
    def phase(self) -> Phase:
        return self._follower.phase

    @property
    def revision(self) -> int:
        """Everything up to this revision of the registry is known."""
        return self._follower.revision

    @property
    def applied(self) -> int:
        """Everything up to this revision is in the views; ``revision`` may be ahead of it for a moment."""
        return self._follower.applied

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys that hold no valid record, with the reason."""
        return dict(self._follower.skipped)

    def age(self) -> float | None:
        """Seconds since the registry last proved that the snapshot was all there is; ``None`` if it never did."""
        fresh_at = self._follower.fresh_at
        return None if fresh_at is None else max(0.0, self._clock() - fresh_at)

    def slot(self, preferences: Preferences, emit: Callable[[Event], None] = nobody) -> Slot:
        """A slot that is kept up to date for as long as somebody holds it. *emit* is told what happens to the set."""
        return self._publisher.slot(preferences, emit)

    def keep_in(self, folder: str, address: RegistryAddress) -> None:
        """From now on, what is known is written to a file in *folder*, and read there if *address* is away at the start."""
        path = last_known_path(folder, address, self._prefix)
        with self._lock:
            saver = self._savers.get(path)
            if saver is None:
                saver = Saver(LastKnownFile(path), lambda id: self._keys.instance(self.service, id))
                self._savers = {**self._savers, path: saver}
            snapshot = self.snapshot
            if snapshot is not None and not snapshot.suspect:
                self._post(lambda: saver.save(snapshot))

    def hasten(self, stale_after: float) -> None:
        """On the background loop: somebody came who waits less long for the first knowledge."""
        self._follower.hasten(stale_after)

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What clients share per service and *key* beside the endpoints: connections and counts. Give it back with
        `give_back`.
        """
        return self._shared.take(key, make)

    def give_back(self, *keys: Hashable) -> None:
        """One user less of each."""
        for key in keys:
            self._shared.give_back(key)

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
        self._check()
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

    @property
    def refusal(self) -> RegistryError | None:
        """Why it is no use to wait for the first knowledge: wrong user, password or certificate. ``None`` as a rule."""
        return self._follower.refusal

    def timed_out(self, timeout: float) -> DiscoveryTimeout:
        """The error for a caller who waited *timeout* seconds in vain for the first knowledge, or need not wait."""
        reason = self.refusal or self._follower.last_error
        detail = f": {reason}" if reason else ""
        if isinstance(reason, RegistryDenied):
            said = f"the registry refuses us{detail}. Are user and password right, and may the user read the prefix?"
        elif isinstance(reason, Untrusted):
            said = f"the registry can't be trusted{detail}. Are ca=, cert=, key= and server_name= of its URL right?"
        else:
            said = f"the registry did not answer{detail}. Is its address right ('disco doctor' tells), and does it run?"
        waited = "" if self.refusal else f" after {timeout:g} s"
        error = DiscoveryTimeout(f"nothing is known of service {self.service!r}{waited}; {said}")
        error.__cause__ = reason
        return error

    # ---- on the background loop

    async def run(self) -> None:
        """Until cancelled."""
        await self._follower.run()

    def close(self) -> None:
        """Retire everything, and close what was shared."""
        if self._observing is not None:
            self._observing.cancel()
        self._publisher.close()
        self.close_shared()

    def close_shared(self) -> None:
        """Close what was shared: for callers that still call, it is opened anew."""
        self._shared.close()

    async def _join(self) -> None:
        """Before the first list, so that no one drains without knowing of us once we know of it."""
        if self.presence is not None and not self._has_joined:
            await self.presence.join(self.service)
            self._has_joined = True  # only now: a list that was cut short is begun anew

    def _acknowledge(self) -> None:
        """Tell those who drain that they get nothing new from here, and what they still have."""
        if self.presence is not None and self._owes_word:
            busy, self._told = self._publisher.busy(), self._outcomes()
            self.presence.tell(self.service, self._applied, busy, self._told)
            self._owes_word = bool(busy)

    def _outcomes(self) -> dict[str, Outcomes]:
        endpoints = self.endpoints
        return {
            id: Outcomes(endpoint.requests, endpoint.failures + endpoint.server_errors)
            for id in sorted(self._observed)
            if (endpoint := endpoints.get(id)) is not None
        }

    def _observe(self) -> None:
        """Now and then tell what became of the requests to those on trial, for as long as there are any."""
        if self.presence is None or self._observing is not None:
            return

        def look() -> None:
            self._observing = None
            if self._outcomes() != self._told:
                self._owes_word = True
                self._acknowledge()
            if self._observed:
                self._observe()

        self._observing = asyncio.get_running_loop().call_later(OBSERVE_PERIOD, look)

    def _on_idle(self) -> None:
        self._post(self._acknowledge)

    def _decode(self, entry: Entry) -> Instance:
        if not entry.lease:
            raise BadRecord("it has no lease")
        id = entry.key[len(self._prefix) :]
        return decode(entry.value, service=self.service, id=id, hostnames=self._hostnames)

    def _recall(self) -> Listing | None:
        found = [saver.file.load() for saver in self._savers.values()]
        known = [each for each in found if each is not None and each.entries]
        listing = max(known, key=lambda each: each.revision, default=None)
        if listing is not None:
            logger.warning(
                "%s: the registry does not answer; going on with what was known before", self.service
            )
        return listing

    def _publish(self, follower: Follower[Instance], touched: Collection[str]) -> None:
        start = len(self._prefix)
        changed = [key[start:] for key in touched]
        by_id = dict(self.snapshot.by_id) if self.snapshot is not None else {}
        for id in changed:
            instance = follower.records.get(self._prefix + id)
            if instance is not None:
                by_id[id] = instance
            else:
                by_id.pop(id, None)
        snapshot = Snapshot(self.service, follower.revision, by_id, follower.is_stale)
        drained = {key[start:] for key, last in follower.departed.items() if last.state is State.DRAINING}
        self._publisher.publish(snapshot, changed, drained)
        # Of a registry that went back, or that was only remembered, we claimed to know what it has yet to say.
        self._owes_word |= follower.revision < self._applied
        self._applied = follower.revision
        # A record that we can't read may drain, too.
        self._owes_word |= any(
            self._prefix + id in follower.skipped or (id in by_id and by_id[id].state is State.DRAINING)
            for id in changed
        )
        self._observed = {
            id
            for id in self._observed.union(changed)
            if id in by_id and by_id[id].extra.get(OBSERVED) is True
        }
        self._acknowledge()
        if self._observed:
            self._observe()
        if not snapshot.suspect:
            for saver in self._savers.values():
                saver.save(snapshot)
        self.wake()

    def _on_phase(self, phase: Phase) -> None:
        self._publisher.tell(PhaseChanged(self.service, str(phase), self.age()))
