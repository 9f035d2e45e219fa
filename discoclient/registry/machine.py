"""The watch machine: from everything that can happen to a watch, the whole set that is there now.

It is told what happened and answers what to do; it does no I/O and reads no clock. Its shell is `control.follower`.

Phases::

    EMPTY ──listed──> SYNCING ──watch stands──> LIVE <──proved fresh── SUSPECT
                         ^                       │  broke, or silent and unproved ──> SUSPECT
                         └── compacted · rewound · stalled · now and then ──┘

Rules that everything here obeys:

1. What is known is served in every phase but EMPTY. Nothing is ever cleared first and filled later: a new listing
   *replaces by difference*, in one step. That there is *nothing* is known from a quorum only: a member that is cut off may
   not have heard yet of what was registered, and unknown is not empty.
2. The resume point (``revision``) moves only past what was delivered, a whole revision at a time, or past what a
   linearizable read proved to be empty. Never because a watch was created.
3. Silence is not freshness. After ``silence`` seconds without a word, a linearizable question is asked of another member.
4. What can't be (a deletion of an unknown key, changes out of order) means: list again. Old servers have watch bugs.
5. A registry whose revision went *back* was restored or wiped: list again, and believe the list. One that has overtaken us
   since is known by its past: what it had at our revision is not what we knew then. Asked after every break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Generic, TypeVar

from ..model.errors import RegistryDenied, RegistryError, RevisionCompacted
from ..model.schedule import full_jitter, jittered
from .happenings import Ask, Broke, Do, Event, Failed, Listed, Notice, Phase, Probed, WatchSettings
from .protocol import Batch, Entry, Listing, Probe, Proof, Untrusted
from .records import Extent, Records

__all__ = ["WatchMachine"]

T = TypeVar("T")

CHECK_WITHIN = 1.0
"""Seconds after a watch was resumed, at most, until the past is asked about; at random, for all services resume at once."""


_REWRITTEN = (
    "the registry has another history than the one that was known, as a restored backup has; listing again"
)


class WatchMachine(Generic[T]):
    """Follows one range. ``decode`` turns an entry into what is kept of it, or raises `BadRecord` to have it skipped."""

    def __init__(self, decode: Callable[[Entry], T], *, settings: WatchSettings, rng: Random) -> None:
        self._records = Records(decode)
        self._settings = settings
        self._rng = rng
        self._stands = False
        self._opened_at = 0.0
        self._backoff: Iterator[float] | None = None
        self._timers: dict[Do, float] = {}
        self._hastened: float | None = None
        self._stalled_at: float | None = None
        self._listing_since: int | None = None  # the revision when the listing under way was asked for
        self._broke_at: Extent | None = None  # what the registry's past is compared with after a break
        self._is_doubtful = False  # a change is missing: nothing more is applied before a listing came
        self._is_news = False  # known for the first time, which is news even if it is that there is nothing
        self.revision = 0
        """Everything up to here is in ``records``. The resume point."""
        self.phase = Phase.EMPTY
        self.is_stale = False
        """Whether ``records`` is only one member's word, without a quorum."""
        self.fresh_at: float | None = None
        """When the registry last proved that ``records`` was all there is."""
        self.refusal: RegistryError | None = None
        """Why nothing is known and, as things are, nothing will be: waiting does not help, though it is tried on."""
        self.notices: list[Notice] = []
        """For the shell to take away."""

    def start(self, now: float) -> list[Ask]:
        due = now + self._settings.stale_after
        self._timers[Do.LIST_STALE] = due if self._hastened is None else min(due, self._hastened)
        return self._list()

    def hasten(self, by: float) -> None:
        """Take one member's word at *by*, if not before: somebody came who waits less long than others. Also before `start`."""
        self._hastened = by if self._hastened is None else min(self._hastened, by)
        if Do.LIST_STALE in self._timers:
            self._timers[Do.LIST_STALE] = min(self._timers[Do.LIST_STALE], by)

    @property
    def records(self) -> Mapping[str, T]:
        """What is there, by key. Replaced on a change, never changed."""
        return self._records.by_key

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why a key has no record."""
        return self._records.skipped

    @property
    def wake_at(self) -> float | None:
        """When to call `tick` if nothing else happens before."""
        due = list(self._timers.values())
        if self._stalled_at is not None:
            due.append(self._stalled_at)
        return min(due, default=None)

    def take_change(self) -> frozenset[str] | None:
        """The keys whose records changed since this was last asked; ``None`` if there is nothing to tell."""
        touched = self._records.take_touched()
        if not touched and not self._is_news:
            return None
        self._is_news = False
        return touched

    def take_departed(self) -> dict[str, T]:
        """The last records of the keys that went, since this was last asked."""
        return self._records.take_departed()

    def handle(self, event: Event, now: float) -> list[Ask]:
        match event:
            case Listed(listing, is_stale):
                return self._listed_stale(listing, now) if is_stale else self._listed(listing, now)
            case Batch():
                return self._received(event, now)
            case Broke(error):
                return self._broke(error, now)
            case Probed(probe, after, is_past):
                return self._compared(probe, after, now) if is_past else self._probed(probe, after, now)
            case Failed(Do.LIST_STALE, error):
                self.refusal = error if _is_final(error) else None
                self._ask_a_member_again(now)
            case Failed(Do.PROBE, RevisionCompacted()):
                self.phase = Phase.SUSPECT
                return self._list()
            case Failed(Do.PROBE):
                self.phase = Phase.SUSPECT
                self._retry(Do.PROBE, now)
            case Failed(_, error):
                self._listing_since = None
                self._retry(Do.LIST, now)
                if self.refusal is None and _is_final(error) and Do.LIST_STALE in self._timers:
                    # For whatever there is to go on with. It has no timer while it is under way.
                    self._timers[Do.LIST_STALE] = now
        return []

    def tick(self, now: float) -> list[Ask]:
        asks = []
        if self._stalled_at is not None and self._stalled_at <= now:
            self._stalled_at = None
            asks += self._doubt("stalled", "the watch is silent about a change that is there; listing again")
        for what in [what for what, due in self._timers.items() if due <= now]:
            del self._timers[what]
            if what is Do.LIST:
                asks += self._list()
            elif what is Do.PROBE:
                asks.append(self._probe())
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
        is_explained = is_first or is_rewound or self._is_doubtful
        if not is_explained and self._records.misses(listing.entries, self.revision):
            self._note("repaired", "listing again found a change that the watch had not delivered")
        self._replace(listing)
        self._is_news |= is_first
        self.revision = listing.revision
        self.phase = Phase.SYNCING
        self.is_stale = False
        self.fresh_at = now
        self.refusal = None
        self._stands = self._is_doubtful = False
        self._stalled_at = self._broke_at = None
        self._timers = {Do.LIST: now + jittered(self._rng, self._settings.resync, 0.2)}
        return [Ask(Do.WATCH, self.revision)]

    def _listed_stale(self, listing: Listing, now: float) -> list[Ask]:
        if self.phase is not Phase.EMPTY:
            return []
        self.refusal = None
        if not listing.entries:
            self._ask_a_member_again(now)
            return []
        self._replace(listing)
        self.phase = Phase.SUSPECT
        self.is_stale = self._is_news = True
        self.revision = listing.revision
        return []

    def _received(self, batch: Batch, now: float) -> list[Ask]:
        if batch.proof is not None:
            return self._vouched(batch.proof, now)
        is_opening = not self._stands
        if is_opening:
            self._stands = True
            self._opened_at = now
            self.phase = Phase.LIVE
        if is_opening and self._broke_at is not None:
            self._timers[Do.PROBE] = now + self._rng.uniform(0.0, CHECK_WITHIN)
        elif self.phase is Phase.LIVE and self._broke_at is None:
            # Else a question that is due must not be put off by every event.
            self._timers[Do.PROBE] = now + jittered(self._rng, self._settings.silence, 0.1)
        if batch.changes:
            return self._changed(batch, now)
        if is_opening and batch.revision < self.revision:
            # A member that lags, or a registry that went back: watching the future is silence (etcd allows it).
            self.phase = Phase.SUSPECT
            return [self._probe()]
        self._calm(now)
        return []

    def _changed(self, batch: Batch, now: float) -> list[Ask]:
        if self._is_doubtful:
            return []
        revision = self._records.apply(batch.changes, self.revision)
        self._note_skipped()
        if revision is None:
            return self._doubt("repaired", "the watch delivered what can't be; listing again")
        if revision > self.revision:  # what comes twice proves nothing
            self.revision = revision
            self.fresh_at = now
            self._stalled_at = None
        self._calm(now)
        return []

    def _calm(self, now: float) -> None:
        """A watch that has stood for a while is resumed at once when it breaks."""
        if now - self._opened_at >= self._settings.healthy_after:
            self._backoff = None

    def _broke(self, error: RegistryError, now: float) -> list[Ask]:
        if self._stands and now - self._opened_at >= self._settings.healthy_after:
            self._backoff = None
        self._stands = False
        self._stalled_at = None
        self._broke_at = self._broke_at or self._records.extent(self.revision)
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
        if self._stands and self._broke_at is None:
            self._timers[Do.PROBE] = now + jittered(self._rng, self._settings.silence, 0.1)
        if probe.revision < after:
            self.phase = Phase.SUSPECT
            return self._list()
        if after != self.revision:
            return []  # an event came while we asked: the watch is well
        if probe.newest or probe.count != self._records.count:
            self.phase = Phase.SUSPECT
            if self._stalled_at is None:
                self._stalled_at = now + self._settings.stall
            return []
        if not self._records.extent(after).agrees(probe):
            return self._doubt("rewound", _REWRITTEN)
        self.revision = probe.revision
        self.fresh_at = now
        if self._stands:
            self.phase = Phase.LIVE
            self._backoff = None
        return []

    def _vouched(self, proof: Proof, now: float) -> list[Ask]:
        """Somebody else who shares the watch asked. As good as our own question, if it covers what we know."""
        probe = proof.probe
        is_about_us = proof.after <= self.revision <= probe.revision and not probe.newest
        if not is_about_us or not self._stands or self._broke_at is not None or self._is_doubtful:
            return []
        return self._probed(probe, self.revision, now)

    def _compared(self, probe: Probe, after: int, now: float) -> list[Ask]:
        """The registry's past is here: is it the one that we knew when the watch broke?"""
        known = self._broke_at
        if known is None or known.revision != after or not self._stands or self._is_doubtful:
            return []
        self._broke_at = None
        self._timers[Do.PROBE] = now + jittered(self._rng, self._settings.silence, 0.1)
        # It broke more than once, and what was known at first is long past.
        if probe.revision < self.revision:
            self.phase = Phase.SUSPECT
            return self._list()
        if not known.agrees(probe):
            return self._doubt("rewound", _REWRITTEN)
        self.phase = Phase.LIVE
        return []

    # ---- what follows

    def _probe(self) -> Ask:
        known = self._broke_at
        if known is None or not self._stands:
            return Ask(Do.PROBE, self.revision)
        return Ask(Do.PROBE, known.revision, is_past=True)

    def _ask_a_member_again(self, now: float) -> None:
        self._timers[Do.LIST_STALE] = now + jittered(self._rng, 1.0, 0.2)

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

    def _replace(self, listing: Listing) -> None:
        self._records.replace(listing.entries)
        self._note_skipped()

    def _doubt(self, kind: str, text: str) -> list[Ask]:
        """Something is missing in what is known: it is served until a listing replaces it, and no more added to."""
        self._note(kind, text)
        self.phase = Phase.SUSPECT
        self._is_doubtful = True
        return self._list()

    def _note_skipped(self) -> None:
        for text in self._records.take_news():
            self._note("skipped", text)

    def _note(self, kind: str, text: str) -> None:
        self.notices.append(Notice(kind, text))


def _is_final(error: RegistryError) -> bool:
    return isinstance(error, RegistryDenied | Untrusted)
