"""Putting what a test wants into a registry, valid or not, and reading what stands there."""

from __future__ import annotations

from discoclient import Instance, connect
from discoclient.control.hub import find_address, hub
from discoclient.registry.codec import encode
from discoclient.registry.protocol import Entry, Lease, Registry

__all__ = ["Records", "instance"]


def instance(service: str, id: str, **fields: object) -> Instance:
    """An instance with a fixed address, and *fields*."""
    return Instance(**{"service": service, "id": id, "host": "10.0.0.5", "port": 8000} | fields)  # type: ignore[arg-type]


class Records:
    """The records below one registry URL. What is put lives as long as its lease: `LEASE` seconds, or until `remove`."""

    LEASE = 120.0

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = find_address(url)
        self._leases: dict[str, Lease] = {}

    def put(self, *instances: Instance) -> None:
        for each in instances:
            key = self._address.keys.instance(each.service, each.id)
            self.put_raw(key, encode(each))

    def put_raw(self, key: str, value: bytes) -> None:
        registry = self._registry()

        async def act() -> None:
            lease = self._leases.get(key) or await registry.grant(self.LEASE)
            self._leases[key] = lease
            present = {entry.key: entry.mod_revision for entry in (await registry.list(key)).entries}
            put = await registry.put(key, value, lease=lease, expected=present.get(key, 0))
            assert put.is_done

        hub().background.submit(act()).result()

    def remove(self, each: Instance) -> None:
        lease = self._leases.pop(self._address.keys.instance(each.service, each.id))
        hub().background.submit(lease.revoke()).result()

    def entries(self, service: str) -> tuple[Entry, ...]:
        """What stands in the registry now, raw."""
        listing = self._registry().list(self._address.keys.service(service))
        return hub().background.submit(listing).result().entries

    def states(self, service: str) -> list[str]:
        """The states of the service's instances, as callers see them."""
        with connect(self.url) as handle:
            return [str(each.state) for each in handle.instances(service)]

    def _registry(self) -> Registry:
        return hub().registry(self._address)
