"""Telling the hooks of a call as a whole: that it began, and how it ended, whatever happened."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx

from ..model.events import CallEnded, CallInfo, CallStarted
from .attempts import Attempts

__all__ = ["Told"]


class Told:
    """A context manager around one call."""

    __slots__ = ("_attempts", "_began", "_info", "response")

    def __init__(self, attempts: Attempts[Any], info: CallInfo) -> None:
        self._attempts = attempts
        self._info = info
        self._began = monotonic()
        self.response: httpx.Response | None = None
        """To be set, if there is one."""

    def __enter__(self) -> Self:
        self._attempts.route.emit(CallStarted(self._info))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        response = self.response
        self._attempts.route.emit(
            CallEnded(
                self._info,
                attempts=self._attempts.count,
                seconds=monotonic() - self._began,
                status=response.status_code if response is not None else None,
                error=kind.__name__ if kind is not None else None,
                instance=response.extensions["disco"].instance if response is not None else None,
            )
        )
