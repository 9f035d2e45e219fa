"""Ctrl-C and SIGTERM are how a command in the foreground is meant to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["until_begun", "until_ended", "until_stopped"]


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
        self._numbers = _numbers()
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


class until_ended:
    """SIGINT, SIGTERM and SIGHUP each call *stop*, which is to bring the block to its end. For the main thread."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        for number in _numbers():
            signal.signal(number, lambda number, frame: self._stop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in _numbers():  # what remains is to exit, which nothing should cut short
            signal.signal(number, signal.SIG_IGN)


class until_begun:
    """SIGINT, SIGTERM and SIGHUP end the process within the block, as done and without a word: exit code 0.

    For a command that they are meant to end, while it is still being loaded: until its own `until_stopped`, which takes over.
    Nothing has begun by then that would have to be ended. Does nothing in another thread than the main one.
    """

    def __enter__(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, _end) for number in _numbers()} if is_main else {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is _end:
                signal.signal(number, before or signal.SIG_DFL)


def _numbers() -> set[signal.Signals]:
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {signal.SIGINT, signal.SIGTERM} | (set() if is_nohup else {signal.SIGHUP})


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # an exception would have to get through imports, and through whatever swallows it there
