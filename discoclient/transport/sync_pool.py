"""The connections of sync clients: one pool per endpoint, last in first out, nothing in it that grows with its size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic

import httpx

from ..balancing.endpoint import Endpoint
from .carrying import Carrier
from .httpcore_carriers import HttpcoreCarrier
from .lent_carriers import LentCarrier
from .loan import Loan
from .native_sync import NativeCarrier
from .room import Room
from .wire import Place, WireOptions, lend, wire_errors

__all__ = ["SyncPool", "SyncWire"]


class SyncPool:
    """Idle carriers to one endpoint. A carrier is in here, or in the hands of exactly one request."""

    def __init__(self, endpoint: Endpoint, options: WireOptions) -> None:
        self._place = Place(endpoint, options)
        self._endpoint = endpoint
        self._lent = lend(options, endpoint, httpx.BaseTransport)
        self._loan = None if self._lent is None else Loan()
        self._make = _maker(options, self._lent)
        self._idle: deque[Carrier] = deque(maxlen=None)
        # Known here too, so that one whose response is forgotten can be closed.
        self._busy: set[Carrier] = set()
        self._max_idle = options.max_idle
        self._is_closed = False
        self._room = None if options.max_connections is None else Room(options.max_connections)

    def take(self, timeout: float | None, *, is_fresh: bool = False) -> Carrier:
        """The freshest idle carrier, or a new one that will connect by itself; with *is_fresh* a new one. Raises
        `httpx.PoolTimeout`.
        """
        room, loan = self._room, self._loan
        if loan is not None:
            loan.enter()
        has_room = False
        try:
            if room is not None and not room.enter(timeout):
                raise httpx.PoolTimeout(f"all connections to {self._endpoint.instance.address} are in use")
            has_room = True
            if is_fresh and room is not None:
                self._make_room()
            carrier = (None if is_fresh else self._freshest()) or self._make(self._place)
            self._busy.add(carrier)
        except BaseException:  # also a dead carrier that could not be closed, or a signal's handler
            if room is not None and has_room:
                room.leave()
            self._return_lent()
            raise
        return carrier

    def give(self, carrier: Carrier, *, is_broken: bool = False) -> None:
        """Take a carrier back after its response, or after its failure; *is_broken*: only to close it."""
        try:
            self._busy.discard(carrier)
            self._keep_or_close(carrier, is_broken)
        finally:
            # Only now: whoever gets the slot is to find the carrier here, and not to make another one.
            if self._room is not None:
                self._room.leave()
            self._return_lent()

    def _freshest(self) -> Carrier | None:
        while True:
            try:
                carrier = self._idle.pop()
            except IndexError:
                return None
            is_good = False
            try:
                is_good = carrier.is_idle() and not carrier.has_ended()
            finally:
                if not is_good:
                    with wire_errors():
                        carrier.close()
            if is_good:
                return carrier

    def _make_room(self) -> None:
        """One more is about to be made than there are requests: one that is idle has to go."""
        try:
            self._idle.popleft().close()
        except IndexError:
            return

    def _keep_or_close(self, carrier: Carrier, is_broken: bool) -> None:
        if is_broken or not carrier.is_idle() or self._is_full():
            with wire_errors():
                carrier.close()
            return
        self._idle.append(carrier)
        if len(self._idle) > 1:
            self._drop_oldest_if_overdue()
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
        if self._lent is not None and self._loan is not None and self._loan.end():
            self._lent.close()

    def _return_lent(self) -> None:
        """A request is over, or did not come to use it."""
        if self._lent is not None and self._loan is not None and self._loan.leave():
            self._lent.close()

    def _is_full(self) -> bool:
        return self._max_idle is not None and len(self._idle) >= self._max_idle

    def _drop_oldest_if_overdue(self) -> None:
        """The stack's bottom is hardly ever used: one look per request keeps dead sockets from piling up there."""
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return
        if oldest.is_overdue(monotonic()):
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
        self._tracing: SyncWire | None = None

    def tracing(self) -> SyncWire:
        """The wire for requests with the extension ``trace``: whoever uses that means the names of httpcore's events.

        A transport that is lent stays: it may know the only way there is.
        """
        if not self._options.is_native:
            return self
        with self._lock:
            if self._tracing is None:
                self._tracing = SyncWire(replace(self._options, engine="httpcore"))
            return self._tracing

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

    def leave(self) -> None:
        """The last client is closed: close what is idle. Whoever forgets a client leaves it for the next one."""
        for pool in list(self._pools.values()):
            pool.close_idle()
        if self._tracing is not None:
            self._tracing.leave()

    def close(self) -> None:
        with self._lock:
            pools, retirers = list(self._pools.values()), dict(self._retirers)
            self._pools.clear()
            self._retirers.clear()
        for endpoint, retire in retirers.items():
            endpoint.off_retire(retire)
        for pool in pools:
            pool.close()
        if self._tracing is not None:
            self._tracing.close()

    def _retire(self, endpoint: Endpoint) -> None:
        """Close what is idle now; what is busy closes when it comes back."""
        self._retirers.pop(endpoint, None)
        pool = self._pools.pop(endpoint, None)
        if pool is not None:
            pool.close()


def _maker(options: WireOptions, lent: httpx.BaseTransport | None) -> Callable[[Place], Carrier]:
    if lent is not None:
        return partial(LentCarrier, lent)
    return NativeCarrier if options.is_native else HttpcoreCarrier
