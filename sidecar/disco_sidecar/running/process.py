"""The process: from settings to an exit code."""

from __future__ import annotations

import asyncio
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
from .sockets import Sockets, inherited, open_sockets
from .takeover import Offer

__all__ = ["run"]

logger = logging.getLogger("discoclient.sidecar")


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Until SIGTERM or SIGINT. *arguments*: those of the command, for a process that is to follow this one."""
    _raise_limit()
    for listener in settings.remote:
        logger.warning("%s can be reached from other machines; nothing asks who they are", listener)
    hub().kind = "sidecar"
    sockets = open_sockets(settings.listeners, inherited(os.environ))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, sockets))


async def _serve(settings: Settings, sockets: Sockets) -> int:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    sidecar = Sidecar(settings, sockets, loop)
    offer = Offer(sockets, loop)
    await sidecar.start()
    offer.begin()
    notify("READY=1", os.environ)
    await over.wait()
    notify("STOPPING=1", os.environ)
    offer.close()
    for each in sockets.values():
        for bound in each:
            bound.close()
    await sidecar.drain(settings.drain_timeout)
    await sidecar.close()
    return 0


def _raise_limit() -> None:
    """Each request takes two descriptors, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
