"""Watching over a service that is not our child: registered when it is well, marked when it is not, taken out in the end."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias

from ..control.hub import hub
from ..serving.health import Health
from ..serving.prober import Probe, Prober
from ..serving.registration import Registration, register
from .errors import NOT_READY, Failure
from .output import OutputClosed, emit, remark
from .signals import until_stopped

__all__ = ["Watchover"]

REGISTER_TIMEOUT = 10.0
"""Seconds that the first registration may take."""

RETIRED = "retired"
"""Somebody asked for it through the registry, and all callers have left."""

News: TypeAlias = "bool | str | BaseException"
"""The verdict of the probes; the state of the registration; or why there will be no more verdicts."""


class Watchover:
    """*options* are what `register` takes beside service and port."""

    def __init__(self, service: str, port: int, options: Mapping[str, Any], *, ready_timeout: float) -> None:
        self._service = service
        self._port = port
        self._options = options
        self._ready_timeout = ready_timeout
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._was_lost = False

    def run(self, probe: Probe, health: Health, *, interval: float, timeout: float) -> int:
        """Until SIGINT or SIGTERM. Raises `Failure` if the service does not get well in time, and what `register` does."""
        prober = Prober(
            probe,
            health,
            interval=interval,
            timeout=timeout,
            on_change=lambda health: self._news.put(health.is_well),
        )
        probing = hub().background.submit(prober.run())
        probing.add_done_callback(self._probing_ended)
        registration: Registration | None = None
        try:
            with until_stopped():
                self._wait_until_well(health)
                registration = register(
                    self._service,
                    self._port,
                    **self._options,
                    on_state=self._news.put,
                    on_retire=lambda: self._news.put(RETIRED),
                    timeout=REGISTER_TIMEOUT,
                )
                instance = registration.instance
                _say(f"registered {instance.service} {instance.id} at {instance.address}")
                while (news := self._news.get()) != RETIRED:
                    self._follow(registration, health, news)
            if registration is not None:
                asked = registration.retirement
                _say("draining" if asked is None else f"drained; asked to retire: {asked}")
                with until_stopped():
                    registration.drain()
        finally:
            probing.cancel()
            if registration is not None:
                registration.close()
                _say("gone")
        return 0

    def _wait_until_well(self, health: Health) -> None:
        try:
            news = self._news.get(timeout=self._ready_timeout)
        except queue.Empty:
            raise Failure(
                f"{self._service} was not well within {self._ready_timeout:g} s: {health.problem}", NOT_READY
            ) from None
        if isinstance(news, BaseException):
            raise news

    def _follow(self, registration: Registration, health: Health, news: News) -> None:
        match news:
            case bool(is_well):
                registration.set_ready(is_well)
                _say("ready again" if is_well else f"unready: {health.problem}")
            case "lost":
                self._was_lost = True
                remark("the registration is lost; it is put back as soon as the registry allows")
            case "registered" if self._was_lost:
                self._was_lost = False
                remark("registered again")
            case BaseException():
                raise news

    def _probing_ended(self, probing: Future[None]) -> None:
        if not probing.cancelled() and (error := probing.exception()) is not None:
            self._news.put(error)


def _say(text: str) -> None:
    try:
        emit(text)
    except OutputClosed:  # nobody reads it, which is no reason to take the service out
        pass
