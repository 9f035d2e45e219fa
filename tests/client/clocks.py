"""The clock that idle connections grow old by, in the hands of a test."""

from __future__ import annotations

import time
from types import SimpleNamespace

import httpcore
import pytest

from discoclient.transport import async_pool, native_async, native_sync, sync_pool

__all__ = ["IdleClock"]


class IdleClock:
    """Stands in for `time.monotonic` where an engine decides whether an idle connection has expired, and nowhere else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        for module in (httpcore._sync.http11, httpcore._async.http11):
            assert module.time is time
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.now))
        for module in (native_sync, native_async, sync_pool, async_pool):
            monkeypatch.setattr(module, "monotonic", self.now)

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
