"""Looking at everything below a prefix of the registry at once, whatever the services are called, and following it."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Self

from ..control.follower import Follower
from ..control.hub import hub
from ..model.errors import RegistryDenied, RegistryError, RegistryUnavailable
from ..model.instance import Instance, check_service
from ..registry.address import RegistryAddress
from ..registry.codec import BadRecord, decode
from ..registry.happenings import Phase
from ..registry.protocol import Entry
from .checks import explain_refusal

__all__ = ["Found", "Look"]

LOOK_TIMEOUT = 5.0
"""Seconds to wait for the first knowledge; after half of them one member's word will do."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at ``revision``: the instances by key, and why each of the other keys was skipped."""

    revision: int
    by_key: Mapping[str, Instance]
    skipped: Mapping[str, str]
    is_suspect: bool
    """Whether it is only one member's word, without a quorum."""

    @property
    def services(self) -> dict[str, list[Instance]]:
        """The instances by service, both in order: the names, and the longest registered first."""
        table: dict[str, list[Instance]] = {}
        for instance in sorted(self.by_key.values(), key=lambda i: (i.service, i.registered_at or "", i.id)):
            table.setdefault(instance.service, []).append(instance)
        return table


class Look:
    """Follows one service, or all, from now until `close`. A context manager.

    Unlike a client's view of a service it shows what the registry holds, whatever ``$DISCO_OVERRIDE_...`` says.
    """

    def __init__(
        self, address: RegistryAddress, service: str | None = None, *, timeout: float | None = None
    ) -> None:
        shared = hub()
        self._address = address
        self._timeout = timeout = LOOK_TIMEOUT if timeout is None else timeout
        self._root = address.keys.all_services
        self._range = self._root if service is None else address.keys.service(check_service(service))
        self.origins: dict[str, tuple[int, int]] = {}
        """By key: the revisions at which the instance registered, and at which it said what it says."""
        self._found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self._follower = Follower[Instance](
            shared.registry(address),
            self._range,
            self._decode,
            self._publish,
            settings=replace(shared.settings, stale_after=timeout / 2),
            clock=monotonic,
            rng=shared.rng,
        )
        self._running = shared.background.submit(self._follower.run())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_live(self) -> bool:
        """Whether the registry is being heard."""
        return self._follower.phase is Phase.LIVE

    @property
    def trouble(self) -> RegistryError | None:
        """Why the registry could not be asked, the last time that it couldn't."""
        return self._follower.last_error

    @property
    def age(self) -> float | None:
        """Seconds since the registry proved that what was found is all there is; ``None`` if it never did."""
        fresh_at = self._follower.fresh_at
        return None if fresh_at is None else max(0.0, monotonic() - fresh_at)

    def first(self) -> Found:
        """What is there now. Raises `RegistryError` if that can't be learnt in time."""
        deadline = monotonic() + self._timeout
        while (found := self.next(timeout=0.1)) is None:
            if isinstance(self.trouble, RegistryDenied):  # asking again won't help
                error = explain_refusal(str(self.trouble), self._address, self._range)
                raise RegistryDenied(error) from self.trouble
            if monotonic() >= deadline:
                raise RegistryUnavailable(
                    f"the registry {self._address} did not answer within {self._timeout:g} s"
                    f"{f': {self.trouble}' if self.trouble else ''}"
                ) from self.trouble
        return found

    def next(self, *, timeout: float) -> Found | None:
        """The next state that was not taken yet, each of them once; ``None`` after *timeout* seconds without one."""
        try:
            return self._found.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._running.cancel()

    # ---- on the background loop

    def _decode(self, entry: Entry) -> Instance:
        if not entry.lease:
            raise BadRecord("it has no lease")
        service, _, id = entry.key[len(self._root) :].partition("/")
        hostnames = self._address.hostnames or self._address.scheme == "static"
        instance = decode(entry.value, service=service, id=id, hostnames=hostnames)
        self.origins[entry.key] = entry.create_revision, entry.mod_revision
        return instance

    def _publish(self, follower: Follower[Instance], touched: object) -> None:
        self._found.put(Found(follower.revision, follower.records, dict(follower.skipped), follower.is_stale))
