"""A race in threads, for sync clients that ask for hedging: the first good answer counts, the other attempt is broken off."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeAlias

import httpx

from ..calling.hedging import Race
from ..calling.steps import Send
from ..model.outcome import Outcome
from .attempts import Attempts, Result
from .carrying import Carrier
from .sync_pool import SyncWire

__all__ = ["Lanes", "run_race"]


class Lanes:
    """What carries the attempts of a race, for whoever breaks them off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._carriers: dict[int, Carrier] = {}
        self._is_over = False

    def enter(self, number: int, carrier: Carrier) -> None:
        """Before anything is sent. Raises if the race is over by now."""
        with self._lock:
            if self._is_over:
                raise ConnectionAbortedError("another attempt has won")
            self._carriers[number] = carrier

    def leave(self, number: int) -> None:
        """Before the connection is given back, and may carry another request."""
        with self._lock:
            self._carriers.pop(number, None)

    def close(self) -> None:
        """The race is over: break off what still runs."""
        with self._lock:
            self._is_over = True
            for carrier in self._carriers.values():
                carrier.break_off()


Attempt: TypeAlias = Callable[[Send, Attempts[SyncWire], Lanes], tuple[Outcome, Result]]
End: TypeAlias = tuple[Send, Outcome, Result]


def run_race(race: Race, first: Send, attempts: Attempts[SyncWire], attempt: Attempt) -> End:
    """The end of the attempt that decides the race. *attempt* makes one; each has a thread of its own."""
    ends: SimpleQueue[End | BaseException] = SimpleQueue()
    lanes = Lanes()
    lock = threading.Lock()
    is_over = False

    def run(send: Send) -> None:
        try:
            outcome, result = attempt(send, attempts, lanes)
        except BaseException as error:  # of ours; whoever waits must hear of it
            ends.put(error)
            return
        with lock:
            if not is_over:
                ends.put((send, outcome, result))
                return
        _drop(result)  # too late: somebody else has won

    def start(send: Send) -> None:
        threading.Thread(target=run, args=(send,), name="discoclient-hedge", daemon=True).start()

    start(first)
    try:
        while True:
            try:
                end = ends.get(timeout=None if race.is_asked else race.delay)
            except Empty:
                second = race.late()
                if second is not None:
                    start(second)
                continue
            if isinstance(end, BaseException):
                raise end
            send, outcome, result = end
            if race.ended(send, outcome):
                return send, outcome, result
            attempts.settle(send, result)  # it is told of, if nothing better comes
            _drop(attempts.take_response())
    finally:
        with lock:
            is_over = True
        while not ends.empty():
            end = ends.get()
            if not isinstance(end, BaseException):
                _drop(end[2])
        lanes.close()
        race.broken_off(monotonic())


def _drop(result: Result | None) -> None:
    if isinstance(result, httpx.Response):
        with suppress(Exception):
            result.close()
