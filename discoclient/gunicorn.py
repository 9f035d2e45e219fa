"""For services on gunicorn: registered from when a worker answers until before the workers stop. No code in the service.

::

    # gunicorn.conf.py
    from discoclient.gunicorn import registered

    bind = "0.0.0.0:0"
    when_ready = registered("experiment", health_path="/healthz", weight=100)

Workers share a socket, so they share one registration, which is the master's: whichever of them a caller reaches is the one
that it meant. Its name is chosen when the configuration is read, before the application is loaded and before anything forks,
and put into ``$DISCO_SERVICE`` and ``$DISCO_INSTANCE``: a `DiscoMiddleware` without options finds it there, with and without
``preload_app``.

gunicorn's own hooks are wrong at both ends: ``when_ready`` runs before there is a worker, and ``on_exit`` after the listeners
were closed. So a thread of the master asks the workers until one answers, and SIGTERM drains before it stops them, while the
master's loop goes on and looks after them.

Nothing of it is needed by a service that ``disco run`` starts::

    disco run experiment --health-path /healthz -- gunicorn --bind 0.0.0.0:{port} service:app

With this configuration it may be started by ``disco run`` all the same, which then registers in its place.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import signal
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from .model.errors import ConfigError
from .serving.identity import EXPECT_HEADER, INSTANCE_HEADER
from .serving.tenure import Tenure, check_options, is_run_by_disco

__all__ = ["registered"]

PROBE_INTERVAL = 0.1
"""Seconds between questions to workers that don't answer yet."""
PROBE_TIMEOUT = 1.0
"""Seconds that the worker may be silent."""
ENOUGH = 65536
"""Bytes of an answer that are read: to hang up in the middle of it would be noted in some logs."""

_instance: str | None = None
"""Our id, once it is chosen. SIGHUP reads the configuration again, and the registration stays the one it was."""


def registered(service: str, *, health_path: str | None = None, **options: Any) -> Callable[[Any], None]:
    """The ``when_ready`` of a gunicorn configuration: *service* is registered while workers answer.

    - It registers when ``GET health_path`` answers 2xx; without a health path, when ``HEAD /`` is answered at all. With a
      registry that is away gunicorn serves, and registers as soon as it can.
    - SIGTERM, or somebody who asks the instance to retire through the registry, drains it and then stops gunicorn, as
      SIGTERM does. A second SIGTERM ends the drain's wait, a third one stops gunicorn at once.
    - SIGINT and SIGQUIT stop gunicorn at once, as ever (Ctrl-C reaches the workers anyway): the lease is given back meanwhile.
    - SIGHUP reloads the application, not the registration: a new ``bind``, or new options here, need a restart.
    - SIGUSR2 (an upgrade in place) is refused: callers would find two generations behind one address. Start the new version
      beside this one, at a port of its own.

    Supervisors that wait 10 s from SIGTERM to SIGKILL, as docker does, want a ``drain_timeout`` below that. systemd should send
    SIGTERM to the master alone: ``KillMode=mixed``.

    Args:
        service: its name in the registry.
        health_path: begins with ``/``. Default: none.
        options: what `discoclient.register` takes. Other defaults: ``host``, the address that is registered, is the one that
            gunicorn is bound to, if that is one address and not all of them; ``scheme`` and ``http_keepalive`` are what
            gunicorn's configuration says; ``on_retire`` stops gunicorn.

    Raises:
        ConfigError: an option is wrong.
        TypeError: there is no such option.
    """
    check_options(service, options)
    if health_path is not None and not health_path.startswith("/"):
        raise ConfigError(f"a health path begins with '/', such as '/healthz'; got {health_path!r}")
    global _instance
    if _instance is None:
        if is_run_by_disco(service):
            return lambda server: server.log.info("`disco run` registers %s", service)
        _instance = options.get("instance_id") or uuid.uuid4().hex
        os.environ["DISCO_SERVICE"], os.environ["DISCO_INSTANCE"] = service, _instance
    instance = _instance

    def when_ready(server: Any) -> None:
        _Master(server, service, health_path, {**options, "instance_id": instance}).begin()

    return when_ready


class _Master:
    """In gunicorn's master, beside its arbiter: *server*."""

    def __init__(self, server: Any, service: str, health_path: str | None, options: dict[str, Any]) -> None:
        host, port = _listener(server)
        self._server = server
        self._pid = os.getpid()
        scheme = "https" if server.cfg.is_ssl else "http"
        self._probe = _Probe(scheme, host, port, health_path, service, options["instance_id"])
        defaults: dict[str, Any] = {
            "host": None if ipaddress.ip_address(host).is_unspecified else host,
            "scheme": scheme,
            "http_keepalive": float(server.cfg.keepalive),
        }
        self._tenure = Tenure(
            service,
            port,
            options={**defaults, **options},
            is_ready=self._until_answered,
            retire=self._ask_to_stop,
            log=server.log,
        )
        self._terms = 0
        # What the arbiter's loop calls for each signal, between its looks at the workers, and whenever it ends.
        self._end, self._stop = server.handle_term, server.stop
        server.handle_term, server.stop, server.handle_usr2 = self._handle_term, self._leave, self._refuse

    def begin(self) -> None:
        self._tenure.begin()

    def _handle_term(self) -> None:
        self._terms += 1
        tenure = self._tenure
        if tenure.registration is None or tenure.is_over or self._terms > 2:
            self._end()
        elif self._terms == 1:
            tenure.end(then=self._ask_to_stop)
        else:
            tenure.hurry()

    def _leave(self, graceful: bool = True) -> None:
        # All is over after a drain. Otherwise it is not waited for: what is registered is taken back meanwhile.
        self._tenure.end()
        self._tenure.hurry()
        self._stop(graceful)

    def _refuse(self) -> None:
        self._server.log.error(
            "SIGUSR2 is refused: callers would find two generations behind the one address that is registered. "
            "Start the new version beside this one, at a port of its own"
        )

    # ---- in the tenure's thread

    def _ask_to_stop(self) -> None:
        os.kill(self._pid, signal.SIGTERM)

    def _until_answered(self, ending: threading.Event) -> bool:
        # Not while the first workers are being forked: they would inherit the question.
        while not ending.is_set():
            if len(self._server.WORKERS) >= self._server.num_workers and self._probe.is_answered():
                return True
            ending.wait(PROBE_INTERVAL)
        return False


class _Probe:
    """A question to whoever serves there."""

    def __init__(
        self, scheme: str, host: str, port: int, path: str | None, service: str, instance: str
    ) -> None:
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        self._scheme, self._host, self._port, self._path = scheme, host, port, path
        self._service, self._instance = service, instance

    def is_answered(self) -> bool:
        connection = self._connection()
        method, path = ("HEAD", "/") if self._path is None else ("GET", self._path)
        headers = {
            "User-Agent": "discoclient health check",
            EXPECT_HEADER: f"{self._service}/{self._instance}",
            "Connection": "close",
        }
        try:
            connection.connect()
            with contextlib.closing(connection), _shut_down_at_end(connection.sock):
                connection.request(method, path, headers=headers)
                with connection.getresponse() as response:
                    response.read(ENOUGH)
        except (OSError, http.client.HTTPException):
            return False
        if response.headers.get(INSTANCE_HEADER, self._instance) != self._instance:
            return False  # somebody else listens there
        return self._path is None or 200 <= response.status < 300

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port, timeout=PROBE_TIMEOUT)
        # It asks whether the service is well, not who it is: the certificate is for the name that callers use.
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=PROBE_TIMEOUT, context=context)


@contextlib.contextmanager
def _shut_down_at_end(sock: socket.socket) -> Iterator[None]:
    """For the worker it is over then, also if another one was forked meanwhile, and has it open, too."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _listener(server: Any) -> tuple[str, int]:
    """Where the first of its TCP sockets listens."""
    for listener in server.LISTENERS:
        name = listener.getsockname()
        if isinstance(name, tuple):
            return str(name[0]), int(name[1])
    if server.cfg.reuse_port:  # each worker binds a socket of its own, and the master has none
        for address in server.cfg.address:
            if isinstance(address, tuple) and address[1]:
                return address
    raise ConfigError("gunicorn is bound to no TCP port that could be registered: see its option --bind")
