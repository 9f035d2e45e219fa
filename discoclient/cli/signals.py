"""Ctrl-C and SIGTERM are how a command in the foreground is meant to end."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["until_stopped"]


class _Stopped(KeyboardInterrupt):
    """Raised by a signal, within the block that wants it."""


class until_stopped:
    """SIGINT, SIGTERM and SIGHUP end the block, quietly. A context manager for the main thread.

    The first one does. After it, and after the block, further ones are ignored until the process is gone, so that an
    impatient second Ctrl-C does not leave behind what is just being cleaned up; another ``until_stopped`` block may be ended
    by the next one.
    """

    def __init__(self) -> None:
        self._is_armed = True

    def __enter__(self) -> None:
        self._numbers = {signal.SIGINT, signal.SIGTERM}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is under nohup
            self._numbers.add(signal.SIGHUP)
        for number in self._numbers:
            signal.signal(number, self._stop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._is_armed = False
        for (
            number
        ) in self._numbers:  # not a handler that does nothing: the interpreter drops handlers before it ends
            signal.signal(number, signal.SIG_IGN)
        return isinstance(error, _Stopped)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise _Stopped
