"""``--workers N``: starts them, starts another for one that dies, and shows all of them at one admin address."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from .. import __version__
from ..admin.happenings import Happenings, iso
from ..admin.merging import merge
from ..admin.server import AdminServer
from ..settings import Settings
from .looking import ways
from .sockets import OURS, Sockets
from .worker import Worker

__all__ = ["Supervisor"]

logger = logging.getLogger("discoclient.sidecar")

LOOK = 0.5
"""Seconds between two looks at the workers."""
START_AGAIN = 0.2
"""Seconds until another worker is started for one that died; doubled, up to `SLOWEST`, while they die young."""
SLOWEST = 10.0
GROWN_UP = 5.0
GRACE = 2.0
"""Seconds after the time for draining in which a worker has to end by itself."""


class Supervisor:
    """As `Sidecar`, by several processes."""

    def __init__(self, settings: Settings, sockets: Sockets, arguments: Sequence[str]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._arguments = arguments
        self._folder = Path(tempfile.mkdtemp(prefix="disco-sidecar-"))
        self._began, self._started_at = time.monotonic(), iso(time.time())
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._states: dict[int, dict[str, Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._happenings = Happenings()
        self._admin: AdminServer | None = None
        self._is_ending = False
        self._all_here = asyncio.Event()
        self._shown = ways(settings, sockets)

    async def start(self) -> None:
        """Begin to start them."""
        loop = asyncio.get_running_loop()
        for number in range(self._settings.workers):
            worker = Worker(number, str(self._folder / f"{number}.sock"))
            self._tasks.append(loop.create_task(self._keep(worker)))
            self._tasks.append(loop.create_task(self._watch(worker)))
        listener = self._settings.admin
        if listener is not None:
            self._admin = AdminServer(
                self._state,
                sockets=[bound.dup() for bound in self._sockets[listener]],
                subscribe=self._happenings.subscribe,
                allow_hosts=[name.decode() for name in self._settings.hosts],
            )
            await self._admin.start()

    async def until_ready(self) -> None:
        """Until each worker has said how it does."""
        await self._all_here.wait()

    async def drain(self, timeout: float) -> bool:
        """As `Sidecar.drain`."""
        self._is_ending = True
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        ending = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        if not ending:
            return True
        _, late = await asyncio.wait(ending, timeout=timeout + GRACE)
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()
        return not late

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._admin is not None:
            await self._admin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep(self, worker: Worker) -> None:
        """Have one run, always."""
        wait = START_AGAIN
        while not self._ends():
            began = time.monotonic()
            process = await self._spawn(worker)
            self._processes[worker.number] = process
            code = await process.wait()
            self._states.pop(worker.number, None)
            if self._ends():
                return
            text = f"worker {worker.number} (pid {process.pid}) ended with {code}; another is started"
            logger.error("%s", text)
            self._happenings.add(None, "worker", text)
            wait = START_AGAIN if time.monotonic() - began > GROWN_UP else min(SLOWEST, wait * 2)
            await asyncio.sleep(wait)

    def _ends(self) -> bool:
        return self._is_ending

    async def _spawn(self, worker: Worker) -> asyncio.subprocess.Process:
        with suppress(FileNotFoundError):
            os.unlink(worker.admin)
        admin = self._settings.admin
        shared = [
            bound.fileno() for listener, all in self._sockets.items() if listener != admin for bound in all
        ]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "disco_sidecar",
            *self._arguments,
            env={**os.environ, **worker.environ(), OURS: ",".join(map(str, shared)), "NOTIFY_SOCKET": ""},
            pass_fds=shared,
            stdin=asyncio.subprocess.PIPE,
        )

    async def _watch(self, worker: Worker) -> None:
        transport = httpx.AsyncHTTPTransport(uds=worker.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=2.0) as client:
            while True:
                try:
                    self._states[worker.number] = (await client.get("/api/services")).json()
                    if len(self._states) == self._settings.workers:
                        self._all_here.set()
                except (httpx.HTTPError, ValueError):
                    self._states.pop(worker.number, None)
                    await asyncio.sleep(0.05)
                    continue
                await asyncio.sleep(LOOK)

    def _state(self) -> dict[str, Any]:
        """What the workers said last, added up."""
        merged = (
            merge(list(self._states.values()))
            if self._states
            else {"services": [], "events": [], "sidecar": {}}
        )
        missing = self._settings.workers - len(self._states)
        empty = {"connections": 0, "connections_total": 0, "requests": 0, "refused": {}, "registry": ""}
        facts = {
            **empty,
            **merged["sidecar"],
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime": time.monotonic() - self._began,
            "workers": self._settings.workers,
            "ways": self._shown,
            "is_draining": self._is_ending,
        }
        if missing:
            facts["unready"] = [
                *facts.get("unready", ()),
                f"{missing} of {self._settings.workers} workers do not answer",
            ]
        own = self._happenings.recent()
        events = sorted([*own, *merged["events"]], key=lambda event: str(event["at"]), reverse=True)
        return {**merged, "sidecar": facts, "events": events}
