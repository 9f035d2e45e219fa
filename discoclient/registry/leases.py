"""What happens to a lease, told alike to whoever keeps one: `serving.keeper`, and `control.attendance`."""

from __future__ import annotations

from dataclasses import dataclass

from .protocol import Lease

__all__ = ["Granted", "Renewed"]


@dataclass(frozen=True, slots=True)
class Granted:
    """``sent_at``: when it was asked for, on the monotonic clock; the lease counts from then."""

    lease: Lease
    sent_at: float


@dataclass(frozen=True, slots=True)
class Renewed:
    """As `Granted`, for ``ttl`` seconds more; ``lease`` is its id."""

    ttl: float
    sent_at: float
    lease: int
