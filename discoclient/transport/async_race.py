"""A race in tasks, for async clients that ask for hedging: the first good answer counts, and the other attempt is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TypeAlias

import anyio
import httpx

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
    try:
        async with anyio.create_task_group() as tasks:

            async def run(send: Send) -> None:
                nonlocal deciding
                end = (send, *await attempt(send, attempts))
                ends.append(end)
                if deciding is None and race.ended(send, end[1]):
                    deciding = end
                    tasks.cancel_scope.cancel()

            tasks.start_soon(run, first)
            await anyio.sleep(race.delay)
            second = race.late()
            if second is not None:
                tasks.start_soon(run, second)
    except BaseException:
        deciding = None  # the caller was cancelled: nobody is there for a response
        raise
    finally:
        race.broken_off(monotonic())
        with anyio.CancelScope(shield=True):
            for end in ends:
                if end is not deciding and isinstance(end[2], httpx.Response):
                    with suppress(Exception):
                        await end[2].aclose()
    assert deciding is not None
    return deciding
