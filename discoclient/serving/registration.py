"""Registering a service, for people: `register` and its async twin `aregister`."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self

import anyio.to_thread

from ..control.hub import Hub, find_address, hub, is_current
from ..model.errors import ConfigError
from ..model.instance import ID_PATTERN, Instance, check_service
from ..model.instance import State as InstanceState
from ..model.policy import check_seconds
from ..registry.address import RegistryAddress
from ..registry.static import FIXED
from .registrar import Registrar

__all__ = ["AsyncRegistration", "Registration", "aregister", "register"]

LEAST_TTL = 2.0
"""Seconds. etcd grants no shorter lease with its default election timeout."""


class Registration:
    """One registered instance. Made by `register`; a context manager that drains and deregisters on exit.

    Does nothing in a forked child: the registration is its parent's.
    """

    def __init__(self, registrar: Registrar, hub: Hub, quiet: float) -> None:
        self._registrar = registrar
        self._hub = hub
        self._quiet = quiet
        self._running: Future[None] | None = None
        self._is_drained = False
        self._forget: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Registration {self.instance.service}/{self.instance.id} at {self.instance.address}, {self.state}>"

    @property
    def instance(self) -> Instance:
        """The record as we want it to stand in the registry."""
        return self._registrar.instance

    @property
    def state(self) -> str:
        """``registered``, ``lost`` (it is being put back, for as long as it takes), ``draining`` or ``gone``."""
        return str(self._registrar.state)

    def set_ready(self, is_ready: bool) -> None:
        """Say whether the service is well. While it is not, callers come only if nothing else is left."""
        if self._is_mine() and not self._is_drained:
            self._wait(self._registrar.announce(InstanceState.READY if is_ready else InstanceState.UNREADY))

    def drain(self) -> None:
        """Ask callers to leave, and go on serving for ``quiet`` seconds while they do. Cannot be taken back."""
        if self._is_mine() and not self._is_drained:
            self._is_drained = True
            self._wait(self._drain())

    def close(self) -> None:
        """Drain if that was not done, then leave the registry. Closing twice is closing once."""
        if not self._is_mine() or self._running is None:
            return
        self.drain()
        self._forget()
        self._wait(self._registrar.leave())
        self._running.cancel()
        self._running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, timeout: float) -> None:
        self._running = self._hub.background.submit(self._registrar.run())
        try:
            self._wait(self._registrar.registered(timeout))
        except BaseException:
            self._wait(self._registrar.leave())
            self._running.cancel()
            self._running = None
            raise
        self._forget = self._hub.at_close(self._registrar.leave)

    async def _drain(self) -> None:
        await self._registrar.announce(InstanceState.DRAINING)
        await asyncio.sleep(self._quiet)

    def _is_mine(self) -> bool:
        return is_current(self._hub) and self._hub.background.is_running

    def _wait(self, coroutine: Any) -> None:
        self._hub.background.submit(coroutine).result()


class AsyncRegistration:
    """The async twin of `Registration`: ``async with aregister(...) as registration``, or ``await aregister(...)``."""

    def __init__(self, begin: Callable[[], Registration]) -> None:
        self._begin = begin
        self._registration: Registration | None = None

    def __repr__(self) -> str:
        return (
            f"<Async{repr(self._registration)[1:]}"
            if self._registration
            else "<AsyncRegistration, not begun>"
        )

    @property
    def instance(self) -> Instance:
        return self._begun().instance

    @property
    def state(self) -> str:
        return self._begun().state

    async def set_ready(self, is_ready: bool) -> None:
        await anyio.to_thread.run_sync(self._begun().set_ready, is_ready)

    async def drain(self) -> None:
        await anyio.to_thread.run_sync(self._begun().drain)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._begun().close)

    close = aclose

    def __await__(self) -> Generator[Any, Any, AsyncRegistration]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._registration is None:
            self._registration = await anyio.to_thread.run_sync(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _begun(self) -> Registration:
        if self._registration is None:
            raise RuntimeError(
                "not registered yet: use 'async with aregister(...)' or 'await aregister(...)'"
            )
        return self._registration


def register(
    service: str,
    port: int,
    *,
    host: str | None = None,
    scheme: str = "http",
    version: str | None = None,
    zone: str | None = None,
    weight: float = 100,
    metadata: Mapping[str, Any] | None = None,
    ttl: float = 15.0,
    http_keepalive: float | None = None,
    hostname: str | None = None,
    slot: str = "0",
    pid: int | None = None,
    instance_id: str | None = None,
    registry: str | None = None,
    quiet: float = 1.0,
    timeout: float = 10.0,
    on_state: Callable[[str], None] | None = None,
) -> Registration:
    """Register a service that is ready at *port*, and keep it registered, from a thread of its own.

    Call it when the service takes requests, not before: what is registered is called. When this returns, it is registered;
    what happens to the registry later is repaired in the background, for as long as it takes.

    Args:
        service: its name: 1 to 63 of a-z, 0-9 and ``-``.
        port: where it listens.
        host: the IP address that callers connect to. Default: ``$DISCO_HOST``, else the address of the interface that
            reaches the registry.
        scheme: ``http`` (default) or ``https``.
        version, zone, hostname, slot, metadata: to tell instances apart. Defaults: none, ``$DISCO_ZONE``,
            ``$DISCO_HOSTNAME`` or the host's name, ``"0"``, empty.
        weight: the share of requests, 0 to 10,000. Default 100.
        ttl: seconds after which a service that died leaves the registry by itself. Default 15, at least 2. Shorter
            ones cost the registry more and are lost more easily (etcd issues 9911 and 13156).
        http_keepalive: seconds that the server keeps an idle connection; callers close theirs a second earlier.
            Unset, callers assume 2, gunicorn's default and the shortest of the usual ones.
        pid: shown to people. Default: this process's.
        instance_id: for tests. Default: a new one, as it should be for each boot.
        registry: its URL. Default: ``$DISCO_REGISTRY``, else ``etcd://127.0.0.1:2379``.
        quiet: seconds to go on serving once the drain is in the registry. Default 1.
        timeout: seconds that the first registration may take. Default 10.
        on_state: called with the new state whenever it changes, on the background thread; keep it short.

    Raises:
        ConfigError: an argument is wrong, or the registry is ``static://...``, where nothing can be registered.
        RegistryError: the first registration failed. Nothing is left behind.
    """
    address = find_address(registry)
    if address.scheme == "static":  # at once, for no waiting helps
        raise ConfigError(FIXED)
    check_service(service)
    if instance_id is not None and not (isinstance(instance_id, str) and ID_PATTERN.fullmatch(instance_id)):
        raise ConfigError("instance_id must be 8 to 64 of a-z, 0-9 and '-'")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ConfigError(f"metadata must be a mapping, such as a dict; got {type(metadata).__name__}")
    if check_seconds("ttl", ttl) < LEAST_TTL:
        raise ConfigError(f"ttl must be {LEAST_TTL:g} seconds or more; got {ttl:g}")
    check_seconds("quiet", quiet, zero=True)
    check_seconds("timeout", timeout)
    instance = Instance(
        service=service,
        id=instance_id or uuid.uuid4().hex,
        scheme=scheme,
        host=host or os.environ.get("DISCO_HOST") or own_address(address),
        port=port,
        pid=os.getpid() if pid is None else pid,
        hostname=hostname or os.environ.get("DISCO_HOSTNAME") or socket.gethostname(),
        slot=slot,
        version=version,
        zone=zone or os.environ.get("DISCO_ZONE"),
        weight=weight,
        http_keepalive=http_keepalive,
        metadata=dict(metadata or {}),
        registered_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    shared = hub()
    registrar = Registrar(
        replace(instance),
        registry=shared.registry(address),
        keys=address.keys,
        hostnames=address.hostnames,
        ttl=ttl,
        settings=shared.settings,
        clock=monotonic,
        rng=shared.rng,
        on_state=(lambda state: on_state(str(state))) if on_state else lambda state: None,
    )
    registration = Registration(registrar, shared, quiet)
    registration._start(timeout)
    return registration


def aregister(service: str, port: int, **options: Any) -> AsyncRegistration:
    """`register` for asyncio and trio: ``async with aregister(...)``, or ``await aregister(...)``. The same arguments."""
    return AsyncRegistration(lambda: register(service, port, **options))


def own_address(address: RegistryAddress) -> str:
    """The address of the interface that reaches the registry. Nothing is sent."""
    if not address.members:
        return "127.0.0.1"
    host, port = address.members[0]
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(
            f"can't tell this host's address ({error}): pass host= or set $DISCO_HOST"
        ) from error
