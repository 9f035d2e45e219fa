"""For services on uvicorn: registered from when it listens until before it stops listening. The extra: ``[uvicorn]``.

::

    from discoclient.uvicorn import run

    run("service:app", "experiment", host="0.0.0.0", weight=100, log_level="warning")

Not in a lifespan function, where one would look for it: uvicorn runs the lifespan's startup *before* it listens, and its
shutdown *after* it has stopped listening, so that at both ends callers would be sent to a closed door. `Server` is uvicorn's
own with a registration around its main loop, for programs that make their server themselves.

Nothing of it is needed by a service that ``disco run`` starts::

    disco run experiment --health-path /healthz -- uvicorn service:app --host 0.0.0.0 --port {port}

A program that uses it may be started by ``disco run`` all the same, which then registers in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from .asgi import DiscoMiddleware
from .model.errors import ConfigError
from .serving.registration import Registration
from .serving.tenure import OPTIONS, Tenure, check_options, is_run_by_disco

__all__ = ["Server", "run"]

logger = logging.getLogger("uvicorn.error")

UNIX_SOCKET = "a Unix socket can't be registered: callers need an address and a port"

STEP = 0.05
"""Seconds between looks at whether the drain is over."""
LISTEN_FD = 3
"""The first descriptor that is handed over by the convention of systemd (sd_listen_fds(3))."""
LAST_WORDS = 1.0
"""Seconds that giving the lease back may take when a signal ended the wait: the process may die of it without another word."""


class Server(uvicorn.Server):
    """uvicorn's server, registered while it serves, its application behind a `DiscoMiddleware`.

    ::

        server = Server(uvicorn.Config(app, host="0.0.0.0", port=0), "experiment", weight=50)
        server.run()  # or: await server.serve()

    It registers when the application has started and the port is bound; with a registry that is away it serves, and registers
    as soon as it can. When it is to end (SIGTERM, Ctrl-C, ``should_exit``, ``limit_max_requests``, or somebody asks it to
    retire through the registry), it drains first, and answers all the while; only then does it stop listening and finish what
    is in flight, as uvicorn does. A second signal ends the drain's wait, a third one the server (``force_exit``).

    Args:
        config: uvicorn's. One process: no ``workers``, no ``reload``. Not a Unix socket, which can't be registered.
        service: its name in the registry.
        options: what `discoclient.register` takes. Other defaults: ``host``, the address that is registered, is the one that it
            listens at, if that is one address and not all of them; ``scheme`` and ``http_keepalive`` are what *config* says;
            ``on_retire`` ends the server.

    Raises:
        ConfigError: an option is wrong, or the configuration is for something that can't be registered.
        TypeError: there is no such option.
    """

    def __init__(self, config: uvicorn.Config, service: str, **options: Any) -> None:
        super().__init__(config)
        if config.workers > 1 or config.should_reload:
            raise ConfigError(
                "workers= and reload= start processes of their own: serve with one process here, or with "
                "gunicorn (discoclient.gunicorn), or put `disco run` in front of uvicorn's command"
            )
        if config.uds is not None:
            raise ConfigError(UNIX_SOCKET)
        defaults: dict[str, Any] = {
            "scheme": "https" if config.is_ssl else "http",
            "http_keepalive": float(config.timeout_keep_alive),
        }
        self._options = {**defaults, **options}
        check_options(service, self._options)
        self._service = service
        self._is_run = is_run_by_disco(service)
        self._tenure: Tenure | None = None
        self._is_draining = False
        self._is_hurried = False

    @property
    def registration(self) -> Registration | None:
        """``None`` until it is registered, and under ``disco run``. Its methods wait: in async code, call them in a thread."""
        return self._tenure.registration if self._tenure is not None else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's. The application is behind the middleware from its first request on."""
        app = self.config.loaded_app
        if not isinstance(app, DiscoMiddleware):  # the configuration may have been served before
            # Under `disco run` it finds its name in the environment.
            self.config.loaded_app = (
                DiscoMiddleware(app)
                if self._is_run
                else DiscoMiddleware(app, registration=lambda: self.registration)
            )
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """As uvicorn's, and then until the drain is over."""
        if self._is_run:
            logger.info("`disco run` registers %s", self._service)
            return await super().main_loop()
        self._tenure = tenure = self._begin()
        try:
            await super().main_loop()
            self.should_exit = True  # if it was the limit of requests that ended it: signals count from here
            return await self._drain(tenure)
        except BaseException:  # cancelled: it answers no more
            tenure.end()
            tenure.hurry()
            raise

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server, the second one the wait of its drain, the third one everything at once."""
        if not self._is_draining:
            super().handle_exit(sig, frame)
        elif not self._is_hurried:
            self._is_hurried = True
        else:
            self.force_exit = True

    def _begin(self) -> Tenure:
        host, port = _listener(self.servers)
        options = {"host": _one_address(host), **self._options}
        tenure = Tenure(self._service, port, options=options, retire=self._retire, log=logger)
        tenure.begin()
        return tenure

    async def _drain(self, tenure: Tenure) -> None:
        self._is_draining = True
        tenure.end()
        ticks = 0
        while not (tenure.is_over or tenure.registration is None or self._is_hurried or self.force_exit):
            await asyncio.sleep(STEP)
            ticks += 1
            # As in the main loop: responses are dated, and who watches over the server is told.
            await self.on_tick(ticks)
        tenure.hurry()
        for _ in range(round(LAST_WORDS / STEP)):
            if not tenure.is_over:
                await asyncio.sleep(STEP)
        self._is_draining = False

    def _retire(self) -> None:
        self.should_exit = True


def run(
    app: Callable[..., Any] | str,
    service: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    registered_host: str | None = None,
    **options: Any,
) -> None:
    """Serve *app*, registered as *service*, until a signal or the registry ends it. As ``uvicorn.run``.

    Args:
        app: an ASGI application, or where to import it from, such as ``"service:app"``.
        service: its name in the registry.
        host: where to listen. Default: this host alone; ``"0.0.0.0"`` for callers elsewhere.
        port: default 0, any free one; under ``disco run``: the one, or the socket, that it gives.
        registered_host: the IP address that callers connect to. Default: *host*, if that is one address and not all of them,
            else ``$DISCO_HOST``, else the address of the interface that reaches the registry.
        options: what `discoclient.register` takes, and what ``uvicorn.Config`` takes.

    Exits with 3, as uvicorn does, if the application did not start.

    Raises:
        ConfigError, TypeError: as `Server`.
    """
    registering = {name: options.pop(name) for name in OPTIONS & set(options)}
    if registered_host is not None:
        registering["host"] = registered_host
    if port == 0 and is_run_by_disco(service):
        port = int(os.environ.get("PORT") or 0)
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            options.setdefault("fd", LISTEN_FD)
    server = Server(uvicorn.Config(app, host=host, port=port, **options), service, **registering)
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn passes on once it has shut down
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _listener(servers: Iterable[asyncio.base_events.Server]) -> tuple[str, int]:
    """The address and the port of the first socket that has them."""
    for server in servers:
        for sock in server.sockets:
            name = sock.getsockname()
            if isinstance(name, tuple):
                return str(name[0]), int(name[1])
    raise ConfigError(UNIX_SOCKET)


def _one_address(host: str) -> str | None:
    """*host*, or ``None`` if it stands for all addresses of this host."""
    return None if ipaddress.ip_address(host).is_unspecified else host
