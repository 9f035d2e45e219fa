"""A registry's behaviour as a plain data structure: revisions, leases, compaction. Time is an argument.

`MemoryRegistry` serves it to a process; tests use it as the model of etcd that real etcd is compared with.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType

from ..model.errors import LeaseExpired, RevisionCompacted
from .protocol import Batch, Deletion, Entry, Listing, Probe, Put

__all__ = ["MemoryStore", "in_range"]


def in_range(key: str, range: str) -> bool:
    """Whether *key* is in *range*: below it if it ends in ``/``, else the very same key."""
    return key.startswith(range) if range.endswith("/") else key == range


@dataclass(slots=True)
class _Lease:
    ttl: int
    expires_at: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """Keys, their history and their leases. One revision for each change that was made as a whole."""

    def __init__(self) -> None:
        self.revision = 1
        self._compacted = 0
        self._base: dict[str, Entry] = {}  # as of the last revision whose history is gone
        self._entries: dict[str, Entry] = {}
        self._history: list[tuple[int, tuple[Entry | Deletion, ...]]] = []
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0

    def list(self, range: str) -> Listing:
        """Every key of *range*, ordered by key."""
        return Listing(
            self.revision, tuple(self._entries[key] for key in sorted(self._entries) if in_range(key, range))
        )

    def probe(self, range: str, after: int, *, is_past: bool = False) -> Probe:
        """The newest change of *range* after *after*, and how many keys it has; with *is_past*, as of *after*.

        Raises `RevisionCompacted` if that is a revision of which nothing is known: not any more, or not yet.
        """
        found = self._as_of(after) if is_past else self._entries
        entries = [entry for key, entry in found.items() if in_range(key, range)]
        last = max(entries, key=lambda entry: entry.mod_revision, default=None)
        if last is not None and last.mod_revision > after:
            return Probe(self.revision, last.mod_revision, len(entries))
        return Probe(self.revision, 0, len(entries), last)

    def batches(self, range: str, after: int) -> Iterable[Batch]:
        """What changed in *range* after *after*, a revision at a time. Raises `RevisionCompacted`."""
        if after < self._compacted:
            raise RevisionCompacted(
                f"the history up to revision {self._compacted} is gone; list again", oldest=self._compacted
            )
        start = bisect_right(self._history, after, key=itemgetter(0))
        for revision, changes in self._history[start:]:
            mine = tuple(change for change in changes if in_range(change.key, range))
            if mine:
                yield Batch(revision, mine)

    def put(self, key: str, value: bytes, *, lease: int = 0, expected: int | None = None) -> Put:
        """Put a key, if its ``mod_revision`` is *expected* (0: it must not exist; ``None``: whatever it is)."""
        present = self._entries.get(key)
        if expected is not None and expected != (present.mod_revision if present else 0):
            return Put(False, self.revision, present)
        if lease and lease not in self._leases:
            raise LeaseExpired(f"lease {lease:x} does not exist")
        if present and present.lease in self._leases:
            self._leases[present.lease].keys.discard(key)
        self.revision += 1
        entry = Entry(key, value, present.create_revision if present else self.revision, self.revision, lease)
        self._entries[key] = entry
        if lease:
            self._leases[lease].keys.add(key)
        self._history.append((self.revision, (entry,)))
        return Put(True, self.revision)

    def attach(
        self,
        entry: Entry,
        key: str,
        value: bytes,
        *,
        expected: int,
        unchanged: Mapping[str, int] = MappingProxyType({}),
    ) -> Put:
        """Put *key* under the lease of *entry*, if that stands as it is, and the ``mod_revision`` of *key* is *expected*, and
        those of other keys are as *unchanged* has them.
        """
        found = {
            other: self._entries[other].mod_revision if other in self._entries else 0 for other in unchanged
        }
        if self._entries.get(entry.key) != entry or found != dict(unchanged):
            return Put(False, self.revision, self._entries.get(key))
        return self.put(key, value, lease=entry.lease, expected=expected)

    def delete(self, *keys: str) -> None:
        """Delete the keys that exist, all in one revision."""
        doomed = [key for key in keys if key in self._entries]
        if not doomed:
            return
        self.revision += 1
        for key in doomed:
            entry = self._entries.pop(key)
            if entry.lease in self._leases:
                self._leases[entry.lease].keys.discard(key)
        self._history.append((self.revision, tuple(Deletion(key, self.revision) for key in doomed)))

    def grant(self, ttl: float, now: float) -> tuple[int, int]:
        """A new lease; its id and the granted ttl in seconds."""
        self._last_lease += 1
        granted = max(1, math.ceil(ttl))
        self._leases[self._last_lease] = _Lease(granted, now + granted)
        return self._last_lease, granted

    def renew(self, lease: int, now: float) -> int:
        """Start the lease's time again; returns its ttl. Raises `LeaseExpired`."""
        held = self._leases.get(lease)
        if held is None:
            raise LeaseExpired(f"lease {lease:x} does not exist")
        held.expires_at = now + held.ttl
        return held.ttl

    def revoke(self, lease: int) -> None:
        """End a lease, and delete its keys in one revision."""
        held = self._leases.pop(lease, None)
        if held is not None:
            self.delete(*sorted(held.keys))

    def expire(self, now: float) -> float | None:
        """End every lease whose time is over; returns when the next one will be, or ``None``."""
        for lease in [id for id, held in self._leases.items() if held.expires_at <= now]:
            self.revoke(lease)
        return min((held.expires_at for held in self._leases.values()), default=None)

    def compact(self, revision: int) -> None:
        """Forget the history before *revision*."""
        compacted = max(self._compacted, min(revision, self.revision) - 1)
        self._base = _fold(self._base, self._history, compacted)
        self._compacted = compacted
        self._history = [item for item in self._history if item[0] > compacted]

    def wipe(self) -> None:
        """Start from nothing, as a cluster that lost its data does: keys, leases, history and revision."""
        last = self._last_lease
        self.__init__()  # type: ignore[misc]
        self._last_lease = last  # etcd's ids are random numbers: no new lease is taken for one of before

    def _as_of(self, revision: int) -> dict[str, Entry]:
        if not self._compacted < revision <= self.revision:
            raise RevisionCompacted(f"revision {revision} is not there; list again")
        return _fold(self._base, self._history, revision)


def _fold(
    base: dict[str, Entry], history: Iterable[tuple[int, tuple[Entry | Deletion, ...]]], last: int
) -> dict[str, Entry]:
    """*base* after the changes up to revision *last*."""
    entries = dict(base)
    for _, changes in (item for item in history if item[0] <= last):
        for change in changes:
            if isinstance(change, Entry):
                entries[change.key] = change
            else:
                entries.pop(change.key, None)
    return entries
