"""What stands in etcd below a registry's prefix and what stood there, asked without any of discoclient's client code."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import httpx

from discoclient.dev import EtcdCluster, EtcdMember
from tests.faults.raw import Raw, RawKey

__all__ = ["Caller", "Event", "Keys"]

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``value`` is None for a deletion."""

    revision: int
    key: str
    value: dict[str, Any] | None
    lease: int


class Keys(Raw):
    """The keys under the prefix of *url*, and their history since this object was made."""

    def __init__(self, cluster: EtcdCluster, url: str) -> None:
        super().__init__(cluster, url)
        self.cluster = cluster
        self.prefix = self.keys.service("x").removesuffix("services/x/")
        self._since = cluster.leader().status().revision

    def control_key(self, id: str, service: str = "experiment") -> str:
        return f"{self.prefix}control/{service}/{id}"

    def control(self, id: str, service: str = "experiment") -> RawKey | None:
        key = self.control_key(id, service)
        return next((found for found in self.below("control", service) if found.key == key), None)

    def clients(self, service: str = "experiment") -> dict[str, tuple[dict[str, Any], RawKey]]:
        """The presence of every caller, by its id: the value, and the key."""
        found = self.below("clients", service)
        return {each.key.rpartition("/")[2]: (json.loads(each.value), each) for each in found}

    def below(self, what: str, service: str = "experiment", *, at: EtcdMember | None = None) -> list[RawKey]:
        return self._range(f"{self.prefix}{what}/{service}/", at, serializable=False)

    def record(self, id: str, service: str = "experiment") -> dict[str, Any] | None:
        """The record of an instance, as it stands."""
        found = self.instance(service, id)
        return None if found is None else json.loads(found.value)

    def records(self, service: str = "experiment") -> list[dict[str, Any]]:
        """Those of all instances, the oldest first."""
        found = sorted(self.instances(service).values(), key=lambda each: each.create_revision)
        return [json.loads(each.value) for each in found]

    def ask(self, id: str, value: Mapping[str, object] | bytes, service: str = "experiment") -> int:
        """Put a control key under the instance's lease, by hand. Returns the revision."""
        found = self.instance(service, id)
        assert found is not None
        encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.put(self.control_key(id, service), encoded, lease=found.lease)

    def history(self) -> list[Event]:
        """Every change below the prefix so far, in order."""
        marker = f"{self.prefix}marker"
        revision = self.put(marker, b"{}")
        member = self.cluster.leader()
        wanted = {
            "key": _encode(self.prefix),
            "range_end": _encode(self.prefix[:-1] + "0"),
            "start_revision": str(self._since + 1),
        }
        events: list[Event] = []
        with httpx.stream(
            "POST",
            f"http://127.0.0.1:{member.client_port}/v3/watch",
            content=json.dumps({"create_request": wanted}),
            timeout=_TIMEOUT,
            trust_env=False,
        ) as answer:
            for line in answer.iter_lines():
                result = json.loads(line)["result"]
                assert not result.get("canceled"), result
                events += map(_event, result.get("events", []))
                if events and events[-1].revision >= revision:
                    break
        return [event for event in events if event.key != marker]

    def states(self, id: str, service: str = "experiment") -> list[str]:
        """The states the instance has had, one after the other, and ``gone``."""
        key = self.keys.instance(service, id)
        values = [event.value for event in self.history() if event.key == key]
        told = ["gone" if value is None else str(value["state"]) for value in values]
        return [state for state, _ in groupby(told)]

    def state(self, id: str, service: str = "experiment") -> str:
        """The state as it is, or ``gone``."""
        record = self.record(id, service)
        return "gone" if record is None else str(record["state"])


class Caller:
    """A caller's presence, written by hand: it says what it is told to, or nothing."""

    def __init__(self, keys: Keys, *, applied: int = 0, ttl: int = 600, service: str = "experiment") -> None:
        self.id = uuid.uuid4().hex
        self._keys = keys
        self._key = f"{keys.prefix}clients/{service}/{self.id}"
        self.lease = keys.grant(ttl)
        self.tell(applied)

    def tell(self, applied: int, busy: Mapping[str, int] | None = None) -> None:
        """Say up to which revision it knows, and how many requests it still has in flight, by instance."""
        value = {
            "v": 1,
            "id": self.id,
            "pid": 1,
            "hostname": "elsewhere",
            "kind": "sdk",
            "applied": applied,
            "busy": dict(busy or {}),
        }
        self._keys.put(self._key, json.dumps(value).encode(), lease=self.lease)

    def leave(self) -> None:
        self._keys.revoke(self.lease)


def _event(found: Mapping[str, Any]) -> Event:
    pair = found["kv"]
    value = None
    if found.get("type", "PUT") == "PUT":
        try:
            value = json.loads(base64.b64decode(pair.get("value", "")))
        except ValueError:
            value = {}
    return Event(
        int(pair["mod_revision"]), base64.b64decode(pair["key"]).decode(), value, int(pair.get("lease", 0))
    )


def _encode(key: str) -> str:
    return base64.b64encode(key.encode()).decode()
