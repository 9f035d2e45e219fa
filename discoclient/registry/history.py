"""Reading back what happened in a range, as far as the registry has it. For the background loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from ..model.errors import RevisionCompacted
from .protocol import Batch, Deletion, Entry, Registry

__all__ = ["History", "read_history"]

QUIET = 0.3
"""Seconds without another word after which it was all: a watch does not say where the past ends."""


@dataclass(frozen=True, slots=True)
class History:
    """All changes after revision ``reach``, and before them what stood there then and still does."""

    reach: int
    changes: tuple[Entry | Deletion, ...]


async def read_history(registry: Registry, range: str) -> History:
    """The changes of *range*, in their order. Raises `RegistryError`."""
    listing = await registry.list(range)
    reach = 0
    while True:
        try:
            changes = await _read(registry, range, reach, listing.revision)
        except RevisionCompacted as error:
            if error.oldest <= reach:
                raise
            reach = error.oldest
        else:
            standing = [entry for entry in listing.entries if entry.mod_revision <= reach]
            return History(reach, (*standing, *changes))


async def _read(registry: Registry, range: str, after: int, until: int) -> list[Entry | Deletion]:
    """What changed after *after*. What goes on changing is read up to revision *until*, or there might be no end."""
    changes: list[Entry | Deletion] = []
    watch = cast("AsyncGenerator[Batch, None]", registry.watch(range, after=after))
    async with aclosing(watch) as batches:
        await anext(batches)  # it stands
        try:
            while not (changes and changes[-1].mod_revision >= until):
                async with asyncio.timeout(QUIET):
                    changes += (await anext(batches)).changes
        except TimeoutError:
            pass
    return changes
