"""The presence of this process at one registry: it does what the attendance asks, on the background loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from ..model.errors import LeaseExpired, RegistryDenied, RegistryError
from ..registry.keys import Keys
from ..registry.presence import Outcomes, Presence, encode_presence
from ..registry.protocol import Registry
from .attendance import (
    Attendance,
    Delete,
    Deleted,
    Event,
    Failed,
    Grant,
    Granted,
    Renew,
    Renewed,
    Step,
    Write,
    Written,
)

__all__ = ["PresenceKeeper"]

logger = logging.getLogger("discoclient.control")

TTL = 10.0
"""Seconds that a drain may be held up by a caller that was stopped or killed. Shorter leases cost the registry more
(etcd issues 9911 and 13156 have users with thousands of them)."""
JOIN_TIMEOUT = 2.0
"""Seconds that the first list of a service waits for the presence, so that whoever drains knows of us before we know of it."""


class PresenceKeeper:
    """Tells those who drain that this process calls a service, and what it knows. For the background loop."""

    def __init__(
        self,
        registry: Registry,
        keys: Keys,
        *,
        clock: Callable[[], float],
        rng: Random,
        spawn: Callable[..., asyncio.Task[None]],
        kind: str = "sdk",
        ttl: float = TTL,
    ) -> None:
        """*kind*: what it is, ``sdk`` or ``sidecar``."""
        self.id = uuid.uuid4().hex
        self._registry = registry
        self._keys = keys
        self._clock = clock
        self._spawn = spawn
        self._kind = kind
        self._ttl = ttl
        self._attendance = Attendance(rng=rng)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._joining: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._was_refused = False

    def is_announced(self, service: str) -> bool:
        return self._attendance.is_announced(service)

    async def join(self, service: str, timeout: float = JOIN_TIMEOUT) -> bool:
        """Announce that *service* may be called from here; whether the registry has it.

        Returns when it has, when it refuses, and after *timeout* seconds in any case; it is tried on all the same.
        """
        attendance = self._attendance
        self.tell(service, 0, {})
        try:
            async with asyncio.timeout(timeout):
                while not (attendance.is_announced(service) or attendance.is_refused):
                    await self._joining.setdefault(service, asyncio.Event()).wait()
        except TimeoutError:
            logger.info("%s: the registry does not take our presence; going on without", service)
        return attendance.is_announced(service)

    def tell(
        self,
        service: str,
        applied: int,
        busy: Mapping[str, int],
        outcomes: Mapping[str, Outcomes] = MappingProxyType({}),
    ) -> None:
        """This process knows all of *service* up to revision *applied*, waits for *busy*, requests by instance, and has seen
        *outcomes* of those that are observed.
        """
        presence = Presence(
            id=self.id,
            applied=applied,
            busy=dict(busy),
            outcomes=dict(outcomes),
            pid=os.getpid(),
            hostname=os.environ.get("DISCO_HOSTNAME") or socket.gethostname(),
            kind=self._kind,
        )
        if self._running is None:
            self._running = self._spawn(self._run())
        self._start(self._attendance.want(service, encode_presence(presence), self._clock()))
        self._events.put_nowait(None)  # there may be something new to wake up for

    def leave(self, service: str) -> None:
        """Nothing here calls *service* any more."""
        self._start(self._attendance.drop(service, self._clock()))
        self._events.put_nowait(None)

    async def close(self) -> None:
        """Give the lease back, and all keys with it."""
        if self._running is not None:
            self._running.cancel()
        for task in self._tasks:
            task.cancel()
        lease = self._attendance.lease
        if lease is not None:
            try:
                await lease.revoke()
            except RegistryError as error:
                logger.debug("the lease of our presence could not be given back: %s", error)

    async def _run(self) -> None:
        attendance = self._attendance
        while True:
            wake_at = attendance.wake_at
            try:
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - self._clock())):
                    event = await self._events.get()
            except TimeoutError:
                event = None
            if event is not None:
                self._start(attendance.handle(event, self._clock()))
            if attendance.wake_at is not None and attendance.wake_at <= self._clock():
                self._start(attendance.tick(self._clock()))
            if isinstance(event, Written):
                self._wake(event.service)
            elif attendance.is_refused:
                self._wake(*self._joining)

    def _wake(self, *services: str) -> None:
        """Those who wait for these look again. Not all of them every time: a thousand may, each for another one's turn."""
        for service in services:
            joining = self._joining.pop(service, None)
            if joining is not None:
                joining.set()

    def _start(self, steps: list[Step]) -> None:
        for step in steps:
            task = asyncio.ensure_future(self._do(step))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, step: Step) -> None:
        registry, lease, sent_at = self._registry, self._attendance.lease, self._clock()
        event: Event
        try:
            match step:
                case Grant():
                    event = Granted(await registry.grant(self._ttl), sent_at)
                case Renew() if lease is not None:
                    event = Renewed(await lease.renew(), sent_at, lease.id)
                case Write(service, value, expected) if lease is not None:
                    key = self._keys.client(service, self.id)
                    put = await registry.put(key, value, lease=lease, expected=expected)
                    event = Written(service, value, put, lease.id)
                case Delete(service):
                    await registry.delete(self._keys.client(service, self.id))
                    event = Deleted(service)
                case Renew():
                    return
                case Write():
                    event = Failed(step, LeaseExpired("lost before it could be written"))
        except RegistryError as error:
            logger.debug("%s of our presence failed: %s", type(step).__name__, error)
            if isinstance(error, RegistryDenied) and not self._was_refused:
                self._was_refused = True
                logger.info("presence is not allowed here, so drains wait a fixed time for us: %s", error)
            event = Failed(step, error, 0 if lease is None or isinstance(step, Grant) else lease.id)
        self._events.put_nowait(event)
