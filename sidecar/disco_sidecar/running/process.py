"""The process: from settings to an exit code. One that serves, or one that looks after several that do."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from collections.abc import Sequence

import uvloop

from discoclient.control.hub import hub
from discoclient.system.notify import notify

from ..places import Kind, Listener
from ..settings import Settings
from .bound import Sockets, close_sockets
from .sidecar import Sidecar
from .sockets import inherited, open_sockets
from .successor import Heir, Successor
from .supervisor import Supervisor
from .takeover import Offer
from .worker import Worker, find_worker

__all__ = ["run"]

logger = logging.getLogger("discoclient.sidecar")

YOUNG = 20_000
"""Objects until the collector looks for cycles, of which the data path makes none; looking after 700 costs 7 % of its time."""
OWN_FILES = 100
"""Descriptors that we need beside those of connections."""


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Until SIGTERM or SIGINT. *arguments*: those of the command, for a process that is to follow this one.

    Raises `ConfigError`, and `OSError` for an address that can't be had.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):  # of no use yet, and no reason to end
        signal.signal(number, signal.SIG_IGN)
    _raise_limit(2 * settings.policy.max_connections + OWN_FILES)
    worker, heir = find_worker(os.environ), Heir(os.environ)
    if worker is not None:
        settings = worker.settings(settings)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the supervisor's to answer
    else:
        for listener in settings.remote:
            logger.warning("%s can be reached from other machines; nothing asks who they are", listener)
    hub().kind = "sidecar"
    sockets = open_sockets(settings.listeners, inherited(os.environ), is_heir=heir.is_one)
    life = _Life(settings, sockets, arguments, worker, heir)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(life.live())
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # there is nothing left to end
            signal.signal(number, signal.SIG_IGN)
        close_sockets(sockets, keep=life.given)
        if worker is not None:
            worker.tidy()


class _Life:
    """What happens between the opened sockets and the exit code."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        arguments: Sequence[str],
        worker: Worker | None,
        heir: Heir,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._arguments = arguments
        self._worker = worker
        self._heir = heir
        self._over = asyncio.Event()
        self._at_once = asyncio.Event()
        self._offer: Offer | None = None
        self._leaving: asyncio.Task[None] | None = None

    @property
    def given(self) -> set[Listener]:
        """Those that another process has by now."""
        return set() if self._offer is None else self._offer.given

    async def live(self) -> int:
        loop = asyncio.get_running_loop()
        settings, sockets, worker = self._settings, self._sockets, self._worker
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        if worker is None:
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        else:
            worker.at_parents_end(loop, self._over.set)
        is_many = settings.workers > 1
        self._served = served = Supervisor(settings, sockets) if is_many else Sidecar(settings, sockets, loop)
        loop.add_signal_handler(signal.SIGUSR1, served.reopen_log)
        self._offer = offer = Offer(sockets, loop, self._given)
        self._successor = successor = Successor(self._arguments, self._over.set, self._tell)
        ending = loop.create_task(_wait(self._over))
        starting = loop.create_task(self._start())
        try:
            await asyncio.wait((ending, starting), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                if worker is None:
                    offer.begin()
                    loop.add_signal_handler(signal.SIGHUP, successor.begin)
                    self._tell(f"READY=1\nMAINPID={os.getpid()}")
                self._heir.report_ready()
                logger.info("ready, pid %d", os.getpid())
            await ending
            starting.cancel()
            await self._end()
        finally:
            starting.cancel()
            ending.cancel()
            offer.close()
            await served.close()
        return 0

    async def _start(self) -> None:
        follows = self._heir.is_one if self._worker is None else self._worker.follows
        await self._served.start(follows=follows)
        _settle()
        await self._served.until_ready()

    async def _end(self) -> None:
        loop, settings, offer = asyncio.get_running_loop(), self._settings, self._offer
        assert offer is not None
        if self._worker is None:
            loop.add_signal_handler(signal.SIGHUP, _do_nothing)
            await self._successor.abandon()
            if not self._successor.is_ready:
                self._tell("STOPPING=1")
        # Who wants to see how it ends can; until another process wants that address.
        offer.close(but=settings.admin)
        close_sockets(self._sockets, keep=offer.given, which=lambda listener: listener.kind is not Kind.ADMIN)
        if settings.admin in offer.given:
            await self._served.leave_admin()
        draining = loop.create_task(self._served.drain(settings.drain_timeout))
        hurrying = loop.create_task(_wait(self._at_once))
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            logger.warning("interrupted twice: what is under way is cut off")
        elif not draining.result():
            logger.warning("not all was finished within %g s: the rest is cut off", settings.drain_timeout)

    def _interrupted(self) -> None:
        """Who presses Ctrl-C a second time does not want to wait. A second SIGTERM means nothing: several may send one."""
        if self._over.is_set():
            self._at_once.set()
        self._over.set()

    def _given(self, listener: Listener, pid: int) -> None:
        if pid != self._successor.pid:
            logger.warning("%s is shared with another sidecar from now on, pid %d", listener, pid)
        if self._over.is_set() and listener == self._settings.admin:
            self._leaving = asyncio.get_running_loop().create_task(self._served.leave_admin())

    def _tell(self, state: str) -> None:
        notify(state, os.environ)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _do_nothing() -> None:
    """For a signal that would end us otherwise."""


def _settle() -> None:
    """What is there by now is there to stay: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)


def _raise_limit(needed: int) -> None:
    """Each request takes two descriptors, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.debug("the limit of open files stays at %d: %s", soft, error)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        logger.warning(
            "at most %d files may be open, and --max-connections can take %d: raise the limit (ulimit -n, LimitNOFILE=), "
            "or lower --max-connections",
            soft,
            needed,
        )
