"""How far the drains of a service are: what its callers say of those that leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..control.hub import hub
from ..model.errors import RegistryError
from ..model.instance import Instance, State
from ..registry.address import RegistryAddress
from ..registry.codec import BadRecord
from ..registry.presence import Presence, read_presence
from ..registry.protocol import Entry

__all__ = ["Leaving", "find_leaving"]


@dataclass(frozen=True, slots=True)
class Leaving:
    """One instance that drains: its callers, how many of them have left, and how many requests they still wait for."""

    callers: int
    acks: int
    in_flight: int


def find_leaving(
    address: RegistryAddress,
    service: str,
    instances: Sequence[Instance],
    origins: Mapping[str, tuple[int, int]],
) -> dict[str, Leaving]:
    """By id, for those of *instances* that drain. Empty when it can't be learnt: then there is nothing to say of it."""
    draining = [each.id for each in instances if each.state is State.DRAINING and each.id in origins]
    if not draining:
        return {}
    shared, range = hub(), address.keys.clients(service)
    try:
        entries = shared.background.run(shared.registry(address).list(range)).entries
    except RegistryError:
        return {}
    callers = [presence for entry in entries if (presence := _read(entry, range)) is not None]
    return {
        id: Leaving(
            callers=len(callers),
            acks=sum(each.has_left(id, origins[id][1]) for each in callers),
            in_flight=sum(each.busy.get(id, 0) for each in callers),
        )
        for id in draining
    }


def _read(entry: Entry, range: str) -> Presence | None:
    try:
        return read_presence(entry, range)
    except BadRecord:
        return None
