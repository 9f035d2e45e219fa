"""The records of one range: what the registry holds, decoded, and folded forward a whole revision at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from .codec import BadRecord
from .protocol import Deletion, Entry, Probe

__all__ = ["Extent", "Records", "key_text"]

T = TypeVar("T")

Stamp: TypeAlias = tuple[int, int, int]

LONGEST = 200
"""Characters of a key that people get to see as a whole: more than any valid one has under a usual prefix."""
SHOWN = 100
"""Characters that they get to see of a longer one: anybody may write one, and etcd takes keys of a megabyte."""


def key_text(key: str) -> str:
    """*key* as a line of a log takes it: in quotes, in ASCII, and if it is long its beginning and its length."""
    return ascii(key) if len(key) <= LONGEST else f"{key[:SHOWN]!a}... ({len(key)} characters)"


@dataclass(frozen=True, slots=True)
class Extent:
    """Enough of what was known at a revision to tell that history from another one."""

    revision: int
    count: int
    newest: Mapping[str, Stamp]
    """The keys of the newest revision among them, usually one."""

    def agrees(self, probe: Probe) -> bool:
        last = probe.last
        if self.count != probe.count or (last is None) != (not self.newest):
            return False
        return last is None or self.newest.get(last.key) == _stamp(last)


class Records(Generic[T]):
    """What is there, by key. A change builds a new mapping, and decodes only what changed."""

    def __init__(self, decode: Callable[[Entry], T]) -> None:
        self._decode = decode
        self._stamps: dict[str, Stamp] = {}
        self.by_key: Mapping[str, T] = {}
        """Replaced on a change, never changed."""
        self.skipped: dict[str, str] = {}
        """Why a key has no record."""
        self._touched: set[str] = set()
        self._departed: dict[str, T] = {}
        self._news: list[str] = []

    @property
    def count(self) -> int:
        """How many keys the range has, the skipped ones too."""
        return len(self._stamps)

    def extent(self, revision: int) -> Extent:
        """How far this goes, as of *revision*."""
        newest = max((stamp[0] for stamp in self._stamps.values()), default=0)
        keys = {key: stamp for key, stamp in self._stamps.items() if stamp[0] == newest}
        return Extent(revision, self.count, keys)

    def take_touched(self) -> frozenset[str]:
        """The keys whose records changed since this was last asked: so that a change costs what it changes."""
        touched, self._touched = frozenset(self._touched), set()
        return touched

    def take_departed(self) -> dict[str, T]:
        """The last records of the keys that were deleted since this was last asked, also where they changed just before."""
        departed, self._departed = self._departed, {}
        return departed

    def take_news(self) -> list[str]:
        """What there is to tell of keys that are skipped, once for each reason."""
        news, self._news = self._news, []
        return news

    def apply(self, changes: Iterable[Entry | Deletion], after: int) -> int | None:
        """Apply what is newer than revision *after*; the revision that this leads to.

        ``None``, and nothing applied, when the changes can't be: out of order, or the deletion of an unknown key.
        """
        new = [change for change in changes if change.mod_revision > after]
        known = set[str]()
        last = after
        for change in new:
            if change.mod_revision < last:
                return None
            last = change.mod_revision
            if isinstance(change, Entry):
                known.add(change.key)
            elif change.key not in self._stamps and change.key not in known:
                return None
        self._fold(new)
        return last

    def replace(self, entries: tuple[Entry, ...]) -> None:
        """Become *entries*, by difference."""
        gone = self._stamps.keys() - {entry.key for entry in entries}
        new = [entry for entry in entries if self._stamps.get(entry.key) != _stamp(entry)]
        self._fold([*(Deletion(key, 0) for key in gone), *new])

    def misses(self, entries: Iterable[Entry], revision: int) -> bool:
        """Whether *entries* has a change up to *revision* that is not in here."""
        return any(
            entry.mod_revision <= revision and self._stamps.get(entry.key) != _stamp(entry)
            for entry in entries
        )

    def _fold(self, changes: list[Entry | Deletion]) -> None:
        records: dict[str, T] | None = None
        for change in changes:
            record = self._read(change)
            if record == self.by_key.get(change.key) and records is None:
                continue  # a skipped value that changed, or a record put anew as it was: nobody has to know
            records = dict(self.by_key) if records is None else records
            self._touched.add(change.key)
            if record is None:
                last = records.pop(change.key, None)
                if last is not None:
                    self._departed[change.key] = last
            else:
                records[change.key] = record
        if records is not None:
            self.by_key = records

    def _read(self, change: Entry | Deletion) -> T | None:
        """The record after *change*; ``None`` if there is none."""
        if isinstance(change, Deletion):
            self._stamps.pop(change.key, None)
            self.skipped.pop(change.key, None)
            return None
        self._stamps[change.key] = _stamp(change)
        try:
            record = self._decode(change)
        except BadRecord as error:
            reason = str(error)
            if self.skipped.get(change.key) != reason:
                self.skipped[change.key] = reason
                self._news.append(f"{key_text(change.key)} is skipped: {reason}")
            return None
        self.skipped.pop(change.key, None)
        return record


def _stamp(entry: Entry) -> Stamp:
    """Enough to tell one state of a key from another, also after a restored backup counted to the same revision."""
    return entry.mod_revision, entry.lease, hash(entry.value)
