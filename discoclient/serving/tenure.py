"""A registration from its first moment to its last, in a thread of its own, beside a server that must wait for none of it.

A server's loop has other things to do than to wait for a registry: connections, heartbeats, signals. It says when it begins
and when it is about to end, and is told when that may be.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..control.hub import find_address, hub
from ..model.errors import DiscoError
from .arguments import Arguments
from .registration import Registration, prepare, register

__all__ = ["OPTIONS", "Log", "Tenure", "check_options", "is_run_by_disco"]

OPTIONS = frozenset(inspect.signature(register).parameters) - {"service", "port"}
"""The names of what `register` takes beside service and port."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds between attempts to register; doubled after each that fails."""


class Log(Protocol):
    """Where a server tells what it does: a `logging.Logger`, or gunicorn's."""

    def info(self, msg: str, /, *args: object) -> None: ...
    def warning(self, msg: str, /, *args: object) -> None: ...


def check_options(service: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` (or `TypeError`, for a name that is none) for what `register` would not take, at whatever port."""
    arguments = Arguments(**_arguments(service, 1, options))
    arguments.instance(find_address(arguments.registry), lambda address: "127.0.0.1")


def _arguments(service: str, port: int, options: Mapping[str, Any]) -> Mapping[str, Any]:
    given = inspect.signature(register).bind(service, port, **options)
    given.apply_defaults()
    return given.arguments


def is_run_by_disco(service: str) -> bool:
    """Whether ``disco run`` started us as *service*: then the registration is its own, and our name is in the environment."""
    return os.environ.get("DISCO_SERVICE") == service and bool(os.environ.get("DISCO_INSTANCE"))


class Tenure:
    """One registration's. Its methods return at once, and may be called from any thread and at any time.

    It registers when the server is ready, trying for as long as it takes: a registry that is away is no reason not to serve.
    `end` has it drain and leave; `is_over` says when the server may stop listening.

    Args:
        service, port, options: what `register` takes. An ``on_retire`` among them is called instead of *retire*.
        is_ready: asked once, in the thread, before anything is registered: waits until the server answers, or until the
            event that it is given is set; whether it answers.
        retire: called, in a thread, when somebody asked the instance to retire, and its drain is over: ends the server.
        log: told what happens.
    """

    def __init__(
        self,
        service: str,
        port: int,
        *,
        options: Mapping[str, Any],
        is_ready: Callable[[threading.Event], bool] = lambda ending: True,
        retire: Callable[[], None],
        log: Log,
    ) -> None:
        self.service = service
        self.registration: Registration | None = None
        """``None`` until it is registered for the first time."""
        self._arguments = _arguments(service, port, {"on_retire": self._retire, **options})
        self._beginning: Registration | None = None
        self._is_ready = is_ready
        self._end_server = retire
        self._log = log
        self._ending = threading.Event()
        self._over = threading.Event()
        self._then: Callable[[], None] = lambda: None
        # A daemon: a process that has to end while this waits for a registry does end, and gives back its lease on the way.
        self._thread = threading.Thread(target=self._live, name=f"disco-{service}", daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing is registered any more, nor will be."""
        return self._over.is_set()

    def begin(self) -> None:
        """Once, when the server is about to answer."""
        # Here and now, not in the thread: whoever forks while a thread imports leaves the child a lock that nobody opens.
        hub().registry(find_address(self._arguments["registry"]))
        self._thread.start()

    def end(self, then: Callable[[], None] = lambda: None) -> None:
        """Drain and leave, and call *then*, in the thread. What is not registered yet won't be, or is taken back."""
        if not self._ending.is_set():
            self._then = then
            self._ending.set()
            if self.registration is None and self._beginning is not None:
                self._beginning._abandon()

    def hurry(self) -> None:
        """End the wait of a drain now, and leave."""
        if self.registration is not None:
            self.registration.hurry()

    # ---- in the thread

    def _live(self) -> None:
        try:
            if self._is_ready(self._ending) and (registration := self._register()) is not None:
                self.registration = registration
                instance = registration.instance
                self._log.info("Registered %s %s at %s", instance.service, instance.id, instance.address)
                self._ending.wait()
                self._leave(registration)
        finally:
            self._over.set()
            self._then()

    def _register(self) -> Registration | None:
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            try:
                self._beginning = prepare(**self._arguments)
                if not self._ending.is_set():  # else `end` may have come too early to see it
                    self._beginning._begin()
                    return self._beginning
            except DiscoError as error:
                if not self._ending.is_set():
                    self._log.warning("Could not register %s, and try again: %s", self.service, error)
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return None

    def _leave(self, registration: Registration) -> None:
        id = registration.instance.id
        self._log.info("Draining %s %s", self.service, id)
        drained = registration.drain()
        if drained.is_clean:
            self._log.info("Drained %s %s in %.2f s", self.service, id, drained.seconds)
        else:
            self._log.warning("Did not drain %s %s: %s", self.service, id, drained.problem)
        registration.close()

    def _retire(self, reason: str) -> None:
        self._log.info("Asked to retire: %s", reason or "no reason given")
        self._end_server()
