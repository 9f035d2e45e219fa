"""What really stands in etcd, and how somebody else would change it: asked without any of our client's code."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, replace
from typing import Any

from discoclient import Instance, State
from discoclient.dev import EtcdCluster, EtcdMember
from discoclient.registry.address import RegistryAddress
from discoclient.registry.codec import encode

__all__ = ["Raw", "RawKey"]

_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class RawKey:
    """One key as etcd holds it."""

    key: str
    value: bytes
    lease: int
    create_revision: int
    mod_revision: int
    version: int


class Raw:
    """The keys under the prefix of *url*, through the gateway of one member (default: whichever leads)."""

    def __init__(self, cluster: EtcdCluster, url: str) -> None:
        self._cluster = cluster
        self.keys = RegistryAddress.parse(url).keys

    def instances(
        self, service: str, *, at: EtcdMember | None = None, serializable: bool = False
    ) -> dict[str, RawKey]:
        """The keys of *service*, by instance id. *serializable*: what that member knows, without asking the others."""
        prefix = self.keys.service(service)
        return {found.key.removeprefix(prefix): found for found in self._range(prefix, at, serializable)}

    def instance(self, service: str, id: str, *, at: EtcdMember | None = None) -> RawKey | None:
        return self.instances(service, at=at).get(id)

    def add(self, service: str, *, at: EtcdMember | None = None, port: int = 9, ttl: int = 600) -> Instance:
        """Put an instance under a lease of its own, as a registrar in another language would."""
        instance = Instance(service=service, id=uuid.uuid4().hex, host="127.0.0.1", port=port)
        self.put(
            self.keys.instance(service, instance.id), encode(instance), lease=self.grant(ttl, at=at), at=at
        )
        return instance

    def drain(self, instance: Instance) -> None:
        """Have it say that it leaves, under the lease that it has."""
        key = self.instances(instance.service)[instance.id]
        value = encode(replace(instance, state=State.DRAINING))
        self.put(self.keys.instance(instance.service, instance.id), value, lease=key.lease)

    def put(self, key: str, value: bytes, *, lease: int = 0, at: EtcdMember | None = None) -> int:
        """Returns the revision."""
        body = {"key": _encode(key), "value": base64.b64encode(value).decode(), "lease": str(lease)}
        return int(self._call("/v3/kv/put", body, at)["header"]["revision"])

    def delete(self, key: str, *, at: EtcdMember | None = None) -> int:
        """Returns the revision."""
        return int(self._call("/v3/kv/deleterange", {"key": _encode(key)}, at)["header"]["revision"])

    def grant(self, ttl: int, *, at: EtcdMember | None = None) -> int:
        return int(self._call("/v3/lease/grant", {"TTL": str(ttl)}, at)["ID"])

    def revoke(self, lease: int, *, at: EtcdMember | None = None) -> None:
        self._call("/v3/lease/revoke", {"ID": str(lease)}, at)

    def time_to_live(self, lease: int, *, at: EtcdMember | None = None) -> int:
        """Seconds; -1 if there is no such lease (any more)."""
        return int(self._call("/v3/lease/timetolive", {"ID": str(lease)}, at).get("TTL", 0))

    def _range(self, prefix: str, at: EtcdMember | None, serializable: bool) -> list[RawKey]:
        body = {"key": _encode(prefix), "range_end": _encode(prefix[:-1] + "0"), "serializable": serializable}
        return [
            RawKey(
                base64.b64decode(found["key"]).decode(),
                base64.b64decode(found.get("value", "")),
                int(found.get("lease", 0)),
                int(found["create_revision"]),
                int(found["mod_revision"]),
                int(found["version"]),
            )
            for found in self._call("/v3/kv/range", body, at).get("kvs", [])
        ]

    def _call(self, path: str, body: dict[str, Any], at: EtcdMember | None) -> dict[str, Any]:
        member = at or self._cluster.leader()
        return member.gateway.call(path, body, timeout=_TIMEOUT)


def _encode(key: str) -> str:
    return base64.b64encode(key.encode()).decode()
