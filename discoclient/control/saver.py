"""The saver writes down what is known, for a start without the registry: one write at a time, and always the newest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..model.snapshot import Snapshot
from ..registry.codec import encode
from ..registry.last_known import LastKnownFile
from ..registry.protocol import Entry, Listing

__all__ = ["Saver"]

PAUSE = 1.0
"""Seconds between two writes at least: under churn only some of what was known is written down."""


class Saver:
    """For the background loop, whose time the disk does not take."""

    def __init__(self, file: LastKnownFile, key: Callable[[str], str]) -> None:
        """*key*: that of an instance, by its id."""
        self.file = file
        self._key = key
        self._newest: Snapshot | None = None
        self._writing: asyncio.Task[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        self._newest = snapshot
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._newest is not None:
            snapshot, self._newest = self._newest, None
            await asyncio.to_thread(self._save, snapshot)
            await asyncio.sleep(PAUSE)

    def _save(self, snapshot: Snapshot) -> None:
        entries = (
            # Any lease will do: it says that the key had one.
            Entry(self._key(instance.id), encode(instance, hostnames=True), 1, 1, 1)
            for instance in snapshot
        )
        self.file.save(Listing(snapshot.revision, tuple(entries)))
