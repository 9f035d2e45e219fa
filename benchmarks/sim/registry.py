"""A simulated registry: it changes at once, and each client hears of it a little later."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from types import MappingProxyType

from discoclient.model.instance import Instance, State
from discoclient.model.snapshot import Snapshot

from .clients import Client
from .loop import Loop

__all__ = ["Registry"]


class Registry:
    """*delay*: seconds, from and to, that news take to a client."""

    def __init__(self, loop: Loop, rng: Random, delay: tuple[float, float]) -> None:
        self.clients: list[Client] = []
        self._loop = loop
        self._rng = rng
        self._delay = delay
        self._by_id: dict[str, Instance] = {}
        self._revision = 0

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot("sim", self._revision, MappingProxyType(dict(self._by_id)))

    def put(self, *instances: Instance) -> None:
        """All at one revision."""
        self._by_id.update((instance.id, instance) for instance in instances)
        self._publish()

    def drain(self, *ids: str) -> None:
        """They say that they are leaving."""
        self.put(*(replace(self._by_id[id], state=State.DRAINING) for id in ids))

    def remove(self, *ids: str) -> None:
        for id in ids:
            del self._by_id[id]
        self._publish()

    def tell(self, client: Client) -> None:
        """All there is, to a client that has just begun."""
        self.clients.append(client)
        self._send(client, self.snapshot)

    def _publish(self) -> None:
        self._revision += 1
        snapshot = self.snapshot
        for client in self.clients:
            self._send(client, snapshot)

    def _send(self, client: Client, snapshot: Snapshot) -> None:
        self._loop.after(self._rng.uniform(*self._delay), client.learn, snapshot)
