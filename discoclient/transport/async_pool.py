"""The connections of async clients: as in `sync_pool`, once for each event loop, since a connection belongs to one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic

import anyio
import httpx

from ..balancing.endpoint import Endpoint
from ..model.errors import ConfigError
from .carrying import AsyncCarrier
from .home import Home
from .httpcore_carriers import AsyncHttpcoreCarrier
from .lent_carriers import AsyncLentCarrier
from .loan import Loan
from .native_async import AsyncNativeCarrier
from .wire import Place, WireOptions, lend, wire_errors

__all__ = ["AsyncPool", "AsyncWire"]


class AsyncPool:
    """Idle carriers to one endpoint on one event loop."""

    def __init__(self, endpoint: Endpoint, options: WireOptions, home: Home) -> None:
        self._place = Place(endpoint, options)
        self._endpoint = endpoint
        self._lent = lend(options, endpoint, httpx.AsyncBaseTransport)
        self._loan = None if self._lent is None else Loan()
        self._make = _maker(options, self._lent, is_asyncio=home.is_asyncio)
        self._home = home
        self._idle: deque[AsyncCarrier] = deque()
        # Known here too, so that one whose response is forgotten can be closed.
        self._busy: set[AsyncCarrier] = set()
        self._max_idle = options.max_idle
        self._is_closed = False
        most = options.max_connections
        self._room = anyio.Semaphore(most) if most is not None else None

    def take_idle(self) -> AsyncCarrier | None:
        """What `take` would give, if that needs no waiting at all: nearly always."""
        if self._room is None and self._idle:
            carrier = self._idle.pop()
            if carrier.is_idle() and not carrier.has_ended():
                self._busy.add(carrier)
                return carrier
            self._idle.append(carrier)  # for `take` to close
        return None

    async def take(self, timeout: float | None, *, is_fresh: bool = False) -> AsyncCarrier:
        """The freshest idle carrier, or a new one that will connect by itself; with *is_fresh* a new one. Raises
        `httpx.PoolTimeout`.
        """
        room, loan = self._room, self._loan
        if loan is not None:
            loan.enter()
        has_room = False
        try:
            if room is not None:
                await _enter(room, timeout)
            has_room = True
            if is_fresh and room is not None and self._idle:  # one more than there are requests
                await _close(self._idle.popleft())
            carrier = (None if is_fresh else await self._freshest()) or self._make(self._place)
        except BaseException as error:  # also cancelled: asyncio's own cancellation heeds no shield
            if room is not None and has_room:
                room.release()
            await self._return_lent()
            if isinstance(error, TimeoutError) and not has_room:
                address = self._endpoint.instance.address
                raise httpx.PoolTimeout(f"all connections to {address} are in use") from None
            raise
        self._busy.add(carrier)
        return carrier

    async def give(self, carrier: AsyncCarrier, *, is_broken: bool = False) -> None:
        """Take a carrier back after its response, or after its failure; *is_broken*: only to close it."""
        self._busy.discard(carrier)
        if self._room is not None:
            self._room.release()
        if (
            is_broken
            or not carrier.is_idle()
            or self._is_closed
            or self._endpoint.is_retired
            or (self._max_idle is not None and len(self._idle) >= self._max_idle)
        ):
            await _close(carrier)
        else:
            self._idle.append(carrier)
            if len(self._idle) > 1 and self._idle[0].is_overdue(monotonic()):
                await _close(self._idle.popleft())
        await self._return_lent()

    def give_idle(self, carrier: AsyncCarrier) -> bool:
        """Whether *carrier* is taken back as `give` would, and nothing had to be waited for: nearly always."""
        idle = self._idle
        if (
            self._room is not None
            or self._max_idle is not None
            or self._is_closed
            or self._endpoint.is_retired
            or not carrier.is_idle()
            or (idle and idle[0].is_overdue(monotonic()))
        ):
            return False
        self._busy.discard(carrier)
        idle.append(carrier)
        return True

    def lose(self, carrier: AsyncCarrier) -> None:
        """Take back the carrier of a forgotten response. The collector may run in any thread, and nothing can be awaited."""
        self._home.run_soon(lambda: self.give(carrier))

    async def close_idle(self) -> None:
        while self._idle:
            await _close(self._idle.pop())

    async def close(self) -> None:
        self._is_closed = True
        await self.close_idle()
        if self._lent is not None and self._loan is not None and self._loan.end():
            await self._lent.aclose()

    async def end(self) -> None:
        """The loop ends, and with it every request."""
        await self.close()
        while self._busy:
            await _close(self._busy.pop())
        if self._lent is not None and self._loan is not None and self._loan.end(at_once=True):
            await self._lent.aclose()

    async def _return_lent(self) -> None:
        """A request is over, or did not come to use it."""
        if self._lent is not None and self._loan is not None and self._loan.leave():
            with anyio.CancelScope(shield=True):
                await self._lent.aclose()

    async def _freshest(self) -> AsyncCarrier | None:
        while self._idle:
            carrier = self._idle.pop()
            if carrier.is_idle() and not carrier.has_ended():
                return carrier
            await _close(carrier)
        return None


async def _enter(room: anyio.Semaphore, timeout: float | None) -> None:
    """Raises `TimeoutError`; but where there is room no time is needed, also if there is none."""
    try:
        room.acquire_nowait()
    except anyio.WouldBlock:
        with anyio.fail_after(timeout):
            await room.acquire()


async def _close(carrier: AsyncCarrier) -> None:
    with anyio.CancelScope(shield=True), wire_errors():
        await carrier.aclose()


class AsyncWire:
    """The pools of one service, shared by the async clients that have the same options and run on the same loop."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._homes: dict[object, tuple[Home, dict[Endpoint, AsyncPool]]] = {}
        self._retirers: dict[Endpoint, Callable[[], None]] = {}
        self._tracing: AsyncWire | None = None

    def tracing(self) -> AsyncWire:
        """As in `SyncWire`."""
        if not self._options.is_native:
            return self
        with self._lock:
            if self._tracing is None:
                self._tracing = AsyncWire(replace(self._options, engine="httpcore"))
            return self._tracing

    def pool(self, loop: object, endpoint: Endpoint) -> AsyncPool:
        """For code that runs on *loop*."""
        held = self._homes.get(loop) or self._enter(loop)
        pool = held[1].get(endpoint)
        if pool is None:
            pool = held[1][endpoint] = AsyncPool(endpoint, self._options, held[0])
            with self._lock:
                is_new = endpoint not in self._retirers
                retire = self._retirers.setdefault(endpoint, partial(self._retire, endpoint))
            if is_new:
                endpoint.on_retire(retire)
        return pool

    async def leave(self, loop: object) -> None:
        """The last client of this loop is closed: close what is idle here, so that the loop can end clean."""
        held = self._homes.get(loop)
        if held is not None:
            for pool in list(held[1].values()):
                await pool.close_idle()
        if self._tracing is not None:
            await self._tracing.leave(loop)

    def close(self) -> None:
        with self._lock:
            retirers = dict(self._retirers)
            self._retirers.clear()
        for endpoint, retire in retirers.items():
            endpoint.off_retire(retire)
        for home, pools in self._everywhere():
            for pool in list(pools.values()):
                home.run_soon(pool.close)
        if self._tracing is not None:
            self._tracing.close()

    def _retire(self, endpoint: Endpoint) -> None:
        """Have each loop close what is idle; what is busy closes when it comes back."""
        with self._lock:
            self._retirers.pop(endpoint, None)
        for home, pools in self._everywhere():
            pool = pools.pop(endpoint, None)
            if pool is not None:
                home.run_soon(pool.close)

    def _enter(self, loop: object) -> tuple[Home, dict[Endpoint, AsyncPool]]:
        with self._lock:
            # Connections keep their loop alive, so a loop that is over is found by looking, when the next one comes.
            self._homes = {key: held for key, held in self._homes.items() if not held[0].is_closed}
            held = self._homes[loop] = (Home(loop), {})
        held[0].at_end(lambda: self._end(loop))
        return held

    async def _end(self, loop: object) -> None:
        with self._lock:
            _, pools = self._homes.pop(loop, (None, {}))
        for pool in list(pools.values()):
            await pool.end()

    def _everywhere(self) -> list[tuple[Home, dict[Endpoint, AsyncPool]]]:
        with self._lock:
            return list(self._homes.values())


def _maker(
    options: WireOptions, lent: httpx.AsyncBaseTransport | None, *, is_asyncio: bool
) -> Callable[[Place], AsyncCarrier]:
    if lent is not None:
        return partial(AsyncLentCarrier, lent)
    if options.is_native and is_asyncio:
        return AsyncNativeCarrier
    if options.engine == "native":
        raise ConfigError("engine='native' needs asyncio, and this is trio: engine='auto' takes what fits")
    return AsyncHttpcoreCarrier
