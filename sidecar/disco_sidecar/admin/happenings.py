"""What happened lately, for people: discoclient's events in words, newest first.

It is a hook (``hooks=[happenings]``): what matters to somebody who looks is kept, what every request brings is not. ``add`` is
for the sidecar's own news.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from discoclient.model.events import (
    BudgetExhausted,
    EjectionSkipped,
    Event,
    InstanceEjected,
    InstancesHeld,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)
from discoclient.model.instance import Instance

__all__ = ["Happenings", "iso"]

KEPT = 100
"""How many are remembered."""

logger = logging.getLogger("discoclient.sidecar")

_PHASES = {
    "empty": "nothing is known yet",
    "syncing": "asking the registry",
    "live": "the registry's watch stands",
    "suspect": "the registry's watch broke; going on with what is known",
}


class Happenings:
    """Safe to use from many threads.

    Args:
        wall: the wall clock in seconds since 1970, to be shown and never reckoned with. Default ``time.time``.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = Lock()
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._listeners: list[Callable[[dict[str, Any]], None]] = []

    def on_event(self, event: Event) -> None:
        """As discoclient's `Hook` wants it."""
        found = _told(event)
        if found is not None:
            self.add(*found)

    def add(self, service: str | None, kind: str, text: str) -> None:
        """Something happened. What happens again and again (the same words as the newest) is one entry that counts
        (``times``).
        """
        at = iso(self._wall())
        with self._lock:
            newest = self._kept[0] if self._kept else None
            if newest is not None and (newest["service"], newest["kind"], newest["text"]) == (
                service,
                kind,
                text,
            ):
                event = {**newest, "at": at, "times": newest["times"] + 1}
                self._kept[0] = event
            else:
                event = {"at": at, "service": service, "kind": kind, "text": text, "times": 1}
                self._kept.appendleft(event)
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("one who listens to what happens failed")

    def recent(self) -> list[dict[str, Any]]:
        """The newest first. Not to be changed."""
        with self._lock:
            return list(self._kept)

    def subscribe(self, listener: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Tell *listener* every event, in the thread where it happens, until the function returned is called."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = [each for each in self._listeners if each is not listener]

        return unsubscribe


def iso(seconds: float) -> str:
    """*seconds* since 1970 as ``2026-01-31T12:00:00.000Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(event: Event) -> tuple[str, str, str] | None:
    """Service, kind, words; ``None`` for what is not worth an entry."""
    match event:
        case InstanceEjected(service, instance, reason, seconds):
            return service, "ejected", f"{_name(instance)} ejected for {seconds:.1f} s ({reason})"
        case EjectionSkipped(service, instance, reason, because):
            return (
                service,
                "spared",
                f"{_name(instance)} was due for ejection ({reason}), and was spared: {because}",
            )
        case InstanceUnejected(service, instance):
            return service, "recovered", f"{_name(instance)} passed a probe and is called again"
        case PanicChanged(service, is_panic, ejected, total):
            many = f"{ejected} of {total} look bad"
            return service, "panic", f"{many}: ejections are distrusted" if is_panic else f"over; {many}"
        case BudgetExhausted(service, reason):
            return service, "budget", f"not tried again ({reason}): too many retries of late"
        case RequestThrottled(service, policy):
            return service, "throttled", f"requests are refused here ({policy})"
        case PhaseChanged(service, phase):
            return service, "phase", f"{phase}: {_PHASES.get(phase, 'unheard of')}"
        case InstancesHeld(service, ids, seconds):
            return (
                service,
                "held",
                f"{_count(ids)} vanished at once; kept as a last resort for {seconds:.0f} s",
            )
        case SnapshotChanged(service=service, total=total):
            parts = [
                f"{verb} {_ids(ids)}"
                for verb, ids in (("new", event.added), ("gone", event.removed), ("changed", event.changed))
                if ids
            ]
            doubt = ", perhaps old" if event.is_suspect else ""
            return service, "change", f"{'; '.join(parts) or 'read again'} ({total} known{doubt})"
    return None


def _name(instance: Instance) -> str:
    return f"{instance.address} ({instance.id[:8]})"


def _ids(ids: tuple[str, ...]) -> str:
    shown = ", ".join(id[:8] for id in ids[:3])
    return shown if len(ids) <= 3 else f"{shown} and {len(ids) - 3} more"


def _count(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} instances"
