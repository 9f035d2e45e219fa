"""The attendance of this process: one lease, and under it a key for each service that it may call. Decisions only.

It is told what happened and answers what to do; it does no I/O and reads no clock. Its shell is `control.presence`. All of it
is best effort: what can't be written is tried again, and no call waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from ..model.errors import LeaseExpired, RegistryDenied, RegistryError
from ..model.schedule import full_jitter, jittered
from ..registry.leases import Granted, Renewed
from ..registry.protocol import Lease, Put

__all__ = [
    "Attendance",
    "Delete",
    "Deleted",
    "Event",
    "Failed",
    "Grant",
    "Granted",
    "Renew",
    "Renewed",
    "Step",
    "Write",
    "Written",
]

WRITES, PERIOD = 2, 1.0
"""So many writes of one key in so many seconds at most: one write speaks of all drains up to then."""
RETRY_FIRST, RETRY_CAP = 0.2, 5.0
LOST_PAUSE = 1.0
"""Seconds at most before a lost lease is replaced."""
DENIED_PAUSE = 60.0
"""Seconds after which it is tried once more where the registry's roles don't allow it: they may be changed."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Get a lease."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lease."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put *value* at the key of *service*, under the lease; *expected* as `Registry.put` has it."""

    service: str
    value: bytes
    expected: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    service: str


Step: TypeAlias = Grant | Renew | Write | Delete


@dataclass(frozen=True, slots=True)
class Written:
    service: str
    value: bytes
    put: Put
    lease: int


@dataclass(frozen=True, slots=True)
class Deleted:
    service: str


@dataclass(frozen=True, slots=True)
class Failed:
    """``lease``: under which it was tried; 0 for a `Grant`, and where it was lost before."""

    step: Step
    error: RegistryError
    lease: int = 0


Event: TypeAlias = Granted | Renewed | Written | Deleted | Failed


@dataclass(slots=True)
class _Key:
    """What stands at one service's key, as far as we know, and what should. One step of it at a time, whatever the lease."""

    wanted: bytes | None
    written: bytes | None = None
    expected: int | None = 0
    is_under_way: bool = False
    is_unsure: bool = (
        False  # something else may stand there, or nothing: an answer is not there yet, or was lost
    )


class Attendance:
    """See the module."""

    def __init__(self, *, rng: Random) -> None:
        self._rng = rng
        self._keys: dict[str, _Key] = {}
        self._times: dict[str, deque[float]] = {}  # when each was written
        self._retries = self._new_retries()
        self._renew_at: float | None = None
        self._grant_at: float | None = None
        self._is_granting = False
        self._resting: dict[str, float] = {}  # services whose write waits, until when
        self.lease: Lease | None = None
        self.deadline = 0.0
        """When the lease is to be taken for dead."""
        self.is_refused = False
        """Whether the registry does not allow it, as things are."""

    @property
    def wake_at(self) -> float | None:
        due = [*self._resting.values()]
        due += [at for at in (self._renew_at, self._grant_at) if at is not None]
        if self.lease is not None:
            due.append(self.deadline)
        return min(due, default=None)

    def is_announced(self, service: str) -> bool:
        """Whether the registry has a key of ours for *service*, of whatever age."""
        key = self._keys.get(service)
        return key is not None and key.written is not None and self.lease is not None

    def want(self, service: str, value: bytes, now: float) -> list[Step]:
        """From now on the key of *service* should hold *value*."""
        key = self._keys.setdefault(service, _Key(None))
        key.wanted = value
        if self.lease is None:
            return self._ask_for_lease() if self._grant_at is None else []
        return self._write(service, key, now)

    def drop(self, service: str, now: float) -> list[Step]:
        """The key of *service* should be gone: nobody here calls it any more."""
        key = self._keys.get(service)
        if key is None:
            return []
        key.wanted = None
        return self._write(service, key, now)

    def handle(self, event: Event, now: float) -> list[Step]:
        match event:
            case Granted(lease, sent_at):
                self.lease, self.deadline = lease, sent_at + lease.ttl
                self._is_granting = self.is_refused = False
                self._renew_at = now + jittered(self._rng, lease.ttl / 3, 0.1)
                return self._write_all(now)
            case Renewed(ttl, sent_at, lease_id) if self._is_held(lease_id):
                self.deadline = sent_at + ttl
                self._renew_at = now + jittered(self._rng, ttl / 3, 0.1)
            case Written():
                return self._written(event, now)
            case Deleted(service):
                return self._deleted(service, now)
            case Failed(Write() | Delete() as step):
                return self._failed_at_key(event, step, now)
            case Failed(Grant()):
                self._is_granting = False
                self._grant_at = now + self._pause(event)
            case Failed(Renew()) if self._is_held(event.lease):
                return self._failed_to_renew(event, now)
        return []

    def tick(self, now: float) -> list[Step]:
        if self.lease is not None and now >= self.deadline:
            return self._lose(now)
        steps: list[Step] = []
        if self._grant_at is not None and self._grant_at <= now:
            self._grant_at = None
            steps += self._ask_for_lease()
        if self._renew_at is not None and self._renew_at <= now:
            self._renew_at = None
            steps.append(Renew())
            self._times = {
                service: times
                for service, times in self._times.items()
                if service in self._keys or now < times[-1] + PERIOD
            }
        for service in [service for service, due in self._resting.items() if due <= now]:
            del self._resting[service]
            steps += self._write(service, self._keys[service], now)
        return steps

    # ---- what happened

    def _written(self, event: Written, now: float) -> list[Step]:
        key = self._keys[event.service]
        key.is_under_way = False
        if not self._is_held(event.lease):
            key.is_unsure = False  # it goes with that lease
        elif event.put.is_done:
            key.written, key.expected, key.is_unsure = event.value, event.put.revision, False
            self._retries, self.is_refused = self._new_retries(), False
        else:  # an earlier write of ours, whose answer was lost: what stands there is ours alone to replace
            key.is_unsure = event.put.present is not None
            key.expected = event.put.present.mod_revision if event.put.present is not None else 0
        return self._write(event.service, key, now)

    def _deleted(self, service: str, now: float) -> list[Step]:
        key = self._keys[service]
        key.is_under_way = key.is_unsure = False
        key.expected = 0
        return self._write(service, key, now)

    def _failed_at_key(self, failed: Failed, step: Write | Delete, now: float) -> list[Step]:
        key = self._keys[step.service]
        key.is_under_way = False
        key.expected = None  # it may have been done all the same
        if self._is_held(failed.lease):
            if isinstance(failed.error, LeaseExpired):
                return self._lose(now)
            self._resting[step.service] = now + self._pause(failed)
        return self._write(step.service, key, now)

    def _failed_to_renew(self, failed: Failed, now: float) -> list[Step]:
        if isinstance(failed.error, LeaseExpired):
            return self._lose(now)
        ttl = self.lease.ttl if self.lease is not None else 1.0
        self._renew_at = now + self._rng.uniform(0.5, 1.0) * min(1.0, ttl / 10)
        return []

    # ---- what follows

    def _write(self, service: str, key: _Key, now: float) -> list[Step]:
        """What brings the key to what it should hold, if that may be done now."""
        if key.is_under_way or service in self._resting:
            return []
        stands = key.is_unsure or key.written is not None
        if key.wanted is None and (self.lease is None or not stands):  # it is gone, or goes with its lease
            del self._keys[service]
            return []
        if self.lease is None or (key.written == key.wanted and not key.is_unsure):
            return []
        if key.wanted is None:
            key.is_under_way = key.is_unsure = True
            key.written = None
            return [Delete(service)]
        times = self._times.setdefault(service, deque(maxlen=WRITES))
        if len(times) == WRITES and now < times[0] + PERIOD:
            self._resting[service] = times[0] + PERIOD
            return []
        times.append(now)
        key.is_under_way = key.is_unsure = True
        return [Write(service, key.wanted, key.expected)]

    def _write_all(self, now: float) -> list[Step]:
        return [step for service, key in list(self._keys.items()) for step in self._write(service, key, now)]

    def _lose(self, now: float) -> list[Step]:
        """The lease is lost, and the keys with it. Another one in a moment: all who had theirs in this registry want one."""
        self.lease = self._renew_at = None
        self._resting.clear()
        for key in self._keys.values():
            key.written = key.expected = None
            key.is_unsure = key.is_under_way
        wanted = {service for service, key in self._keys.items() if key.wanted is not None}
        # What is under way is answered yet: until then nothing else is written there, or the two might change places.
        self._keys = {
            service: key for service, key in self._keys.items() if service in wanted or key.is_under_way
        }
        self._grant_at = now + self._rng.uniform(0.0, LOST_PAUSE) if wanted else None
        return []

    def _pause(self, failed: Failed) -> float:
        self.is_refused = isinstance(failed.error, RegistryDenied)
        return DENIED_PAUSE if self.is_refused else next(self._retries)

    def _ask_for_lease(self) -> list[Step]:
        if self._is_granting:
            return []
        self._is_granting = True
        return [Grant()]

    def _is_held(self, lease: int) -> bool:
        return self.lease is not None and self.lease.id == lease

    def _new_retries(self) -> Iterator[float]:
        return full_jitter(self._rng, first=RETRY_FIRST, cap=RETRY_CAP)
