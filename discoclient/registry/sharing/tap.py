"""One watch of the registry for several who want the same range: what it delivers is passed on to all of them, as it is."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Protocol

from ...model.errors import RegistryError, RegistryUnavailable, RevisionCompacted
from ..protocol import Batch, Proof, Registry
from .frames import encode_batch

__all__ = ["Parcel", "Queued", "Subscriber", "Tap"]

logger = logging.getLogger("discoclient.registry")

HISTORY, HISTORY_AGE = 1000, 30.0
"""So many changes of the last so many seconds are kept, so that who has just listed can join the watch. Who comes later than
that lists again."""


class Parcel:
    """A batch on its way to many: written down once."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    @cached_property
    def payload(self) -> bytes:
        return encode_batch(self.batch)


class Subscriber(Protocol):
    """Is told; must not wait."""

    def deliver(self, parcel: Parcel) -> None: ...

    def fail(self, error: RegistryError) -> None:
        """The watch ended for this subscriber. Nothing is delivered after that."""


class Tap:
    """Watches *range* while somebody subscribes. As raw as a registry: when it breaks, all are told, and may come back."""

    def __init__(self, registry: Registry, range: str) -> None:
        self._registry = registry
        self._range = range
        self._stream: _Stream | None = None

    @property
    def is_idle(self) -> bool:
        return self._stream is None

    def join(self, subscriber: Subscriber, after: int) -> None:
        """Everything after revision *after*, beginning with an empty batch when the watch stands."""
        stream = self._stream
        if stream is not None and after < stream.floor:
            if not stream.is_in_the_future:
                subscriber.fail(
                    RevisionCompacted("the watch that is shared began later", oldest=stream.floor)
                )
                return
            self._end(stream, RegistryUnavailable("the registry went back"))
            stream = None
        if stream is None:
            stream = self._stream = _Stream(after)
            stream.task = asyncio.ensure_future(self._follow(stream))
        stream.join(subscriber, after)

    def leave(self, subscriber: Subscriber) -> None:
        stream = self._stream
        if stream is not None and stream.leave(subscriber) and not stream.subscribers:
            self._stream = None
            stream.stop()

    def doubt(self, subscriber: Subscriber) -> None:
        """What the watch delivers proved wrong or not to be all: end it, unless that was done already."""
        if self._stream is not None and subscriber in self._stream.subscribers:
            self._end(self._stream, RegistryUnavailable("the watch that is shared was found wanting"))

    def note(self, revision: int) -> None:
        """The registry is at *revision* by now."""
        if self._stream is not None:
            self._stream.note(revision)

    def vouch(self, proof: Proof) -> None:
        """Let all know what one of them asked for."""
        if self._stream is not None:
            self._stream.vouch(proof)

    def close(self) -> None:
        if self._stream is not None:
            self._end(self._stream, RegistryUnavailable("the watch is shared no longer"))

    async def _follow(self, stream: _Stream) -> None:
        error: RegistryError = RegistryUnavailable("the watch ended")
        try:
            async for batch in self._registry.watch(self._range, after=stream.floor):
                stream.take(batch)
        except RegistryError as caught:
            error = caught
        except Exception as caught:  # a bug, ours or a dependency's: nobody is to wait for it in silence
            logger.exception("the shared watch of %s failed", self._range)
            error = RegistryError(f"{type(caught).__name__} in the registry client")
        self._end(stream, error)

    def _end(self, stream: _Stream, error: RegistryError) -> None:
        if self._stream is stream:
            self._stream = None
        stream.stop()
        for subscriber in stream.take_all():
            subscriber.fail(error)


class _Stream:
    """One watch, from its opening to its end, and what it delivered. Nothing of it outlives it: a registry that was restored
    has another history.
    """

    def __init__(self, floor: int) -> None:
        self.floor = floor
        """Everything after this revision is in the history, or will be."""
        self.task: asyncio.Task[None] | None = None
        self.subscribers: set[Subscriber] = set()
        self.is_in_the_future = False
        """Whether it was opened from a revision that the registry did not have yet: etcd waits for that in silence."""
        self._is_open = False
        self._latest = 0
        self._history: deque[tuple[float, Batch]] = deque()  # with when it came
        self._kept = 0

    def join(self, subscriber: Subscriber, after: int) -> None:
        self.subscribers.add(subscriber)
        if not self._is_open:
            return
        # Who heard of a later revision elsewhere need not doubt, unless this registry does not have it yet.
        subscriber.deliver(Parcel(Batch(self._latest if self.is_in_the_future else max(self._latest, after))))
        for _, batch in self._history:
            if batch.changes[-1].mod_revision > after:
                subscriber.deliver(Parcel(batch))

    def leave(self, subscriber: Subscriber) -> bool:
        if subscriber not in self.subscribers:
            return False
        self.subscribers.discard(subscriber)
        return True

    def take_all(self) -> set[Subscriber]:
        taken, self.subscribers = self.subscribers, set()
        return taken

    def take(self, batch: Batch) -> None:
        if not self._is_open:
            self._is_open = True
            self.is_in_the_future = batch.revision < self.floor
        self.note(batch.revision)
        if batch.changes:
            self._history.append((asyncio.get_running_loop().time(), batch))
            self._kept += len(batch.changes)
        self._forget()
        self._deliver(Parcel(batch))

    def note(self, revision: int) -> None:
        self._latest = max(self._latest, revision)

    def vouch(self, proof: Proof) -> None:
        if self._is_open:
            self.note(proof.probe.revision)
            self._forget()
            self._deliver(Parcel(Batch(proof.probe.revision, proof=proof)))

    def stop(self) -> None:
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def _forget(self) -> None:
        """What is too old, or too much. Called now and then: with each change, and when a silence was asked about."""
        oldest = asyncio.get_running_loop().time() - HISTORY_AGE
        while self._history and (self._kept > HISTORY or self._history[0][0] < oldest):
            _, batch = self._history.popleft()
            self._kept -= len(batch.changes)
            self.floor = batch.changes[-1].mod_revision

    def _deliver(self, parcel: Parcel) -> None:
        for subscriber in tuple(self.subscribers):
            subscriber.deliver(parcel)


class Queued:
    """A subscriber that is read as an async iterator."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Batch | RegistryError] = asyncio.Queue()

    def deliver(self, parcel: Parcel) -> None:
        self._arrived.put_nowait(parcel.batch)

    def fail(self, error: RegistryError) -> None:
        self._arrived.put_nowait(error)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        while True:
            found = await self._arrived.get()
            if isinstance(found, RegistryError):
                raise found
            yield found
