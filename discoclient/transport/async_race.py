"""A race in tasks, for async clients that ask for hedging: the first good answer counts, and the other attempt is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TypeAlias

import anyio

from ..calling.hedging import Race
from ..calling.steps import Send
from ..model.outcome import Outcome
from .async_pool import AsyncWire
from .attempts import Attempts, Result

__all__ = ["run_race"]

Attempt: TypeAlias = Callable[[Send, Attempts[AsyncWire]], Awaitable[tuple[Outcome, Result]]]
End: TypeAlias = tuple[Send, Outcome, Result]


async def run_race(race: Race, first: Send, attempts: Attempts[AsyncWire], attempt: Attempt) -> End:
    """The end of the attempt that decides the race. *attempt* makes one; each has a task of its own."""
    ends: list[End] = []
    deciding: End | None = None
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:

            async def run(send: Send) -> None:
                nonlocal deciding, failure
                try:
                    end = (send, *await attempt(send, attempts))
                except Exception as error:  # of ours; raised below, and not as a group
                    if deciding is None:
                        failure = error
                        tasks.cancel_scope.cancel()
                    return
                ends.append(end)
                if deciding is None and race.ended(send, end[1]):
                    deciding = end
                    tasks.cancel_scope.cancel()

            tasks.start_soon(run, first)
            await anyio.sleep(race.delay)
            try:
                second = race.late()
            except Exception as error:  # a balancer's own; raised below, and not as a group
                failure = error
                tasks.cancel_scope.cancel()
            else:
                if second is not None:
                    tasks.start_soon(run, second)
    except BaseException:
        deciding = None  # the caller was cancelled: nobody is there for a response
        raise
    finally:
        race.broken_off(monotonic())
        with anyio.CancelScope(shield=True):
            for end in ends:
                if end is not deciding:
                    attempts.settle(end[0], end[2])  # it is told of, if nothing better comes
                    response = attempts.take_response()
                    if response is not None:
                        with suppress(Exception):
                            await response.aclose()
    if failure is not None:
        raise failure
    assert deciding is not None
    return deciding
