"""The chronicle of a service: what happened to its instances, told from the registry's own history. Decisions only.

The history of etcd has an order, and no times; times are what the instances wrote into their records, by their own clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.instance import Instance, State
from ..registry.asked import decode_asked
from ..registry.codec import BadRecord, decode
from ..registry.keys import Keys
from ..registry.protocol import Deletion, Entry

__all__ = ["STATE_AT", "Happening", "chronicle"]

STATE_AT = "state_at"
"""A field of the record: when the instance came to its state, by its own clock (RFC 3339). Only ever shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """*event* is ``registered``, ``put back``, ``ready``, ``unready``, ``draining``, ``weight``, ``asked``, ``gone`` (it had
    drained) or ``lost`` (it had not: it died, or was cut off, and its lease ended). ``at``: when, if somebody said.
    """

    revision: int
    event: str
    instance: Instance
    at: str | None = None
    detail: str = ""


def chronicle(
    changes: Iterable[Entry | Deletion], *, keys: Keys, service: str, hostnames: bool
) -> list[Happening]:
    """What the *changes* of the service's keys, and of what is asked of its instances, tell, in their order."""
    told: list[Happening] = []
    prefix, controls = keys.service(service), keys.controls(service)
    known: dict[str, Instance] = {}
    early: dict[str, list[Entry]] = {}  # asked of whom a history that was cut off knows only from later
    present: set[str] = set()
    for change in sorted(changes, key=lambda each: each.mod_revision):
        if change.key.startswith(controls):
            id = change.key[len(controls) :]
            if isinstance(change, Entry):
                if id in known:
                    told += _asked(change, known[id])
                else:
                    early.setdefault(id, []).append(change)
            continue
        id = change.key[len(prefix) :]
        if isinstance(change, Deletion):
            if id in present:
                present.discard(id)
                last = known[id]
                event = "gone" if last.state is State.DRAINING else "lost"
                told.append(Happening(revision=change.mod_revision, event=event, instance=last))
            continue
        try:
            instance = decode(change.value, service=service, id=id, hostnames=hostnames)
        except BadRecord:
            continue
        told += _changed(change, instance, known.get(id), is_present=id in present)
        for asked in early.pop(id, ()):
            told += _asked(asked, instance)
        known[id] = instance
        present.add(id)
    return sorted(told, key=lambda each: each.revision)


def _changed(
    entry: Entry, instance: Instance, before: Instance | None, *, is_present: bool
) -> Iterable[Happening]:
    at = instance.extra.get(STATE_AT)
    at = at if isinstance(at, str) else None
    revision = entry.mod_revision
    if before is None:
        yield Happening(
            revision=min(revision, entry.create_revision),
            event="registered",
            instance=instance,
            at=instance.registered_at,
        )
        if instance.state is State.READY:
            return
    elif not is_present:
        yield Happening(revision=revision, event="put back", instance=instance)
    elif before.weight != instance.weight:
        detail = f"{before.weight:g} -> {instance.weight:g}"
        yield Happening(revision=revision, event="weight", instance=instance, detail=detail)
    if before is None or before.state is not instance.state:
        yield Happening(revision=revision, event=str(instance.state), instance=instance, at=at)


def _asked(entry: Entry, instance: Instance) -> Iterable[Happening]:
    try:
        asked = decode_asked(entry.value)
    except BadRecord:
        return
    if asked.retire is not None:
        yield Happening(
            revision=entry.mod_revision, event="asked", instance=instance, detail=f"to retire: {asked.retire}"
        )
