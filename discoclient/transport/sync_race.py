"""A race in threads, for sync clients that ask for hedging: the first good answer counts, and the other attempt is broken
off.
"""

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
from .link import SyncConnection
from .sync_pool import SyncWire

__all__ = ["run_race"]

Attempt: TypeAlias = Callable[[Send, Attempts[SyncWire], dict[int, SyncConnection]], tuple[Outcome, Result]]
End: TypeAlias = tuple[Send, Outcome, Result]


def run_race(race: Race, first: Send, attempts: Attempts[SyncWire], attempt: Attempt) -> End:
    """The end of the attempt that decides the race. *attempt* makes one; each has a thread of its own."""
    ends: SimpleQueue[End] = SimpleQueue()
    connections: dict[int, SyncConnection] = {}
    running: set[int] = set()
    lock = threading.Lock()
    is_over = False

    def run(send: Send) -> None:
        outcome, result = attempt(send, attempts, connections)
        with lock:
            if not is_over:
                ends.put((send, outcome, result))
                return
        if isinstance(result, httpx.Response):  # too late: somebody else has won
            with suppress(Exception):
                result.close()

    def start(send: Send) -> None:
        running.add(send.number)
        threading.Thread(target=run, args=(send,), name="discoclient-hedge", daemon=True).start()

    start(first)
    try:
        while True:
            try:
                send, outcome, result = ends.get(timeout=None if race.is_asked else race.delay)
            except Empty:
                second = race.late()
                if second is not None:
                    start(second)
                continue
            running.discard(send.number)
            if race.ended(send, outcome):
                return send, outcome, result
            if isinstance(result, httpx.Response):
                with suppress(Exception):
                    result.close()
    finally:
        with lock:
            is_over = True
        while not ends.empty():
            _, _, result = ends.get()
            if isinstance(result, httpx.Response):
                with suppress(Exception):
                    result.close()
        for number in running:
            if number in connections:
                connections[number].link.break_off()
        race.broken_off(monotonic())
