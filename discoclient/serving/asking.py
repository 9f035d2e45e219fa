"""Asking an instance, through the registry, to retire or to have another weight. For the background loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ..model.errors import DiscoError, RegistryUnavailable
from ..model.instance import Instance, State
from ..registry.asked import Asked, decode_asked, encode_asked
from ..registry.codec import BadRecord, decode
from ..registry.keys import Keys
from ..registry.protocol import Entry, Registry

__all__ = ["Found", "LastReady", "NotThere", "ask", "find", "find_spare"]

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


class LastReady(DiscoError):
    """Nobody else of the service is ready: callers would get errors."""


async def ask(
    registry: Registry,
    keys: Keys,
    service: str,
    id: str,
    change: Callable[[Asked], Asked],
    *,
    spares: Callable[[], Awaitable[Mapping[str, int]]] | None = None,
) -> None:
    """Have what is asked of the instance changed, in one transaction, only if it is there.

    *spares* gives keys that must not have changed meanwhile, by ``mod_revision``; it is called anew for each try. Raises
    `NotThere`, `RegistryError` if the registry could not take it, and what *spares* raises.
    """
    key, control = keys.instance(service, id), keys.control(service, id)
    for _ in range(TRIES):
        entries = (await registry.list(key)).entries
        if not entries or not entries[0].lease:
            raise NotThere(f"there is no instance {id} of {service}")
        present = next(iter((await registry.list(control)).entries), None)
        value = encode_asked(change(_asked(present)))
        expected = present.mod_revision if present is not None else 0
        unchanged = await spares() if spares is not None else {}
        put = await registry.attach(entries[0], control, value, expected=expected, unchanged=unchanged)
        if put.is_done:
            return
    raise RegistryUnavailable(f"what is asked of {service} {id} changes faster than it can be written")


async def find_spare(
    registry: Registry, keys: Keys, service: str, id: str, *, hostnames: bool
) -> Mapping[str, int]:
    """The keys of another instance that is ready, and not asked to go: as long as they don't change, *id* is not the last one.

    So of two that are asked at the same time, each the other's spare, one is refused. Empty if *id* drains anyway. Raises
    `LastReady`.
    """
    found = await find(registry, keys, service, hostnames=hostnames)
    if any(each.instance.id == id and each.instance.state is State.DRAINING for each in found):
        return {}
    range = keys.controls(service)
    controls = {entry.key[len(range) :]: entry for entry in (await registry.list(range)).entries}
    others = [each for each in found if each.instance.id != id]
    states = []
    for other in others:
        instance, control = other.instance, controls.get(other.instance.id)
        is_leaving = _asked(control).retire is not None
        if instance.state is State.READY and instance.weight > 0 and not is_leaving:
            return {
                other.entry.key: other.entry.mod_revision,
                keys.control(service, instance.id): control.mod_revision if control is not None else 0,
            }
        states.append("asked to retire" if is_leaving else str(instance.state))
    rest = f"the others are {', '.join(sorted(states))}" if states else "there is no other"
    raise LastReady(
        f"{id} is the last instance of {service} that is ready ({rest}): callers would get errors. "
        "Start another one first, or give --force"
    )


def _asked(present: Entry | None) -> Asked:
    try:
        return decode_asked(present.value) if present is not None else Asked()
    except BadRecord:  # whatever it was, it was not heeded
        return Asked()
