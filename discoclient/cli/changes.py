"""What happened between two states of the registry, and whether the registry is heard at all. Pure: `watch` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model.instance import Instance
from ..registry.codec import to_record

__all__ = ["Change", "Contact", "changes"]


@dataclass(frozen=True, slots=True)
class Change:
    """``sign`` is ``+`` for an instance that is there now, ``~`` for one that changed, ``-`` for one that is gone.

    ``instance`` is as it is now, or as it was last; ``fields`` has what was and what is, by the record's field names.
    """

    sign: str
    instance: Instance
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def changes(before: Mapping[str, Instance], after: Mapping[str, Instance]) -> Iterator[Change]:
    """From *before* to *after*, both by key: first what came, then what changed, then what left, each in order of the keys."""
    for key in sorted(after.keys() - before.keys()):
        yield Change("+", after[key])
    for key in sorted(after.keys() & before.keys()):
        if after[key] is not before[key] and (fields := _fields(before[key], after[key])):
            yield Change("~", after[key], fields)
    for key in sorted(before.keys() - after.keys()):
        yield Change("-", before[key])


class Contact:
    """Notices when the registry is not heard for ``patience`` seconds, and when it is heard again.

    One member less is no news: the next one is asked within a moment.
    """

    def __init__(self, *, patience: float = 2.0) -> None:
        self._patience = patience
        self._silent_since: float | None = None
        self.is_lost = False

    def hear(self, is_live: bool, now: float) -> bool:
        """Take in how it is at *now*; whether ``is_lost`` changed with it."""
        if is_live:
            self._silent_since = None
            was_lost, self.is_lost = self.is_lost, False
            return was_lost
        if self._silent_since is None:
            self._silent_since = now
        if self.is_lost or now - self._silent_since < self._patience:
            return False
        self.is_lost = True
        return True


def _fields(before: Instance, after: Instance) -> dict[str, tuple[Any, Any]]:
    was, now = to_record(before), to_record(after)
    names = [*now, *(name for name in was if name not in now)]
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}
