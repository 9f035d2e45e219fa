"""SIGHUP: a process that does the same, perhaps by newer code, takes over, and this one ends when that one is ready."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

__all__ = ["Successor", "report_ready"]

logger = logging.getLogger("discoclient.sidecar")

READY = "DISCO_SIDECAR_READY"
"""The descriptor that a successor closes when it serves, after a byte."""


class Successor:
    """*on_ready* is called once it serves. If it fails this process goes on, and says so."""

    def __init__(self, arguments: Sequence[str], on_ready: Callable[[], object]) -> None:
        self._arguments = arguments
        self._on_ready = on_ready
        self._process: subprocess.Popen[bytes] | None = None
        self.is_ready = False

    def begin(self) -> None:
        """For the loop. The sockets it asks us for itself."""
        if self._process is not None:
            if self._process.poll() is None:
                logger.warning(
                    "SIGHUP: a successor (pid %d) is about to take over already", self._process.pid
                )
                return
            self._process = None
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "disco_sidecar", *self._arguments],
                env={**os.environ, READY: str(writing)},
                pass_fds=(writing,),
            )
        except OSError as error:
            logger.error("SIGHUP: a successor could not be started: %s", error)  # noqa: TRY400 - no fault of ours
            os.close(reading)
            return
        finally:
            os.close(writing)
        logger.info("SIGHUP: a successor is starting, pid %d", self._process.pid)
        loop.add_reader(reading, self._heard, loop, reading)

    def _heard(self, loop: asyncio.AbstractEventLoop, reading: int) -> None:
        said = os.read(reading, 1)
        loop.remove_reader(reading)
        os.close(reading)
        if said:
            self.is_ready = True
            self._on_ready()
        else:
            logger.error("SIGHUP: the successor failed; this process goes on")


def report_ready(environ: Mapping[str, str]) -> None:
    """Tell our predecessor, if there is one, that it may go."""
    descriptor = environ.get(READY)
    if descriptor:
        os.environ.pop(READY, None)
        os.write(int(descriptor), b"1")
        os.close(int(descriptor))
