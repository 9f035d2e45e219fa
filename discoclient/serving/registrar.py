"""The registrar does what the keeper of a registration asks, on the background loop, and tells it what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

from ..control.follower import Follower
from ..model.errors import RegistryError, RegistryUnavailable
from ..model.instance import Instance
from ..model.instance import State as InstanceState
from ..registry.asked import Asked, decode_asked
from ..registry.codec import encode
from ..registry.happenings import WatchSettings
from ..registry.keys import Keys
from ..registry.presence import OBSERVED
from ..registry.protocol import Entry, Registry
from .chronicle import STATE_AT
from .drain import Drain, Drained
from .farewell import Farewell
from .happenings import Ask, Event, Failed, Granted, PutAnswer, Renewed, Revoked, Seen, State, Step
from .keeper import Keeper

__all__ = ["Registrar"]

logger = logging.getLogger("discoclient.serving")

TELL_TIMEOUT = 2.0
"""Seconds that are waited for the registry to have a new state. It is told all the same when they are over."""
GOODBYE_TIMEOUT = 8.0
"""Seconds that telling the registry of a drain may take before going on without, and giving back the lease of whoever has
told it: an election, or three members that don't answer and may take 2 s each (`registry.etcd.members`)."""
LEAVE_TIMEOUT = 2.0
"""Seconds that giving a lease back may take where the registry does not answer anyway, or nobody was told of the lease."""


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
        on_asked: Callable[[Asked], None] = lambda asked: None,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        """*on_asked* is called with what somebody asks of the instance, each time that it changes; a new weight is taken on
        before. *in_flight* counts the requests that are being served.
        """
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
        self._running: asyncio.Task[None] | None = None
        self._farewell: Farewell | None = None
        self._draining: asyncio.Task[Drained] | None = None
        self._leaving: asyncio.Task[bool] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_hurried = False
        self._on_asked = on_asked
        self._in_flight = in_flight
        self._asked = Asked()
        self._keys = keys
        self._settings = settings
        self._rng = rng
        self._follower = Follower[Entry](
            registry, self._key, lambda entry: entry, self._seen, settings=settings, clock=clock, rng=rng
        )
        self._listener = Follower[Asked](
            registry,
            keys.control(instance.service, instance.id),
            lambda entry: decode_asked(entry.value),
            self._heard,
            settings=settings,
            clock=clock,
            rng=rng,
        )

    async def run(self) -> None:
        """Until cancelled. Needs no help, whatever the registry does."""
        keeper = self._keeper
        watching = [asyncio.create_task(each.run()) for each in (self._follower, self._listener)]
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
            for task in [*watching, *self._tasks.values()]:
                task.cancel()
            await asyncio.gather(*watching, *self._tasks.values(), return_exceptions=True)

    async def begin(self, timeout: float) -> None:
        """Register, and stay registered from then on.

        Raises `RegistryError` if it can't succeed, does not within *timeout* seconds, or `leave` comes first. Nothing is left
        behind then, nor when it is cancelled.
        """
        if self._leaving is None:
            self._running = asyncio.create_task(self.run())
        try:
            await self._registered(timeout)
        except BaseException:
            await self.leave()
            raise

    async def announce(self, state: InstanceState, timeout: float | None = None) -> bool:
        """Put *state* into the record; whether the registry has it, which may take `TELL_TIMEOUT` seconds to learn.

        Ignored once it drains, which can't be taken back.
        """
        if self._draining is not None and state is not InstanceState.DRAINING:
            return False
        keeper = self._keeper
        said_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        extra = {**self.instance.extra, STATE_AT: said_at}
        self._want(replace(self.instance, state=state, extra=extra))
        await self._settle()
        await self._until(
            lambda: keeper.is_settled or keeper.is_leaving or self._is_hurried,
            TELL_TIMEOUT if timeout is None else timeout,
        )
        return keeper.is_settled

    async def weigh(self, weight: float) -> None:
        """Put another weight into the record, and no longer have callers tell what becomes of their requests."""
        extra = {name: value for name, value in self.instance.extra.items() if name != OBSERVED}
        self._want(replace(self.instance, weight=weight, extra=extra))

    async def drain(self, quiet: float, timeout: float) -> Drained:
        """Say that it is leaving, and wait until all callers have left and nothing is in flight (see `serving.drain`).

        *quiet*: seconds from when the registry has it, at least; *timeout*: seconds, at most. Goes on if whoever waits for it
        is cancelled. Whoever else asks for it waits for the first one's.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(quiet, timeout))
        return await asyncio.shield(self._draining)

    async def hurry(self) -> None:
        """End the wait of a drain now, whoever waits for it."""
        self._is_hurried = True
        if self._farewell is not None:
            self._farewell.hurry()
        await self._settle()

    async def leave(self, timeout: float | None = None) -> bool:
        """Give the lease back; whether the registry has taken it. What it has not in *timeout* seconds runs out by itself.

        *timeout* is `LEAVE_TIMEOUT` by default. May be asked for at any time, and as often as one likes.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(LEAVE_TIMEOUT if timeout is None else timeout))
        return await asyncio.shield(self._leaving)

    async def close(self, quiet: float, timeout: float) -> None:
        """Drain, unless that was done, and leave. Goes on if whoever waits is cancelled; others wait for the first one's."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(quiet, timeout))
        await asyncio.shield(self._closing)

    async def _registered(self, timeout: float) -> None:
        keeper = self._keeper
        is_decided = await self._until(
            lambda: keeper.is_registered or keeper.fatal is not None or keeper.is_leaving, timeout
        )
        if keeper.is_leaving:
            raise RegistryUnavailable("given up before it was registered")
        if keeper.fatal is not None:
            raise keeper.fatal
        if not is_decided:
            reason = keeper.last_error or RegistryUnavailable("no answer")
            raise RegistryUnavailable(f"could not register within {timeout:g} s: {reason}") from reason

    async def _drain(self, quiet: float, timeout: float) -> Drained:
        keeper, began = self._keeper, self._clock()
        is_told = await self.announce(InstanceState.DRAINING, min(timeout, GOODBYE_TIMEOUT))
        if not (is_told or keeper.is_leaving):
            self._warn("the registry could not be told of the drain")
        drain = Drain(self.instance.id, quiet=quiet, timeout=timeout, now=began)
        self._farewell = Farewell(
            drain,
            self._registry,
            self._keys.clients(self.instance.service),
            in_flight=self._in_flight,
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
        )
        if self._is_hurried or keeper.is_leaving:
            self._farewell.hurry()
        drained = await self._farewell.wait(keeper.revision if is_told else 0)
        if not is_told:
            return drained
        level = logging.INFO if drained.is_clean else logging.WARNING
        text = (
            f"drained in {drained.seconds:.2f} s" if drained.is_clean else f"not drained: {drained.problem}"
        )
        logger.log(level, "%s: %s", self._key, text)
        return drained

    async def _leave(self, timeout: float) -> bool:
        keeper = self._keeper
        self._start(keeper.leave(self._clock()))
        if self._farewell is not None:
            self._farewell.hurry()
        await self._settle()
        is_gone = await self._until(lambda: keeper.is_gone, timeout)
        await self._settle(State.GONE)
        if self._running is not None:
            self._running.cancel()
        return is_gone

    async def _close(self, quiet: float, timeout: float) -> None:
        await self.drain(quiet, timeout)
        is_told = self._keeper.is_settled
        is_gone = await self.leave(GOODBYE_TIMEOUT if is_told else LEAVE_TIMEOUT)
        if not is_gone:
            self._warn(f"the lease could not be given back, and runs out within {self._ttl:g} s")
        elif not is_told:
            await self._until(lambda: self._is_hurried, quiet)  # only now do callers learn of it

    def _warn(self, text: str) -> None:
        logger.warning("%s: %s: %s", self._key, text, self._keeper.last_error or "no answer")

    async def _until(self, is_so: Callable[[], bool], timeout: float) -> bool:
        """Wait until *is_so*, for *timeout* seconds at most; whether it came true."""
        try:
            async with asyncio.timeout(timeout), self._settled:
                await self._settled.wait_for(is_so)
        except TimeoutError:
            return False
        return True

    def _want(self, instance: Instance) -> None:
        """From now on the record should be this one. Raises `ConfigError`, and leaves it as it is, if it can't."""
        value = encode(instance, hostnames=self._hostnames)
        self.instance = instance
        self._start(self._keeper.want(value, self._clock()))

    def _heard(self, follower: Follower[Asked], touched: object) -> None:
        asked = next(iter(follower.records.values()), Asked())
        if asked == self._asked or self._keeper.is_leaving:
            return
        self._asked = asked
        if asked.weight is not None and asked.weight != self.instance.weight:
            logger.info("%s: the weight is %g now, as it was asked", self._key, asked.weight)
            self._want(replace(self.instance, weight=asked.weight))
        self._on_asked(asked)

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
                    self._events.put_nowait(Revoked(lease.id))
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
