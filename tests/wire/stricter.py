"""Where we do otherwise than httpx, and why: the only differences that are let through.

Each is stricter: it refuses what httpx reads, or gives up a connection that httpx keeps. A case that is named here must
differ in exactly this way; one that no longer differs has to go.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["STRICTER", "How", "Stricter"]


class How(enum.Enum):
    REFUSES = "an error where httpx takes the response for good"
    CLOSES = "the same answer, and the connection is not used again"
    CALLS_IT = "another error of httpx than httpx raises"
    GIVES_LESS = "the same error, and less of the body before it"


@dataclass(frozen=True, slots=True)
class Stricter:
    """``error``: ours, for `How.REFUSES` and `How.CALLS_IT`."""

    how: How
    why: str
    error: str = "RemoteProtocolError"


STRICTER: Mapping[str, Stricter] = {}
"""By the case's name, as the tests have it."""
