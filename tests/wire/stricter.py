"""Where we do otherwise than httpx, and why: the only differences that are let through.

Each is stricter (it refuses what httpx reads, or gives up a connection that httpx keeps) or as safe (`How.KEEPS`). A case that is named here must
differ in exactly this way; one that no longer differs has to go.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["STRICTER", "How", "Stricter", "allowed"]


class How(enum.Enum):
    REFUSES = "an error where httpx takes the response for good"
    CLOSES = "the same answer, and the connection is not used again"
    CALLS_IT = "another error of httpx than httpx raises"
    KEEPS = "the same error of a body that was read to its end, so that its connection is good for another request"
    GIVES_LESS = "the same error, and less of the body before it"


@dataclass(frozen=True, slots=True)
class Stricter:
    """``error``: ours, for `How.REFUSES` and `How.CALLS_IT`. ``everywhere``: it is so whichever engine carries requests."""

    how: How
    why: str
    error: str = "RemoteProtocolError"
    everywhere: bool = False


def allowed(case: str, way: str, *, is_native: bool) -> Stricter | None:
    """What the table lets through for *case*, by its name alone or for one way to wait: ``a case [asyncio]``."""
    found = STRICTER.get(f"{case} [{way}]") or STRICTER.get(case)
    return found if found is not None and (is_native or found.everywhere) else None


_READ_TO_ITS_END = Stricter(
    How.KEEPS,
    "httpx finds the fault while it decodes; we have read the whole body by then, and httpx has not",
    everywhere=True,
)

STRICTER: Mapping[str, Stricter] = {
    "coded: broken gzip": _READ_TO_ITS_END,
    "coded: a wrong checksum": _READ_TO_ITS_END,
    "coded: broken deflate": _READ_TO_ITS_END,
    "coded in chunks: broken gzip": _READ_TO_ITS_END,
}
"""By the case's name, as the tests have it."""
