"""What happens to a registration, and what its keeper asks for: the words between `serving.keeper` and its shell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ..model.errors import RegistryError
from ..registry.leases import Granted, Renewed
from ..registry.protocol import Entry, Put

__all__ = [
    "Ask",
    "Event",
    "Failed",
    "Granted",
    "PutAnswer",
    "Renewed",
    "Revoked",
    "Seen",
    "State",
    "Step",
]


class State(StrEnum):
    """What a registration can say of itself."""

    STARTING = "starting"
    REGISTERED = "registered"
    LOST = "lost"
    """Not in the registry just now; it is being put back."""
    DRAINING = "draining"
    GONE = "gone"


class Step(StrEnum):
    """What the keeper asks for. At most one of each is under way."""

    GRANT = "grant"
    PUT = "put"
    RENEW = "renew"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class Ask:
    step: Step
    value: bytes = b""
    expected: int = 0


@dataclass(frozen=True, slots=True)
class PutAnswer:
    put: Put
    value: bytes
    lease: int


@dataclass(frozen=True, slots=True)
class Revoked:
    lease: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the own key holds as of ``revision``."""

    entry: Entry | None
    revision: int


@dataclass(frozen=True, slots=True)
class Failed:
    """``lease`` is the one that was to be renewed, put under or revoked; 0 when a new one was asked for."""

    step: Step
    error: RegistryError
    lease: int = 0


Event: TypeAlias = Granted | Renewed | PutAnswer | Seen | Failed | Revoked
