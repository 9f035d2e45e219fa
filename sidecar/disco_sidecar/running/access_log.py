"""Where the lines of the access log go. Whatever happens there, it does not stop the traffic."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from discoclient.model.errors import ConfigError

__all__ = ["AccessLog", "check_log"]

logger = logging.getLogger("discoclient.sidecar")

STDOUT = 1
MODE = 0o640
"""Who asked for what is nobody else's business."""


class AccessLog:
    """Raises `ConfigError` when *where* (a path, or ``-`` for standard output) can't be written to.

    Each line is one write to the end of the file, so that several processes may share it; nothing is kept back in between.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._is_failing = False
        try:
            self._descriptor = _open(where)
        except OSError as error:
            raise _bad(where, error) from error

    def write(self, line: str) -> None:
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError as error:  # a full disk, or a closed pipe
            if not self._is_failing:
                logger.error("the access log %s can't be written, its lines are lost: %s", self._where, error)  # noqa: TRY400
            self._is_failing = True
            return
        if self._is_failing:
            self._is_failing = False
            logger.warning("the access log %s is written again", self._where)

    def reopen(self) -> None:
        """Go on in a new file, after the old one was moved away. If that fails, go on in the old one."""
        try:
            descriptor = _open(self._where)
        except OSError as error:
            logger.error("the access log %s can't be opened again: %s", self._where, error)  # noqa: TRY400
            return
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor != STDOUT:
            os.close(self._descriptor)


def check_log(where: str | None) -> None:
    """Raise `ConfigError` if there can be no such file. Creates none."""
    if where is None or where == "-":
        return
    path = Path(where)
    try:
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise _bad(where, f"{path.parent} is no folder that can be written to")
    except OSError as error:
        raise _bad(where, error) from error


def _open(where: str) -> int:
    if where == "-":
        return STDOUT
    return os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


def _bad(where: str, why: OSError | str) -> ConfigError:
    text = why if isinstance(why, str) else why.strerror or str(why)
    return ConfigError(
        f"--access-log {where}: {text}; give a file that can be written to, or - for standard output"
    )
