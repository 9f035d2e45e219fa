"""The guard against mass disappearance: a registry that forgot its services must not take them down.

A wiped etcd, a lease bug or a leader that stalls makes a healthy fleet vanish at once, and without having drained. What
vanishes so is kept as a last resort for a while: it is called only if nothing else is left, is asked who it is, and is dropped
at the first refused connection, so that a service that is really gone says so. Whoever drained is gone, always. (Envoy routes
to what is absent and healthy; Eureka stops evicting when too many renewals are missing.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from .endpoint import Endpoint

__all__ = ["VanishGuard"]

WINDOW = 5.0
"""Seconds within which those who vanish are said to vanish together."""
LEAST = 2
"""One alone may just have died."""
SHARE = 0.5
"""Of what was there at the beginning of the window: more than this is no coincidence."""


class VanishGuard:
    """Remembers who vanished of late."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Endpoint]] = deque()

    @property
    def is_wary(self) -> bool:
        """Whether anybody vanished of late."""
        return bool(self._recent)

    def hold(self, vanished: Iterable[Endpoint], remaining: int, now: float) -> list[Endpoint]:
        """Whom to keep, now that *vanished* are gone without a word and *remaining* are left: those of *vanished*, or the
        ones before them too, or nobody.
        """
        self._recent.extend((now, endpoint) for endpoint in vanished)
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()
        gone = len(self._recent)
        if gone < LEAST or gone <= SHARE * (gone + remaining):
            return []
        return [endpoint for _, endpoint in self._recent]

    def forget(self, ids: Iterable[str]) -> None:
        """They are back."""
        back = set(ids)
        self._recent = deque((at, endpoint) for at, endpoint in self._recent if endpoint.id not in back)
