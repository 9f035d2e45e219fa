"""The registrar does what the keeper of a registration asks, on the background loop, and tells it what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from ..control.follower import Follower
from ..model.errors import RegistryError, RegistryUnavailable
from ..model.instance import Instance
from ..model.instance import State as InstanceState
from ..registry.codec import encode
from ..registry.happenings import WatchSettings
from ..registry.keys import Keys
from ..registry.protocol import Entry, Registry
from .keeper import Ask, Event, Failed, Granted, Keeper, PutAnswer, Renewed, Seen, State, Step

__all__ = ["Registrar"]

logger = logging.getLogger("discoclient.serving")

LEAVE_TIMEOUT = 2.0
"""Seconds that telling the registry of a drain, or giving the lease back, may take before going on without."""


class Registrar:
    """Registers *instance*, and keeps it registered until it leaves. Everything here runs on the background loop."""

    def __init__(
        self,
        instance: Instance,
        *,
        registry: Registry,
        keys: Keys,
        hostnames: bool,
        ttl: float,
        settings: WatchSettings,
        clock: Callable[[], float],
        rng: Random,
        on_state: Callable[[State], None],
    ) -> None:
        self.instance = instance
        self.state = State.STARTING
        self._registry = registry
        self._key = keys.instance(instance.service, instance.id)
        self._hostnames = hostnames
        self._ttl = ttl
        self._clock = clock
        self._on_state = on_state
        self._keeper = Keeper(encode(instance, hostnames=hostnames), rng=rng)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._tasks: dict[Step, asyncio.Task[None]] = {}
        self._settled = asyncio.Condition()
        self._follower = Follower[Entry](
            registry, self._key, lambda entry: entry, self._seen, settings=settings, clock=clock, rng=rng
        )

    async def run(self) -> None:
        """Until cancelled. Needs no help, whatever the registry does."""
        keeper = self._keeper
        watching = asyncio.create_task(self._follower.run())
        try:
            self._start(keeper.start(self._clock()))
            while True:
                event = await self._next_event()
                asks = keeper.handle(event, self._clock()) if event is not None else []
                if keeper.wake_at is not None and keeper.wake_at <= self._clock():
                    asks = asks + keeper.tick(self._clock())
                self._start(asks)
                await self._settle()
        finally:
            for task in [watching, *self._tasks.values()]:
                task.cancel()
            await asyncio.gather(watching, *self._tasks.values(), return_exceptions=True)

    async def registered(self, timeout: float) -> None:
        """Wait for the first registration. Raises `RegistryError` if it can't succeed or does not within *timeout* seconds."""
        keeper = self._keeper
        try:
            async with asyncio.timeout(timeout), self._settled:
                await self._settled.wait_for(lambda: keeper.is_registered or keeper.fatal is not None)
        except TimeoutError:
            reason = keeper.last_error or RegistryUnavailable("no answer")
            raise RegistryUnavailable(f"could not register within {timeout:g} s: {reason}") from reason
        if keeper.fatal is not None:
            raise keeper.fatal

    async def announce(self, state: InstanceState) -> bool:
        """Put *state* into the record; whether the registry has it, which may take `LEAVE_TIMEOUT` seconds to learn."""
        self.instance = replace(self.instance, state=state)
        self._start(self._keeper.want(encode(self.instance, hostnames=self._hostnames), self._clock()))
        await self._settle()
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT), self._settled:
                await self._settled.wait_for(lambda: self._keeper.is_settled)
        except TimeoutError:
            return False
        return True

    async def leave(self) -> None:
        """Give the lease back. What can't be given back in `LEAVE_TIMEOUT` seconds runs out by itself."""
        self._start(self._keeper.leave(self._clock()))
        revoking = self._tasks.get(Step.REVOKE)
        if revoking is not None:
            await asyncio.wait([revoking], timeout=LEAVE_TIMEOUT)
        await self._settle(State.GONE)

    def _seen(self, follower: Follower[Entry], touched: object) -> None:
        self._events.put_nowait(Seen(follower.records.get(self._key), follower.revision))

    async def _next_event(self) -> Event | None:
        wake_at = self._keeper.wake_at
        try:
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - self._clock())):
                return await self._events.get()
        except TimeoutError:
            return None

    def _start(self, asks: list[Ask]) -> None:
        for ask in asks:
            if ask.step is Step.REVOKE:
                for task in self._tasks.values():
                    task.cancel()
            elif ask.step is Step.GRANT and Step.PUT in self._tasks:
                self._tasks[Step.PUT].cancel()  # under the old lease
            self._tasks[ask.step] = asyncio.create_task(self._do(ask))

    async def _do(self, ask: Ask) -> None:
        keeper, sent_at = self._keeper, self._clock()
        lease = keeper.lease
        try:
            match ask.step:
                case Step.GRANT:
                    self._events.put_nowait(Granted(await self._registry.grant(self._ttl), sent_at))
                case Step.RENEW if lease is not None:
                    self._events.put_nowait(Renewed(await lease.renew(), sent_at, lease.id))
                case Step.PUT if lease is not None:
                    put = await self._registry.put(self._key, ask.value, lease=lease, expected=ask.expected)
                    self._events.put_nowait(PutAnswer(put, ask.value, lease.id))
                case Step.REVOKE if lease is not None:
                    await lease.revoke()
        except RegistryError as error:
            logger.debug("%s of %s failed: %s", ask.step, self._key, error)
            of = lease.id if lease is not None and ask.step is not Step.GRANT else 0
            self._events.put_nowait(Failed(ask.step, error, of))

    async def _settle(self, state: State | None = None) -> None:
        """Work out the state from what the keeper knows, and tell whoever waits for it."""
        if state is None:
            state = self.state
            if self._keeper.is_registered:
                draining = self.instance.state is InstanceState.DRAINING
                state = State.DRAINING if draining else State.REGISTERED
            elif state is not State.STARTING and not self._keeper.is_leaving:
                state = State.LOST
        if state is not self.state and self.state is not State.GONE:
            was, self.state = self.state, state
            level = logging.WARNING if state is State.LOST else logging.INFO
            logger.log(level, "%s: %s -> %s", self._key, was, state)
            try:
                self._on_state(state)
            except Exception:
                logger.exception("on_state failed")
        async with self._settled:
            self._settled.notify_all()
