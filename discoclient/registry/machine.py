"""The watch machine: from everything that can happen to a watch, the whole set that is there now.

It is told what happened and answers what to do; it does no I/O and reads no clock. Its shell is `control.follower`.

Phases::

    EMPTY ──listed──> SYNCING ──watch stands──> LIVE <──proved fresh── SUSPECT
                         ^                       │  broke, or silent and unproved ──> SUSPECT
                         └── compacted · rewound · stalled · now and then ──┘

Rules that everything here obeys:

1. What is known is served in every phase but EMPTY. Nothing is ever cleared first and filled later: a new listing
   *replaces by difference*, in one step.
2. The resume point (``revision``) moves only past what was delivered, a whole revision at a time, or past what a
   linearizable read proved to be empty. Never because a watch was created.
3. Silence is not freshness. After ``silence`` seconds without a word, a linearizable question is asked of another member.
4. What can't be (a deletion of an unknown key, changes out of order) means: list again. Old servers have watch bugs.
5. A registry whose revision went *back* was restored or wiped: list again, and believe the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Generic, TypeVar

from ..model.errors import RegistryError, RevisionCompacted
from ..model.schedule import full_jitter, jittered
from .codec import BadRecord
from .happenings import Ask, Broke, Do, Event, Failed, Listed, Notice, Phase, Probed, WatchSettings
from .protocol import Batch, Deletion, Entry, Listing, Probe

__all__ = ["WatchMachine"]

T = TypeVar("T")


class WatchMachine(Generic[T]):
    """Follows one range. ``decode`` turns an entry into what is kept of it, or raises `BadRecord` to have it skipped."""

    def __init__(self, decode: Callable[[Entry], T], *, settings: WatchSettings, rng: Random) -> None:
        self._decode = decode
        self._settings = settings
        self._rng = rng
        self._stamps: dict[str, tuple[int, int]] = {}  # every key, also the skipped: (mod_revision, lease)
        self._stands = False
        self._opened_at = 0.0
        self._backoff: Iterator[float] | None = None
        self._timers: dict[Do, float] = {}
        self._stalled_at: float | None = None
        self._listing_since: int | None = None  # the revision when the listing under way was asked for
        self._has_changed = False
        self.records: Mapping[str, T] = {}
        """What is there, by key. Replaced on a change, never changed."""
        self.revision = 0
        """Everything up to here is in ``records``. The resume point."""
        self.phase = Phase.EMPTY
        self.is_stale = False
        """Whether ``records`` is only one member's word, without a quorum."""
        self.fresh_at: float | None = None
        """When the registry last proved that ``records`` was all there is."""
        self.skipped: dict[str, str] = {}
        """Why a key was skipped."""
        self.notices: list[Notice] = []
        """For the shell to take away."""

    def start(self, now: float) -> list[Ask]:
        self._timers[Do.LIST_STALE] = now + self._settings.stale_after
        return self._list()

    @property
    def wake_at(self) -> float | None:
        """When to call `tick` if nothing else happens before."""
        due = list(self._timers.values())
        if self._stalled_at is not None:
            due.append(self._stalled_at)
        return min(due, default=None)

    def take_change(self) -> bool:
        """Whether ``records`` changed since this was last asked."""
        changed, self._has_changed = self._has_changed, False
        return changed

    def handle(self, event: Event, now: float) -> list[Ask]:
        match event:
            case Listed(listing, is_stale):
                return self._listed_stale(listing) if is_stale else self._listed(listing, now)
            case Batch():
                return self._received(event, now)
            case Broke(error):
                return self._broke(error, now)
            case Probed(probe, after):
                return self._probed(probe, after, now)
            case Failed(Do.LIST_STALE):
                self._timers[Do.LIST_STALE] = now + jittered(self._rng, 1.0, 0.2)
            case Failed(Do.PROBE):
                self.phase = Phase.SUSPECT
                self._retry(Do.PROBE, now)
            case Failed():
                self._listing_since = None
                self._retry(Do.LIST, now)
        return []

    def tick(self, now: float) -> list[Ask]:
        asks = []
        if self._stalled_at is not None and self._stalled_at <= now:
            self._stalled_at = None
            self._note("stalled", "the watch is silent about a change that is there; listing again")
            self.phase = Phase.SUSPECT
            asks += self._list()
        for what in [what for what, due in self._timers.items() if due <= now]:
            del self._timers[what]
            if what is Do.LIST:
                asks += self._list()
            elif what is not Do.LIST_STALE or self.phase is Phase.EMPTY:
                asks.append(Ask(what, self.revision))
        return asks

    # ---- what happened

    def _listed(self, listing: Listing, now: float) -> list[Ask]:
        since, self._listing_since = self._listing_since or 0, None
        is_rewound = listing.revision < since
        if not is_rewound and not self.is_stale and listing.revision < self.revision:
            # The watch went past it meanwhile: it is right, and too old to be of use.
            self._retry(Do.LIST, now)
            return []
        if is_rewound:
            self._note("rewound", f"the registry went back from {self.revision} to {listing.revision}")
        is_first = self.phase is Phase.EMPTY or self.is_stale
        if not is_first and not is_rewound and self._misses(listing.entries):
            self._note("repaired", "listing again found a change that the watch had not delivered")
        self._replace(listing.entries, trust=not is_rewound)
        self._has_changed |= is_first
        self.revision = listing.revision
        self.phase = Phase.SYNCING
        self.is_stale = False
        self.fresh_at = now
        self._stands = False
        self._stalled_at = None
        self._timers = {Do.LIST: now + jittered(self._rng, self._settings.resync, 0.2)}
        return [Ask(Do.WATCH, self.revision)]

    def _listed_stale(self, listing: Listing) -> list[Ask]:
        if self.phase is Phase.EMPTY:
            self._replace(listing.entries, trust=False)
            self.phase = Phase.SUSPECT
            self.is_stale = True
            self.revision = listing.revision
            self._has_changed = True
        return []

    def _received(self, batch: Batch, now: float) -> list[Ask]:
        is_opening = not self._stands
        if is_opening:
            self._stands = True
            self._opened_at = now
            self.phase = Phase.LIVE
        self._timers[Do.PROBE] = now + jittered(self._rng, self._settings.silence, 0.1)
        if batch.changes:
            if not self._apply(batch):
                self._note("repaired", "the watch delivered what can't be; listing again")
                self.phase = Phase.SUSPECT
                return self._list()
            self.fresh_at = now
            self._stalled_at = None
        elif is_opening and batch.revision < self.revision:
            # A member that lags, or a registry that went back: watching the future is silence (etcd allows it).
            self.phase = Phase.SUSPECT
            return [Ask(Do.PROBE, self.revision)]
        if self._backoff is not None and now - self._opened_at >= self._settings.healthy_after:
            self._backoff = None
        return []

    def _broke(self, error: RegistryError, now: float) -> list[Ask]:
        if self._stands and now - self._opened_at >= self._settings.healthy_after:
            self._backoff = None
        self._stands = False
        self._stalled_at = None
        self.phase = Phase.SUSPECT
        self._timers.pop(Do.PROBE, None)
        is_compacted = isinstance(error, RevisionCompacted)
        is_first = self._backoff is None
        self._note("compacted" if is_compacted else "broke", str(error))
        self._retry(Do.LIST if is_compacted else Do.WATCH, now)
        if is_compacted and is_first:
            self._timers[Do.LIST] = now  # at once; only a compaction that comes back has to wait
        return []

    def _probed(self, probe: Probe, after: int, now: float) -> list[Ask]:
        if self._stands:
            self._timers[Do.PROBE] = now + jittered(self._rng, self._settings.silence, 0.1)
        if probe.revision < after:
            self.phase = Phase.SUSPECT
            return self._list()
        if after != self.revision:
            return []  # an event came while we asked: the watch is well
        if probe.newest or probe.count != len(self._stamps):
            self.phase = Phase.SUSPECT
            if self._stalled_at is None:
                self._stalled_at = now + self._settings.stall
            return []
        self.revision = probe.revision
        self.fresh_at = now
        if self._stands:
            self.phase = Phase.LIVE
            self._backoff = None
        return []

    # ---- what follows

    def _list(self) -> list[Ask]:
        """Ask for a listing, unless one is under way. A linearizable one can't be older than what is known by now."""
        if self._listing_since is not None:
            return []
        self._listing_since = 0 if self.is_stale else self.revision
        return [Ask(Do.LIST)]

    def _retry(self, what: Do, now: float) -> None:
        if self._backoff is None:
            self._backoff = full_jitter(
                self._rng, first=self._settings.backoff_first, cap=self._settings.backoff_cap
            )
        self._timers[what] = now + next(self._backoff)

    def _apply(self, batch: Batch) -> bool:
        """Apply what is new in *batch*. False, and nothing applied, when it can't be."""
        changes = [change for change in batch.changes if change.mod_revision > self.revision]
        if not changes:
            return True
        known = set[str]()
        last = self.revision
        for change in changes:
            if change.mod_revision < last:
                return False
            last = change.mod_revision
            if isinstance(change, Entry):
                known.add(change.key)
            elif change.key not in self._stamps and change.key not in known:
                return False
        records = dict(self.records)
        for change in changes:
            if isinstance(change, Deletion):
                self._forget(change.key, records)
            else:
                self._keep(change, records)
        self.records = records
        self._has_changed = True
        self.revision = last
        return True

    def _replace(self, entries: tuple[Entry, ...], *, trust: bool) -> None:
        records = dict(self.records)
        has_changed = False
        for key in self._stamps.keys() - {entry.key for entry in entries}:
            self._forget(key, records)
            has_changed = True
        for entry in entries:
            if not trust or self._stamps.get(entry.key) != (entry.mod_revision, entry.lease):
                self._keep(entry, records)
                has_changed = True
        if has_changed:
            self.records = records
            self._has_changed = True

    def _misses(self, entries: tuple[Entry, ...]) -> bool:
        """Whether *entries* has something that should have been delivered by now."""
        return any(
            entry.mod_revision <= self.revision
            and self._stamps.get(entry.key) != (entry.mod_revision, entry.lease)
            for entry in entries
        )

    def _keep(self, entry: Entry, records: dict[str, T]) -> None:
        self._stamps[entry.key] = (entry.mod_revision, entry.lease)
        try:
            records[entry.key] = self._decode(entry)
        except BadRecord as error:
            records.pop(entry.key, None)
            if self.skipped.get(entry.key) != str(error):
                self.skipped[entry.key] = str(error)
                self._note("skipped", f"{entry.key!r} is skipped: {error}")
        else:
            self.skipped.pop(entry.key, None)

    def _forget(self, key: str, records: dict[str, T]) -> None:
        self._stamps.pop(key, None)
        self.skipped.pop(key, None)
        records.pop(key, None)

    def _note(self, kind: str, text: str) -> None:
        self.notices.append(Notice(kind, text))
