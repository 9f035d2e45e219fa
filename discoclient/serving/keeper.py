"""The keeper of a registration: from everything that can happen to a lease and a key, what to do about it.

It is told what happened and answers what to do; it does no I/O and reads no clock. Its shell is `serving.registrar`.

Rules that everything here obeys:

1. The lease counts from when its renewal was *sent*, for the ttl that was *granted*, on a monotonic clock. Past that it is
   taken for dead, whatever it is: a new one is asked for, for ever.
2. The key is written only by comparing: with its last known revision, or with its absence. So a second registrar of the
   same id is noticed, and an answer that was lost does no harm when the write is repeated.
3. What stands at the key is looked at, not assumed: deleted or overwritten, it is put back. But after `REPAIRS` times in
   `REPAIR_WINDOW` seconds it waits longer each time: two registrars must not fight. A key that went with its lease is no
   fight. Lost leases are counted by themselves, for the sake of a registry that can't hold them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random

from ..model.errors import LeaseExpired, RegistryDenied, RegistryError
from ..model.schedule import full_jitter, jittered
from ..registry.protocol import Entry, Lease, Put, Untrusted
from .happenings import Ask, Event, Failed, Granted, PutAnswer, Renewed, Revoked, Seen, Step

__all__ = ["Keeper"]

REPAIRS = 3
REPAIR_WINDOW = 10.0
RETRY_FIRST = 0.2
RETRY_CAP = 3.0


class Keeper:
    """Keeps one key with one value under one lease."""

    def __init__(self, value: bytes, *, rng: Random) -> None:
        self._value = value
        self._rng = rng
        self._is_putting = False
        self._put_last = b""
        self._unanswered: bytes | None = None  # a value that may have been written, for all we know
        self._expected = 0
        self._written = b""
        self._unread: Seen | None = None  # what was seen at a moment when it could not be judged
        self._seen_at = 0
        self._is_rewound = False
        self._was_registered = False
        self._is_present = False
        self._repairs: deque[float] = deque(maxlen=REPAIRS)
        self._losses: deque[float] = deque(maxlen=REPAIRS)
        self._is_lease_in_doubt = (
            False  # the last repair was of a missing key, which may have gone with its lease
        )
        self._has_new_lease = (
            False  # and nothing was put under it yet: what stands there is the old one's affair
        )
        self._retries = self._new_retries()
        self._repair_waits = self._new_waits()
        self._loss_waits = self._new_waits()
        self._timers: dict[Step, float] = {}
        self.is_leaving = False
        self.is_gone = False
        """Whether it left, and the registry holds nothing of it any more."""
        self.lease: Lease | None = None
        self.deadline = 0.0
        """When the lease is to be taken for dead."""
        self.fatal: RegistryError | None = None
        """Why the first registration can't succeed, whatever is tried."""
        self.last_error: RegistryError | None = None

    @property
    def is_registered(self) -> bool:
        """Whether the key stands with the wanted value, as far as can be known."""
        return self._is_present and self.lease is not None

    @property
    def is_settled(self) -> bool:
        """Whether the registry has the newest wanted value."""
        return self.is_registered and self._written == self._value

    @property
    def revision(self) -> int:
        """At which the registry took the value that it has, as far as is known."""
        return self._expected

    @property
    def wake_at(self) -> float | None:
        due = list(self._timers.values())
        if self.lease is not None and not self.is_leaving:
            due.append(self.deadline)
        return min(due, default=None)

    def start(self, now: float) -> list[Ask]:
        return [Ask(Step.GRANT)]

    def want(self, value: bytes, now: float) -> list[Ask]:
        """From now on the key should hold *value*."""
        self._value = value
        return [] if self.is_leaving else self._put()

    def leave(self, now: float) -> list[Ask]:
        """Give the lease back, and with it the key. Asked for until the registry has taken it."""
        self.is_leaving = True
        self.is_gone = self.lease is None
        self._is_present = False
        self._timers.clear()
        self._retries = self._new_retries()
        return [] if self.is_gone else [Ask(Step.REVOKE)]

    def handle(self, event: Event, now: float) -> list[Ask]:
        if self.is_leaving:
            self._left(event, now)
            return []
        held = self.lease.id if self.lease else 0
        if isinstance(event, Renewed | PutAnswer | Failed) and event.lease not in (0, held):
            return []  # about a lease that was given up meanwhile
        match event:
            case Granted(lease, sent_at):
                self.lease, self.deadline = lease, sent_at + lease.ttl
                self._timers[Step.RENEW] = now + jittered(self._rng, lease.ttl / 3, 0.1)
                return self._put()
            case Renewed(ttl, sent_at, _):
                self.deadline = sent_at + ttl
                self._timers[Step.RENEW] = now + jittered(self._rng, ttl / 3, 0.1)
            case PutAnswer(put, value, _):
                return self._answered(put, value, now)
            case Seen():
                return self._seen(event, now)
            case Failed(step, error, _):
                return self._failed(step, error, now)
            case Revoked():
                pass  # none was asked for
        return []

    def tick(self, now: float) -> list[Ask]:
        if self.lease is not None and now >= self.deadline and not self.is_leaving:
            return self._replace_lease(now)
        asks: list[Ask] = []
        for step in [step for step, due in self._timers.items() if due <= now]:
            del self._timers[step]
            asks += self._put() if step is Step.PUT else [Ask(step)]
        return asks

    # ---- what happened

    def _answered(self, put: Put, value: bytes, now: float) -> list[Ask]:
        self._is_putting = False
        present = put.present
        if not put.is_done and present is not None and present.value == value and self._is_mine(present):
            put = Put(True, present.mod_revision)  # it was done before, and the answer got lost
        if put.is_done:
            self._expected, self._written = put.revision, value
            self._is_present = self._was_registered = True
            self._is_lease_in_doubt = self._has_new_lease = False
            self._retries = self._new_retries()
            return self._put() if value != self._value else self._read(now)
        is_ours = present is not None and (self._is_mine(present) or present.value == self._unanswered)
        if present is not None and not self._was_registered and not is_ours:
            self.fatal = RegistryError(
                "another registration holds this instance id: ids are for one process and one boot; leave instance_id out"
            )
            return []
        self._expected = present.mod_revision if present is not None else 0
        if self._has_new_lease:
            self._has_new_lease = False
            return self._put()
        return self._repair(now, is_missing=present is None)

    def _seen(self, seen: Seen, now: float) -> list[Ask]:
        # A registry that went back is a restored backup: what we wrote is of another history.
        self._is_rewound |= seen.revision < self._seen_at
        self._seen_at, self._unread = seen.revision, seen
        if self._is_putting or not self._was_registered or self.lease is None:
            return []  # it is told once, and may be newer than the write that is under way: kept until that is answered
        return self._read(now)

    def _read(self, now: float) -> list[Ask]:
        """Compare what was seen with what should stand there."""
        seen, self._unread = self._unread, None
        is_rewound, self._is_rewound = self._is_rewound, False
        if seen is None or (seen.revision < self._expected and not is_rewound):
            return []  # older than what we wrote
        entry = seen.entry
        self._expected = entry.mod_revision if entry is not None else 0
        self._is_present = entry is not None and self._is_mine(entry)
        is_good = self._is_present and entry is not None and entry.value == self._value
        if is_good or Step.PUT in self._timers:
            return []
        self._is_present = False
        return self._repair(now, is_missing=entry is None)

    def _failed(self, step: Step, error: RegistryError, now: float) -> list[Ask]:
        self.last_error = error
        if step is Step.PUT:
            self._give_up_put()
        if isinstance(error, LeaseExpired):
            return self._replace_lease(now)
        if isinstance(error, RegistryDenied | Untrusted) and not self._was_registered:
            self.fatal = error
            return []
        if step is Step.RENEW and self.lease is not None:
            self._timers[Step.RENEW] = now + self._rng.uniform(0.5, 1.0) * min(1.0, self.lease.ttl / 10)
        else:
            self._timers[step] = now + next(self._retries)
        return []

    def _left(self, event: Event, now: float) -> None:
        match event:
            case Revoked():
                self.is_gone = True
            case Failed(Step.REVOKE, error, _):
                self.last_error = error
                self._timers[Step.REVOKE] = now + next(self._retries)

    # ---- what follows

    def _replace_lease(self, now: float) -> list[Ask]:
        """The lease is lost: another one, in a while if that happened too often."""
        asks = self._lost()
        if not self._is_too_often(self._losses, now):
            self._loss_waits = self._new_waits()
            return asks
        self._timers[Step.GRANT] = now + 1.0 + next(self._loss_waits)
        return []

    def _lost(self) -> list[Ask]:
        if self._is_lease_in_doubt and self._repairs:
            self._repairs.pop()  # so this is why the key was missing
        self.lease = None
        self._is_present = self._is_lease_in_doubt = False
        self._has_new_lease = True
        self._give_up_put()
        self._timers.clear()
        return [Ask(Step.GRANT)]

    def _give_up_put(self) -> None:
        if self._is_putting:
            self._is_putting, self._unanswered = False, self._put_last

    def _put(self) -> list[Ask]:
        if self._is_putting or self.lease is None or Step.PUT in self._timers:
            return []
        self._is_putting, self._put_last = True, self._value
        self._unread, self._is_rewound = None, False  # the write compares: it learns what stands there
        return [Ask(Step.PUT, self._value, self._expected)]

    def _repair(self, now: float, *, is_missing: bool) -> list[Ask]:
        """Put the key back, in a while if that was done too often."""
        self._is_lease_in_doubt = is_missing
        if not self._is_too_often(self._repairs, now):
            self._repair_waits = self._new_waits()
            return self._put()
        self._timers[Step.PUT] = now + 1.0 + next(self._repair_waits)
        if is_missing and Step.RENEW in self._timers:
            # A lease that is lost is replaced at once. Ask whether it is.
            del self._timers[Step.RENEW]
            return [Ask(Step.RENEW)]
        return []

    def _is_too_often(self, times: deque[float], now: float) -> bool:
        """Whether what happens now happened at all of *times*, and not long ago."""
        is_too_often = len(times) == REPAIRS and now - times[0] < REPAIR_WINDOW
        times.append(now)
        return is_too_often

    def _is_mine(self, entry: Entry) -> bool:
        return self.lease is not None and entry.lease == self.lease.id

    def _new_retries(self) -> Iterator[float]:
        return full_jitter(self._rng, first=RETRY_FIRST, cap=RETRY_CAP)

    def _new_waits(self) -> Iterator[float]:
        return full_jitter(self._rng, first=1.0, cap=30.0)
