"""SIGHUP: a process that does the same, perhaps by newer code, takes over, and this one ends when that one is ready."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

from .program import program

__all__ = ["Heir", "Successor"]

logger = logging.getLogger("discoclient.sidecar")

READY = "DISCO_SIDECAR_READY"
"""The descriptor that a successor closes when it serves, after a byte."""
TIMEOUT = 60.0
"""Seconds that a successor may take until it serves."""
LAST_WORDS = 1.0
"""Seconds that one which failed may take to end by itself."""


class Successor:
    """*on_ready* is called once it serves. If it fails this process goes on, and says so. *tell*: what systemd is told."""

    def __init__(
        self, arguments: Sequence[str], on_ready: Callable[[], object], tell: Callable[[str], object]
    ) -> None:
        self._arguments = arguments
        self._on_ready = on_ready
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self.is_ready = False

    @property
    def pid(self) -> int | None:
        """Of the one that is there or about to be."""
        return None if self._process is None else self._process.pid

    def begin(self) -> None:
        """For the loop. The sockets it asks us for itself."""
        if self._process is not None:
            logger.warning("SIGHUP: a successor (pid %d) is about to take over already", self._process.pid)
            return
        if os.getpid() == 1:
            logger.error(
                "SIGHUP: not as process 1, whose end would be its container's; restart the container"
            )
            return
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                program(self._arguments), env={**os.environ, READY: str(writing)}, pass_fds=(writing,)
            )
        except OSError as error:
            os.close(reading)
            logger.error("SIGHUP: a successor could not be started: %s", error)  # noqa: TRY400 - no fault of ours
            self._tell("READY=1")
            return
        finally:
            os.close(writing)
        logger.info("SIGHUP: a successor is starting, pid %d", self._process.pid)
        self._waiting = asyncio.get_running_loop().create_task(self._wait(self._process, reading))

    async def abandon(self) -> None:
        """This process is told to end: so is a successor that is not there yet."""
        if self._waiting is not None and not self.is_ready:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError):
                await self._waiting

    async def _wait(self, process: subprocess.Popen[bytes], reading: int) -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_reader(reading, heard.set)
        problem = ""
        try:
            async with asyncio.timeout(TIMEOUT):
                await heard.wait()
            self.is_ready = bool(os.read(reading, 1))
        except TimeoutError:
            problem = f"did not serve within {TIMEOUT:g} s, and is ended"
        except asyncio.CancelledError:
            process.terminate()
            raise
        finally:
            loop.remove_reader(reading)
            os.close(reading)
        if self.is_ready:
            # From us, for who is no main process yet may not be listened to.
            self._tell(f"READY=1\nMAINPID={process.pid}")
            self._on_ready()
            return
        code = await asyncio.get_running_loop().run_in_executor(None, _bury, process)
        self._process = None
        logger.error(
            "SIGHUP: the successor %s; this process goes on", problem or f"failed (exit code {code})"
        )
        self._tell("READY=1")


def _bury(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. It has failed, and may not linger."""
    try:
        return process.wait(LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Heir:
    """What a successor knows of its predecessor; of it alone, so it is taken out of *environ*."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        said = environ.pop(READY, None)
        self._descriptor = None if said is None else int(said)
        self.is_one = self._descriptor is not None
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)

    def report_ready(self) -> None:
        """The predecessor may go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # it has gone already
                os.write(descriptor, b"1")
            os.close(descriptor)
