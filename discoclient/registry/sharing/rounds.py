"""Rounds: a question that many ask at once is asked once, and no answer is older than its question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Rounds"]

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds that the next round waits for the one under way. One that hangs must not hang the next one, too."""


class Rounds:
    """Whoever comes while a question is under way shares the *next* one. That is what a drain's proof stands on: a caller's
    first list has to be read after its presence was written, not before.
    """

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Future[Any]] = {}
        self._running: dict[Hashable, asyncio.Future[Any]] = {}
        self._all: set[asyncio.Future[Any]] = set()

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to *question*, which is asked after this was called, by us or for others who ask the same *key*."""
        round = self._next.get(key)
        if round is None:
            round = asyncio.ensure_future(self._round(key, question, self._running.get(key)))
            self._next[key] = round
            self._all.add(round)
            round.add_done_callback(self._done)
        answer: T = await asyncio.shield(round)  # whoever goes does not end it for the others
        return answer

    def close(self) -> None:
        for round in list(self._all):
            round.cancel()

    async def _round(
        self, key: Hashable, question: Callable[[], Awaitable[T]], before: asyncio.Future[Any] | None
    ) -> T:
        try:
            if before is not None:
                await asyncio.wait([before], timeout=PATIENCE)
        finally:
            round = self._next.pop(key)
        self._running[key] = round
        try:
            return await question()
        finally:
            if self._running.get(key) is round:
                del self._running[key]

    def _done(self, round: asyncio.Future[Any]) -> None:
        self._all.discard(round)
        if not round.cancelled():
            round.exception()  # whoever asked may be gone
