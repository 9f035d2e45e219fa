"""``--workers N``: starts them, starts another for one that dies, and shows all of them at one admin address."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from discoclient.control.hub import find_address

from .. import __version__
from ..admin.happenings import Happenings, iso
from ..admin.merging import merge
from ..admin.server import AdminServer
from ..settings import Settings
from .bound import Sockets
from .looking import ways
from .program import program
from .remembered import Remembered
from .sockets import OURS
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

    def __init__(self, settings: Settings, sockets: Sockets) -> None:
        self._settings = settings
        self._sockets = sockets
        self._folder = Path(tempfile.mkdtemp(prefix="disco-sidecar-"))
        self._began, self._started_at = time.monotonic(), iso(time.time())
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._states: dict[int, dict[str, Any]] = {}
        self._answering: set[int] = set()
        self._gone = Remembered()
        self._tasks: list[asyncio.Task[None]] = []
        self._happenings = Happenings()
        self._admin: AdminServer | None = None
        self._is_ending = False
        self._all_here: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shown = ways(settings, sockets)
        self._registry = str(find_address(settings.registry))

    async def start(self, *, follows: bool = False) -> None:
        """Begin to start them. *follows*: see `Sidecar.start`."""
        loop = asyncio.get_running_loop()
        for number in range(self._settings.workers):
            worker = Worker(number, str(self._folder / f"{number}.sock"), self._settings.said)
            self._tasks.append(loop.create_task(self._keep(worker, follows=follows)))
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
        """Until each worker has said how it does. Raises `OSError` if one of them fails before."""
        await self._all_here

    async def drain(self, timeout: float) -> bool:
        """As `Sidecar.drain`."""
        self._is_ending = True
        for process in self._living():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        ending = [asyncio.ensure_future(process.wait()) for process in self._living()]
        if not ending:
            return True
        _, late = await asyncio.wait(ending, timeout=timeout + GRACE)
        for process in self._living():
            with suppress(ProcessLookupError):
                process.kill()
        return not late

    async def close(self) -> None:
        self._is_ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._living():
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes.values()))
        await self.leave_admin()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def leave_admin(self) -> None:
        """As `Sidecar.leave_admin`."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    def reopen_log(self) -> None:
        """As `Sidecar.reopen_log`: each worker has it open."""
        for process in self._living():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR1)

    async def _keep(self, worker: Worker, *, follows: bool) -> None:
        """Have one run, always."""
        wait = START_AGAIN
        while not self._ends():
            began = time.monotonic()
            text = f"worker {worker.number}"
            try:
                process = await self._spawn(replace(worker, follows=follows or bool(self._answering)))
            except OSError as error:
                text += f" could not be started: {error}"
            else:
                self._processes[worker.number] = process
                if self._ends():  # since it was begun
                    process.terminate()
                code = await process.wait()
                self._forget(worker)
                if self._ends():
                    return
                text += f" (pid {process.pid}) ended with {code}"
                if code > 0 and not self._all_here.done():
                    # What keeps it from starting keeps the next one, too.
                    self._all_here.set_exception(OSError(f"{text} before it served"))
                    return
            follows = False
            wait = START_AGAIN if time.monotonic() - began > GROWN_UP else min(SLOWEST, wait * 2)
            text += f"; another is started in {wait:g} s"
            logger.error("%s", text)
            self._happenings.add(None, "worker", text)
            await asyncio.sleep(wait)

    def _forget(self, worker: Worker) -> None:
        self._answering.discard(worker.number)
        state = self._states.pop(worker.number, None)
        if state is not None:
            self._gone.keep(state)

    def _living(self) -> list[asyncio.subprocess.Process]:
        return [process for process in self._processes.values() if process.returncode is None]

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
            *program(()),
            env={**os.environ, **worker.environ(), OURS: ",".join(map(str, shared)), "NOTIFY_SOCKET": ""},
            pass_fds=shared,
            stdin=asyncio.subprocess.PIPE,
        )

    async def _watch(self, worker: Worker) -> None:
        transport = httpx.AsyncHTTPTransport(uds=worker.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=2.0) as client:
            while True:
                try:
                    state = (await client.get("/api/services")).json()
                except (httpx.HTTPError, ValueError):
                    # What it said last still counts: it may only be slow.
                    self._answering.discard(worker.number)
                    await asyncio.sleep(0.05)
                    continue
                process = self._processes.get(worker.number)
                if process is not None and process.returncode is None:
                    self._states[worker.number] = state
                    self._answering.add(worker.number)
                    if len(self._answering) == self._settings.workers and not self._all_here.done():
                        self._all_here.set_result(None)
                await asyncio.sleep(LOOK)

    def _state(self) -> dict[str, Any]:
        """What the workers said last, added up."""
        empty: dict[str, Any] = {"connections": 0, "connections_total": 0, "requests": 0, "refused": {}}
        states = [self._states[number] for number in sorted(self._states)]
        nothing: dict[str, Any] = {"services": [], "events": [], "sidecar": empty}
        merged = self._gone.add_to(merge(states) if states else nothing)
        facts = {
            **merged["sidecar"],
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime": time.monotonic() - self._began,
            "workers": self._settings.workers,
            "pids": [process.pid for process in self._living()],
            "registry": self._registry,
            "ways": self._shown,
            "is_draining": self._is_ending,
            "unready": [*merged["sidecar"].get("unready", ()), *self._unready()],
        }
        own = self._happenings.recent()
        events = sorted([*own, *merged["events"]], key=lambda event: str(event["at"]), reverse=True)
        return {**merged, "sidecar": facts, "events": events}

    def _unready(self) -> list[str]:
        """One that serves is enough, once all have served."""
        missing = self._settings.workers - len(self._answering)
        if missing == self._settings.workers or (missing and not self._all_here.done()):
            return [f"{missing} of {self._settings.workers} workers do not answer"]
        return []
