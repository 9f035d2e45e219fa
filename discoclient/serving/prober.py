"""The prober asks a service that already runs whether it is well, again and again, and reports when the verdict changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from time import monotonic

import httpx

from ..model.errors import ConfigError
from ..model.policy import check_seconds
from .health import Health

__all__ = ["Probe", "Prober", "probe_http", "probe_tcp"]

Probe = Callable[[], Awaitable[str | None]]
"""Asks once; what is wrong, or ``None`` if nothing is. It need not watch the time."""

STARTING_INTERVAL = 0.25
"""Seconds between probes until the first good one, if that is shorter: a service that is ready should not wait for us."""


def probe_tcp(host: str, port: int) -> Probe:
    """A probe that is content when a connection is accepted."""

    async def probe() -> str | None:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            return f"no connection to {_authority(host, port)}: {_reason(error)}"
        writer.close()
        return None

    return probe


def probe_http(scheme: str, host: str, port: int, path: str) -> Probe:
    """A probe that is content with a 2xx answer to ``GET path``; a redirect is none.

    It takes a new connection each time, so that it notices when nobody listens any more, uses no proxy, and does not check
    certificates: it asks whether the service is well, not who it is.
    """
    if not path.startswith("/"):
        raise ConfigError(f"a health path begins with '/', such as '/healthz'; got {path!r}")
    url = f"{scheme}://{_authority(host, port)}{path}"

    async def probe() -> str | None:
        try:
            async with (
                httpx.AsyncClient(trust_env=False, verify=False, timeout=None) as client,
                client.stream("GET", url, headers={"user-agent": "discoclient health check"}) as response,
            ):
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"GET {url} failed: {_reason(error)}"
        return None if 200 <= status < 300 else f"GET {url} answered {status}"

    return probe


class Prober:
    """Probes every ``interval`` seconds (default 2), and gives each probe ``timeout`` seconds in all (default 1).

    *on_change* is called on the loop that `run` runs on, whenever the verdict of *health* changes.
    """

    def __init__(
        self,
        probe: Probe,
        health: Health,
        *,
        interval: float = 2.0,
        timeout: float = 1.0,
        on_change: Callable[[Health], None],
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._probe = probe
        self._health = health
        self._interval = check_seconds("interval", interval)
        self._timeout = check_seconds("timeout", timeout)
        self._on_change = on_change
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled. The first probe comes at once."""
        interval = min(self._interval, STARTING_INTERVAL)
        while True:
            began = self._clock()
            if self._health.record(await self._ask()):
                interval = self._interval
                self._on_change(self._health)
            await self._sleep(max(0.0, began + interval - self._clock()))

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._probe()
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    """The system's own word, which others wrap in theirs: "connection refused" says more than "all attempts failed"."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno is not None and (text := os.strerror(inner.errno)):
            return text.lower()
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
