"""How long ago, for people: ``3m``. Wall clocks of other hosts are only ever shown."""

from __future__ import annotations

from datetime import UTC, datetime

from ..model.instance import Instance

__all__ = ["age_of", "age_text", "duration_text"]

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def age_of(instance: Instance, now: datetime) -> float | None:
    """Seconds since *instance* says that it was registered, 0 if its clock is ahead of ours; ``None`` if it does not say."""
    try:
        registered_at = datetime.fromisoformat(instance.registered_at or "")
    except ValueError:
        return None
    if registered_at.tzinfo is None:
        registered_at = registered_at.replace(tzinfo=UTC)
    return max(0.0, (now - registered_at).total_seconds())


def age_text(seconds: float | None) -> str:
    """``45s``, ``3m``, ``5h``, ``12d``: the greatest unit that fits, rounded down; ``-`` for unknown."""
    if seconds is None:
        return "-"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def duration_text(seconds: float) -> str:
    """``0.4 ms``, ``12 ms``, ``3.2 s``."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
