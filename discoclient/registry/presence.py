"""The wire format of a caller's presence, and of what it has seen: garbage in is a `BadRecord`, as with instances.

A presence says: this process may call the service; it knows all that happened up to revision ``applied``, and will begin no
request to what drained by then; to these instances it still has so many requests in flight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..model.instance import SCHEMA_VERSION
from .codec import BadRecord, fit, read_object
from .protocol import Entry

__all__ = ["OBSERVED", "Outcomes", "Presence", "decode_presence", "encode_presence", "read_presence"]

OBSERVED = "observed"
"""A field of an instance's record: true if callers should tell what became of their requests to it."""

MOST_BUSY = 30
"""Instances named at most, so that a value stays small. Who has more to finish says so of the others when these are done."""
MAX_HOSTNAME = 255
"""Bytes. Nobody can read a value that is too long, and a caller that can't be read is not waited for."""

MOST_OBSERVED = 10
"""As many are on trial at once at most."""

_NOBODY: Mapping[str, int] = MappingProxyType({})
_NOTHING: Mapping[str, Outcomes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What one caller saw of one instance so far: attempts, and those of them that failed."""

    requests: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One calling process, as it stands in the registry.

    ``busy``: requests in flight, by instance, of those that drain. ``outcomes``: by instance, of those that are `OBSERVED`.
    """

    id: str
    applied: int = 0
    busy: Mapping[str, int] = field(default_factory=lambda: _NOBODY, hash=False)
    outcomes: Mapping[str, Outcomes] = field(default_factory=lambda: _NOTHING, hash=False)
    pid: int | None = None
    hostname: str | None = None
    kind: str = "sdk"

    def has_left(self, instance: str, revision: int) -> bool:
        """Whether it will send nothing more to an *instance* that drains since *revision*, and waits for nothing from it."""
        return self.applied >= revision and not self.busy.get(instance)


def encode_presence(presence: Presence) -> bytes:
    """The value for the presence's key. More than `MOST_BUSY` busy instances: it does not claim to know of their drain."""
    record: dict[str, Any] = {
        "v": SCHEMA_VERSION,
        "id": presence.id,
        "pid": presence.pid,
        "hostname": None if presence.hostname is None else fit(presence.hostname, MAX_HOSTNAME),
        "kind": presence.kind,
        "applied": presence.applied if len(presence.busy) <= MOST_BUSY else 0,
        "busy": dict(sorted(presence.busy.items())[:MOST_BUSY]),
    }
    if presence.outcomes:
        told = sorted(presence.outcomes.items())[:MOST_OBSERVED]
        record["outcomes"] = {id: [each.requests, each.failures] for id, each in told}
    known = {key: value for key, value in record.items() if value is not None}
    return json.dumps(known, ensure_ascii=False).encode()


def decode_presence(value: bytes, *, id: str) -> Presence:
    """The presence in *value*, which stands at the key of client *id*. Raises `BadRecord`."""
    record = read_object(value)
    if not id or "/" in id or record.get("id", id) != id:
        raise BadRecord("key and value do not agree")
    outcomes = record.get("outcomes", {})
    if not isinstance(outcomes, dict) or not all(map(_is_pair, outcomes.values())):
        raise BadRecord("outcomes is not requests and failures by instance")
    applied, busy = record.get("applied", 0), record.get("busy", {})
    if not _is_count(applied):
        raise BadRecord("applied is not a revision")
    if not isinstance(busy, dict) or not all(_is_count(number) for number in busy.values()):
        raise BadRecord("busy is not a number of requests by instance")
    pid, hostname, kind = record.get("pid"), record.get("hostname"), record.get("kind")
    return Presence(
        id=id,
        applied=applied,
        busy=busy,
        outcomes={instance: Outcomes(*pair) for instance, pair in outcomes.items()},
        pid=pid if _is_count(pid) else None,
        hostname=hostname if isinstance(hostname, str) else None,
        kind=kind if isinstance(kind, str) else "sdk",
    )


def read_presence(entry: Entry, range: str) -> Presence:
    """The presence in *entry*, whose key is in *range*. Raises `BadRecord`, also without a lease: nothing would end it."""
    if not entry.lease:
        raise BadRecord("it has no lease")
    return decode_presence(entry.value, id=entry.key[len(range) :])


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
