"""Asking an instance, through the registry, to retire or to have another weight. For the background loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..model.errors import DiscoError, RegistryUnavailable
from ..model.instance import Instance
from ..registry.asked import Asked, decode_asked, encode_asked
from ..registry.codec import BadRecord, decode
from ..registry.keys import Keys
from ..registry.protocol import Entry, Registry

__all__ = ["Found", "NotThere", "ask", "find"]

TRIES = 10
"""Somebody else may ask at the same time, and the instance may change its record meanwhile."""


class NotThere(DiscoError):
    """There is no such instance, or not any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """An instance, with the entry that it stands in."""

    instance: Instance
    entry: Entry

    @property
    def generation(self) -> int:
        """The revision at which it registered; smaller is older. The registry's own order, and no clock."""
        return self.entry.create_revision


async def find(registry: Registry, keys: Keys, service: str, *, hostnames: bool) -> list[Found]:
    """The instances of *service*, linearizable, the oldest first. What is no valid record is left out."""
    prefix = keys.service(service)
    found = []
    for entry in (await registry.list(prefix)).entries:
        try:
            instance = decode(entry.value, service=service, id=entry.key[len(prefix) :], hostnames=hostnames)
        except BadRecord:
            continue
        if entry.lease:
            found.append(Found(instance, entry))
    return sorted(found, key=lambda each: each.generation)


async def ask(
    registry: Registry, keys: Keys, service: str, id: str, change: Callable[[Asked], Asked]
) -> None:
    """Have what is asked of the instance changed, in one transaction, only if it is there.

    Raises `NotThere`, and `RegistryError` if the registry could not take it.
    """
    key, control = keys.instance(service, id), keys.control(service, id)
    for _ in range(TRIES):
        entries = (await registry.list(key)).entries
        if not entries or not entries[0].lease:
            raise NotThere(f"there is no instance {id} of {service}")
        present = next(iter((await registry.list(control)).entries), None)
        value = encode_asked(change(_asked(present)))
        expected = present.mod_revision if present is not None else 0
        if (await registry.attach(entries[0], control, value, expected=expected)).is_done:
            return
    raise RegistryUnavailable(f"what is asked of {service} {id} changes faster than it can be written")


def _asked(present: Entry | None) -> Asked:
    try:
        return decode_asked(present.value) if present is not None else Asked()
    except BadRecord:  # whatever it was, it was not heeded
        return Asked()
