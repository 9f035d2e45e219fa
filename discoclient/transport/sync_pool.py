"""The connections of sync clients: one pool per endpoint, last in first out, nothing in it that grows with its size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

import httpx

from ..balancing.endpoint import Endpoint
from .link import SyncConnection
from .wire import Origin, WireOptions, wire_errors

__all__ = ["SyncPool", "SyncWire"]


class SyncPool:
    """Idle connections to one endpoint. A connection is in here, or in the hands of exactly one request."""

    def __init__(self, endpoint: Endpoint, options: WireOptions) -> None:
        self.origin = Origin(endpoint, options)
        self._endpoint = endpoint
        self._idle: deque[SyncConnection] = deque(maxlen=None)
        # Known here too, so that one whose response is forgotten can be closed.
        self._busy: set[SyncConnection] = set()
        self._max_idle = options.max_idle
        self._is_closed = False
        self._room: SimpleQueue[None] | None = None
        if options.max_connections is not None:
            # Not a semaphore: the garbage collector may give a slot back while its thread is just taking one.
            self._room = SimpleQueue()
            for _ in range(options.max_connections):
                self._room.put(None)

    def take(self, timeout: float | None, *, is_fresh: bool = False) -> SyncConnection:
        """The freshest idle connection, or a new one that will connect by itself; with *is_fresh* a new one. Raises
        `httpx.PoolTimeout`.
        """
        if self._room is not None:
            try:
                self._room.get(timeout=timeout)
            except Empty:
                address = self._endpoint.instance.address
                raise httpx.PoolTimeout(f"all connections to {address} are in use") from None
        connection = (None if is_fresh else self._freshest()) or SyncConnection(
            **self.origin.connection_settings()
        )
        self._busy.add(connection)
        return connection

    def give(self, connection: SyncConnection, *, is_broken: bool = False) -> None:
        """Take a connection back after its response, or after its failure; *is_broken*: only to close it."""
        self._busy.discard(connection)
        try:
            self._keep_or_close(connection, is_broken)
        finally:
            # Only now: whoever gets the slot is to find the connection here, and not to make another one.
            if self._room is not None:
                self._room.put(None)

    def _freshest(self) -> SyncConnection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            # One of HTTP/2 stays idle after an error; what it is good for, it says itself.
            if connection.is_available() and not connection.has_expired():
                return connection
            with wire_errors():
                connection.close()

    def _keep_or_close(self, connection: SyncConnection, is_broken: bool) -> None:
        if is_broken or not (connection.is_idle() and connection.is_available()) or self._is_full():
            with wire_errors():
                connection.close()
            return
        self._idle.append(connection)
        if len(self._idle) > 1:
            self._drop_oldest_if_expired()
        if self._endpoint.is_retired or self._is_closed:  # looked at after: whoever closes all looks before
            self.close_idle()

    def close_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def close(self) -> None:
        self._is_closed = True
        self.close_idle()

    def _is_full(self) -> bool:
        return self._max_idle is not None and len(self._idle) >= self._max_idle

    def _drop_oldest_if_expired(self) -> None:
        """The stack's bottom is hardly ever used: one look per request keeps dead sockets from piling up there."""
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return
        if oldest.has_expired():
            oldest.close()
        else:
            self._idle.appendleft(oldest)


class SyncWire:
    """The pools of one service, shared by the sync clients of this process that have the same options."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._pools: dict[Endpoint, SyncPool] = {}
        self._retirers: dict[Endpoint, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def pool(self, endpoint: Endpoint) -> SyncPool:
        found = self._pools.get(endpoint)
        if found is not None:
            return found
        with self._lock:
            found = self._pools.get(endpoint)
            if found is None:
                found = self._pools[endpoint] = SyncPool(endpoint, self._options)
                retire = self._retirers[endpoint] = partial(self._retire, endpoint)
                endpoint.on_retire(retire)
            return found

    def close(self) -> None:
        with self._lock:
            pools, retirers = list(self._pools.values()), dict(self._retirers)
            self._pools.clear()
            self._retirers.clear()
        for endpoint, retire in retirers.items():
            endpoint.off_retire(retire)
        for pool in pools:
            pool.close()

    def _retire(self, endpoint: Endpoint) -> None:
        """Close what is idle now; what is busy closes when it comes back."""
        self._retirers.pop(endpoint, None)
        pool = self._pools.pop(endpoint, None)
        if pool is not None:
            pool.close()
