"""What the watch machine is told and what it asks for: its phases, asks, events, notices and settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ..model.errors import RegistryError
from .protocol import Batch, Listing, Probe

__all__ = ["Ask", "Broke", "Do", "Event", "Failed", "Listed", "Notice", "Phase", "Probed", "WatchSettings"]


class Phase(StrEnum):
    """How much the machine's knowledge is worth."""

    EMPTY = "empty"
    SYNCING = "syncing"
    LIVE = "live"
    SUSPECT = "suspect"


class Do(StrEnum):
    """What the machine asks for. Doing one anew replaces the one that is still under way."""

    LIST = "list"
    LIST_STALE = "list-stale"
    WATCH = "watch"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Ask:
    """Do this; ``after`` is the revision to watch or probe from; ``is_past``: probe that very revision."""

    what: Do
    after: int = 0
    is_past: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    listing: Listing
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class Probed:
    probe: Probe
    after: int
    is_past: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A list or a probe failed."""

    what: Do
    error: RegistryError


@dataclass(frozen=True, slots=True)
class Broke:
    """The watch ended, or could not be opened."""

    error: RegistryError


Event: TypeAlias = Listed | Probed | Failed | Broke | Batch


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator may want to know: ``kind`` is one of broke, compacted, rewound, stalled, repaired, skipped."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Times in seconds. ``silence``: without a word for so long, ask. ``stall``: how late an event may be that a probe proved
    to exist. ``resync``: list again now and then, whatever the watch says (client-go and linkerd users both learnt to want
    this). ``stale_after``: without a quorum for so long at the start, take one member's word. ``backoff_*``: full jitter.
    """

    silence: float = 10.0
    stall: float = 2.0
    resync: float = 300.0
    stale_after: float = 2.5
    backoff_first: float = 0.2
    backoff_cap: float = 2.0
    healthy_after: float = 5.0
