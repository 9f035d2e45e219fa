"""The connections of async clients: as in `sync_pool`, once for each event loop, since a connection belongs to one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import anyio
import httpx

from ..balancing.endpoint import Endpoint
from .home import Home
from .link import AsyncConnection
from .wire import Origin, WireOptions, wire_errors

__all__ = ["AsyncPool", "AsyncWire"]


class AsyncPool:
    """Idle connections to one endpoint on one event loop."""

    def __init__(self, endpoint: Endpoint, options: WireOptions, home: Home) -> None:
        self.origin = Origin(endpoint, options)
        self._endpoint = endpoint
        self._home = home
        self._idle: deque[AsyncConnection] = deque()
        # Known here too, so that one whose response is forgotten can be closed.
        self._busy: set[AsyncConnection] = set()
        self._max_idle = options.max_idle
        self._is_closed = False
        most = options.max_connections
        self._room = anyio.Semaphore(most) if most is not None else None

    async def take(self, timeout: float | None, *, is_fresh: bool = False) -> AsyncConnection:
        """The freshest idle connection, or a new one that will connect by itself; with *is_fresh* a new one. Raises
        `httpx.PoolTimeout`.
        """
        if self._room is not None:
            try:
                with anyio.fail_after(timeout):
                    await self._room.acquire()
            except TimeoutError:
                raise httpx.PoolTimeout(
                    f"all connections to {self._endpoint.instance.address} are in use"
                ) from None
        try:
            connection = (None if is_fresh else await self._freshest()) or AsyncConnection(
                **self.origin.connection_settings()
            )
        except BaseException:  # cancelled: asyncio's own cancellation heeds no shield
            if self._room is not None:
                self._room.release()
            raise
        self._busy.add(connection)
        return connection

    async def give(self, connection: AsyncConnection, *, is_broken: bool = False) -> None:
        """Take a connection back after its response, or after its failure; *is_broken*: only to close it."""
        self._busy.discard(connection)
        if self._room is not None:
            self._room.release()
        if (
            is_broken
            or not (connection.is_idle() and connection.is_available())
            or self._is_closed
            or self._endpoint.is_retired
            or (self._max_idle is not None and len(self._idle) >= self._max_idle)
        ):
            await _close(connection)
        else:
            self._idle.append(connection)
            if len(self._idle) > 1 and self._idle[0].has_expired():
                await _close(self._idle.popleft())

    def lose(self, connection: AsyncConnection) -> None:
        """Take back the connection of a forgotten response. The collector may run in any thread, and nothing can be awaited."""
        self._home.run_soon(lambda: self.give(connection))

    async def close_idle(self) -> None:
        while self._idle:
            await _close(self._idle.pop())

    async def close(self) -> None:
        self._is_closed = True
        await self.close_idle()

    async def end(self) -> None:
        """The loop ends, and with it every request."""
        await self.close()
        while self._busy:
            await _close(self._busy.pop())

    async def _freshest(self) -> AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_available() and not connection.has_expired():  # as in the sync one
                return connection
            await _close(connection)
        return None


async def _close(connection: AsyncConnection) -> None:
    with anyio.CancelScope(shield=True), wire_errors():
        await connection.aclose()


class AsyncWire:
    """The pools of one service, shared by the async clients that have the same options and run on the same loop."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._homes: dict[object, tuple[Home, dict[Endpoint, AsyncPool]]] = {}
        self._retirers: dict[Endpoint, Callable[[], None]] = {}

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

    def close(self) -> None:
        with self._lock:
            retirers = dict(self._retirers)
            self._retirers.clear()
        for endpoint, retire in retirers.items():
            endpoint.off_retire(retire)
        for home, pools in self._everywhere():
            for pool in list(pools.values()):
                home.run_soon(pool.close)

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
