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

from ..settings import Settings
from .sidecar import Sidecar
from .sockets import Sockets, close_sockets, inherited, open_sockets
from .successor import Successor, report_ready
from .supervisor import Supervisor
from .takeover import Offer
from .worker import Worker, find_worker

__all__ = ["run"]

logger = logging.getLogger("discoclient.sidecar")

YOUNG = 20_000
"""Objects until the collector looks for cycles, of which the data path makes none; looking after 700 costs 7 % of its time."""


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Until SIGTERM or SIGINT. *arguments*: those of the command, for processes that are to do the same.

    Raises `ConfigError`, and `OSError` for an address that can't be had.
    """
    _raise_limit()
    worker = find_worker(os.environ)
    if worker is not None:
        settings = worker.settings(settings)
    else:
        for listener in settings.remote:
            logger.warning("%s can be reached from other machines; nothing asks who they are", listener)
    hub().kind = "sidecar"
    sockets = open_sockets(settings.listeners, inherited(os.environ))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(settings, sockets, arguments, worker))


async def _live(settings: Settings, sockets: Sockets, arguments: Sequence[str], worker: Worker | None) -> int:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if worker is not None:
        worker.at_parents_end(loop, over.set)
    is_many = settings.workers > 1
    served = Supervisor(settings, sockets, arguments) if is_many else Sidecar(settings, sockets, loop)
    offer, successor = Offer(sockets, loop), Successor(arguments, over.set)
    await served.start()
    _settle()
    ending = loop.create_task(_wait(over))
    starting = loop.create_task(served.until_ready())
    await asyncio.wait((ending, starting), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        if worker is None:
            offer.begin()
            loop.add_signal_handler(signal.SIGHUP, successor.begin)
            notify(f"READY=1\nMAINPID={os.getpid()}", os.environ)
        report_ready(os.environ)
        logger.info("ready, pid %d", os.getpid())
    else:
        starting.cancel()
    await ending
    if worker is None and not successor.is_ready:
        notify("STOPPING=1", os.environ)
    offer.close()
    close_sockets(sockets, keep=offer.given)
    if not await served.drain(settings.drain_timeout):
        logger.warning("not all was finished within %g s: the rest is cut off", settings.drain_timeout)
    await served.close()
    return 0


async def _wait(over: asyncio.Event) -> None:
    await over.wait()


def _settle() -> None:
    """What is there by now is there to stay: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)


def _raise_limit() -> None:
    """Each request takes two descriptors, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
