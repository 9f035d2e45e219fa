"""The guard against mass disappearance: a registry that forgot its services must not take them down.

A wiped etcd, a lease bug or a leader that stalls makes a healthy fleet vanish at once, and without having drained. What
vanishes so is kept as a last resort for a while: it is called only if nothing else is left, is asked who it is, and is dropped
at the first refused connection, so that a service that is really gone says so. Whoever drained is gone, always. (Envoy routes
to what is absent and healthy; Eureka stops evicting when too many renewals are missing.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from .endpoint import Endpoint

__all__ = ["VanishGuard"]

WINDOW = 5.0
"""Seconds within which those who vanish are said to vanish together."""
LEAST = 2
"""One alone may just have died."""
SHARE = 0.5
"""Of the most that were there within the window: if more than this is missing, it is no coincidence."""


class VanishGuard:
    """Remembers who vanished of late, and how many there were."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Endpoint]] = deque()
        self._sizes: deque[tuple[float, int]] = deque()

    @property
    def is_wary(self) -> bool:
        """Whether anybody vanished of late."""
        return bool(self._recent)

    def hold(self, vanished: Collection[Endpoint], remaining: int, now: float) -> list[Endpoint]:
        """Whom to keep, now that *vanished* are gone without a word and *remaining* are there: those of *vanished*, and the
        ones before them, or nobody. Where others have come in their place nothing is missing, and nobody is kept.
        """
        self._recent.extend((now, endpoint) for endpoint in vanished)
        self._sizes.append((now, remaining + len(vanished)))
        for past in (self._recent, self._sizes):
            while past and past[0][0] <= now - WINDOW:
                past.popleft()
        most = max(size for _, size in self._sizes)
        missing = min(most - remaining, len(self._recent))  # who drained is not missing
        if len(self._recent) < LEAST or missing <= SHARE * most:
            return []
        return [endpoint for _, endpoint in self._recent]

    def forget(self, ids: Iterable[str]) -> None:
        """They are back."""
        back = set(ids)
        self._recent = deque((at, endpoint) for at, endpoint in self._recent if endpoint.id not in back)
