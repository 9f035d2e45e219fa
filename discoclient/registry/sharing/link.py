"""The link of one process to the others on its host: does it lend, borrow, or go alone? Settled anew whenever that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ...model.errors import RegistryError, RegistryUnavailable
from ...model.schedule import jittered
from ..protocol import Registry
from .borrower import Borrower, LenderGone, LenderHangs
from .frames import Garbled
from .lender import Lender
from .place import Place, Unfit
from .source import Source, Wellspring

__all__ = ["Link", "LinkSettings"]

logger = logging.getLogger("discoclient.registry")


MOST_BRIEF = 3
"""Lenders in a row that let us go soon, before we go alone for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Times in seconds. ``settle``: how long nobody knows who lends, before everybody goes alone; ``look``: between two looks
    meanwhile. ``retry``: until one that goes alone looks again; ``distrust``: how long a lender that can't reach the registry
    is left. Both are doubled each time, up to ``rest``, which is also how long something is left that will not mend soon.
    ``steady``: who lends for so long is well.
    """

    settle: float = 1.0
    look: float = 0.03
    retry: float = 2.0
    rest: float = 60.0
    distrust: float = 5.0
    steady: float = 10.0


class Link:
    """Begins with the first question, on the event loop where that is asked."""

    def __init__(
        self,
        registry: Registry,
        place: Place,
        *,
        is_shared: Callable[[str], bool],
        pid: int,
        rng: Random,
        settings: LinkSettings,
    ) -> None:
        self._registry = registry
        self._place = place
        self._is_shared = is_shared
        self._pid = pid
        self._rng = rng
        self._settings = settings
        self._source: Source | None = None
        self._is_settled = False
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._trial: asyncio.Task[None] | None = None
        self._distrust = settings.distrust
        self._pause = settings.retry
        self._lender: Lender | None = None
        self._said = ""
        self._brief = 0
        self.is_closed = False

    @property
    def standing(self) -> str:
        """What this process is to the others, in words."""
        source = self._source
        if self._lender is not None:
            return f"watches for this host, borrowers: {self._lender.guests}"
        if isinstance(source, Borrower):
            return f"shared by pid {source.pid}"
        return f"watches alone{f': {self._said}' if self._said else ''}"

    async def look(self) -> str:
        """What somebody who joined the others now would find."""
        try:
            borrower = await Borrower.open(self._place)
        except OSError:
            return "nobody watches for this host now"
        except (Garbled, RegistryError, Unfit) as error:
            return f"not possible here: {error}"
        borrower.close()
        return f"pid {borrower.pid} watches for this host"

    async def source(self) -> Source | None:
        """Where to ask; ``None``: the registry itself. Waits for a moment while that is not settled."""
        if self.is_closed:
            return None
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        while not self._is_settled:
            await self._changed.wait()
        return self._source

    async def moved_from(self, source: Source | None) -> None:
        """Returns when there is another place to ask than *source*."""
        while not self._is_settled or self._source is source:
            await self._changed.wait()

    def distrust(self, source: Source, error: RegistryError, range: str) -> None:
        """*source* could not do what we could. Go alone, until it can."""
        if source is not self._source or not isinstance(source, Borrower) or source.lost.done():
            return
        logger.info("process %d, which watches for this host, fails; going alone: %s", source.pid, error)
        self._settle(None)
        source.end_watches(RegistryUnavailable(f"the shared watch can't be relied on: {error}"))
        self._trial = asyncio.ensure_future(self._try_again(source, range))

    def doubt(self, range: str) -> None:
        if self._source is not None:
            self._source.doubt(range)

    def trust(self, source: Source) -> None:
        """It does well."""
        if source is self._source:
            self._distrust = self._settings.distrust

    async def close(self) -> None:
        self.is_closed = True
        tasks = [task for task in (self._running, self._trial) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settle(None)
        await asyncio.sleep(0)  # lets the transports see their closing

    async def _run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                pause = await self._lend_or_borrow()
            except Unfit as error:
                self._complain(logging.WARNING, str(error))
                pause = self._settings.rest
            except Garbled as error:
                self._complain(
                    logging.WARNING, f"who listens on {self._place.socket_path} is none of us: {error}"
                )
                pause = self._settings.rest
            except Exception as error:  # a bug: it must not cost us the registry
                logger.exception("the watch can't be shared")
                self._said = str(error)
                pause = self._settings.rest
            if pause:
                self._settle(None)
                await asyncio.sleep(jittered(self._rng, pause, 0.2))

    async def _lend_or_borrow(self) -> float:
        """As long as that lasts; how long to go alone then."""
        deadline = asyncio.get_running_loop().time() + self._settings.settle
        while True:
            claim = self._place.claim()
            if claim is not None:
                wellspring = Wellspring(self._registry, pid=self._pid)
                lender = Lender(wellspring, self._place, claim, self._is_shared)
                try:
                    await lender.start()
                    self._lender = lender
                    self._settle(wellspring)
                    await asyncio.Event().wait()
                except OSError as error:
                    raise Unfit(f"{self._place.socket_path}: {error.strerror or error}") from error
                finally:
                    self._lender = None
                    await lender.close()
            try:
                borrower = await Borrower.open(self._place)
            except (OSError, LenderGone):  # who has the lock does not listen yet, or not any more
                if asyncio.get_running_loop().time() >= deadline:
                    self._complain(logging.INFO, "nobody listens, and somebody holds the lock")
                    return self._next_pause()
                await asyncio.sleep(jittered(self._rng, self._settings.look, 0.5))
                continue
            except LenderHangs as error:
                self._complain(logging.WARNING, str(error))
                return self._next_pause()
            except RegistryError as error:
                self._complain(logging.WARNING, f"the process that watches for this host refuses us: {error}")
                return self._settings.rest
            return await self._borrow(borrower)

    async def _borrow(self, borrower: Borrower) -> float:
        self._settle(borrower)
        began = asyncio.get_running_loop().time()
        try:
            why = await asyncio.shield(borrower.lost)
        finally:
            if self._trial is not None:
                self._trial.cancel()
            borrower.close()
        if asyncio.get_running_loop().time() - began >= self._settings.steady:
            self._said, self._brief, self._pause = "", 0, self._settings.retry
        if isinstance(why, LenderGone):
            self._brief += 1
            if self._brief > MOST_BRIEF:
                return self._next_pause()
            self._unsettle()  # somebody takes its place in a moment, perhaps we
            return 0.0
        if isinstance(why, LenderHangs):
            self._complain(logging.WARNING, str(why))
            return self._next_pause()
        raise why

    async def _try_again(self, source: Borrower, range: str) -> None:
        while True:
            pause, self._distrust = self._distrust, min(self._settings.rest, self._distrust * 2)
            await asyncio.sleep(jittered(self._rng, pause, 0.2))
            try:
                await source.probe(range, after=0)
            except RegistryError:
                continue
            self._settle(source)
            return

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(self._settings.rest, self._pause * 2)
        return pause

    def _settle(self, source: Source | None) -> None:
        self._source, self._is_settled = source, True
        self._wake()

    def _unsettle(self) -> None:
        self._source, self._is_settled = None, False
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _complain(self, level: int, text: str) -> None:
        """Once for each reason in a row."""
        if text != self._said:
            self._said = text
            logger.log(level, "the watch is not shared with the other processes on this host: %s", text)
