"""Registering a service, for people: `register` and its async twin `aregister`."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self

import anyio.to_thread

from ..control.hub import Hub, find_address, hub, is_current
from ..model.errors import ConfigError
from ..model.instance import Instance
from ..model.instance import State as InstanceState
from ..registry.address import RegistryAddress
from .arguments import LEAST_TTL, Arguments
from .registrar import Registrar

__all__ = ["LEAST_TTL", "AsyncRegistration", "Registration", "aregister", "own_address", "register"]


class Registration:
    """One registered instance. Made by `register`; a context manager that drains and deregisters on exit.

    Its methods wait for the background thread, so they are not for callbacks, which run there: `RuntimeError`. It does nothing
    in a forked child: the registration is its parent's.
    """

    def __init__(self, registrar: Registrar, hub: Hub, *, quiet: float, timeout: float) -> None:
        self._registrar = registrar
        self._hub = hub
        self._quiet = quiet
        self._timeout = timeout
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
        if self._is_mine():
            self._wait(self._registrar.announce, InstanceState.READY if is_ready else InstanceState.UNREADY)

    def drain(self) -> None:
        """Ask callers to leave, and go on serving for ``quiet`` seconds while they do. Cannot be taken back.

        The seconds count from when the registry has it, which is waited for up to 8 seconds. An exception that a signal's
        handler raises meanwhile (Ctrl-C) ends the wait; to be cancelled on a loop does not, and `close` waits for the rest.
        """
        if self._is_mine():
            _check_thread(self._hub)
            try:
                self._wait(self._registrar.drain, self._quiet)
            except BaseException:
                self._post(self._registrar.hurry)
                raise

    def close(self) -> None:
        """Drain if that was not done, then leave the registry. Closing twice is closing once, also at the same time."""
        if self._is_mine():
            self._wait(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        try:
            self._wait(self._register)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Leave, begun or not, and wait for nothing."""
        if is_current(self._hub):
            self._post(self._leave)

    def _begin_closing(self) -> None:
        """As `close`, without waiting."""
        if self._is_mine():
            self._post(self._close)

    def _is_mine(self) -> bool:
        return is_current(self._hub) and self._hub.background.is_running

    def _wait(self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> None:
        _check_thread(self._hub)
        with _silence_at_exit():
            self._submit(function, *arguments).result()

    def _post(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        with suppress(RuntimeError):  # the interpreter is shutting down
            self._submit(function)

    def _submit(
        self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: Any
    ) -> Future[object]:
        coroutine = function(*arguments)
        try:
            return self._hub.background.submit(coroutine)
        except BaseException:
            coroutine.close()
            raise

    # ---- on the background loop

    async def _register(self) -> None:
        # From the start: an exit meanwhile takes back what there is by then.
        self._forget = self._hub.at_close(self._leave)
        try:
            await self._registrar.begin(self._timeout)
        except BaseException:
            self._forget()
            raise

    async def _leave(self) -> None:
        await self._registrar.leave()
        self._forget()

    async def _close(self) -> None:
        await self._registrar.close(self._quiet)
        self._forget()


class AsyncRegistration:
    """The async twin of `Registration`: ``async with aregister(...) as registration``, or ``await aregister(...)``.

    Cancelled while it begins, it leaves nothing behind.
    """

    def __init__(self, prepare: Callable[[], Registration]) -> None:
        self._prepare = prepare
        self._registration: Registration | None = None

    def __repr__(self) -> str:
        return (
            f"<Async{repr(self._registration)[1:]}"
            if self._registration
            else "<AsyncRegistration, not begun>"
        )

    @property
    def instance(self) -> Instance:
        """As `Registration.instance`. Raises `RuntimeError` before it has begun."""
        return self._begun().instance

    @property
    def state(self) -> str:
        """As `Registration.state`."""
        return self._begun().state

    async def set_ready(self, is_ready: bool) -> None:
        """As `Registration.set_ready`."""
        await anyio.to_thread.run_sync(self._begun().set_ready, is_ready, abandon_on_cancel=True)

    async def drain(self) -> None:
        """As `Registration.drain`."""
        await anyio.to_thread.run_sync(self._begun().drain, abandon_on_cancel=True)

    async def aclose(self) -> None:
        """As `Registration.close`. Does nothing before it has begun."""
        if self._registration is not None:
            # Before anything is awaited: a cancellation of asyncio's own reaches into anyio's shield.
            self._registration._begin_closing()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._registration.close)

    close = aclose

    def __await__(self) -> Generator[Any, Any, AsyncRegistration]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._registration is None:
            # Threads that nobody waits for any more end by themselves: the first has begun nothing, the second is told to.
            registration = await anyio.to_thread.run_sync(self._prepare, abandon_on_cancel=True)
            try:
                await anyio.to_thread.run_sync(registration._begin, abandon_on_cancel=True)
            except BaseException:
                registration._abandon()
                raise
            self._registration = registration
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
        on_state: called with the new state whenever it changes, on the background thread, which keeps everybody's leases
            and watches: keep it short, and leave what waits (a method of the registration, a request) to a thread of yours.

    Raises:
        ConfigError: an argument is wrong, or the registry is ``static://...``, where nothing can be registered.
        RegistryError: the first registration failed. Nothing is left behind.
        RuntimeError: it was called on the background thread, by a callback.
    """
    registration = _prepare(**locals())
    registration._begin()
    return registration


def aregister(service: str, port: int, **options: Any) -> AsyncRegistration:
    """`register` for asyncio and trio: ``async with aregister(...)``, or ``await aregister(...)``. The same arguments."""
    given = inspect.signature(register).bind(service, port, **options)
    given.apply_defaults()
    return AsyncRegistration(lambda: _prepare(**given.arguments))


def _prepare(**given: Any) -> Registration:
    """What `register` returns, before it has begun. Raises `ConfigError`. May ask for this host's address, and wait for it."""
    arguments, shared = Arguments(**given), hub()
    _check_thread(shared)
    address, on_state = find_address(arguments.registry), arguments.on_state
    instance = arguments.instance(address, own_address)
    with _silence_at_exit():
        registry = shared.registry(address)
    registrar = Registrar(
        instance,
        registry=registry,
        keys=address.keys,
        hostnames=address.hostnames,
        ttl=arguments.ttl,
        settings=shared.settings,
        clock=monotonic,
        rng=shared.rng,
        on_state=(lambda state: on_state(str(state))) if on_state else lambda state: None,
    )
    return Registration(registrar, shared, quiet=arguments.quiet, timeout=arguments.timeout)


def _check_thread(shared: Hub) -> None:
    """Whoever waits for the background thread on that very thread waits for ever, and with it all leases and watches."""
    if shared.background.is_here:
        raise RuntimeError(
            "this waits for discoclient's background thread, and was called on it, by a callback such as on_state: "
            "have a thread of your own do it, for instance by a queue that the callback puts the state into"
        )


@contextmanager
def _silence_at_exit() -> Iterator[None]:
    """An error of a daemon thread when the interpreter exits: that it is cut short is no news, and not for standard error."""
    try:
        yield
    except BaseException:
        if threading.current_thread().daemon and not threading.main_thread().is_alive():
            raise SystemExit from None  # ends a thread without a word
        raise


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
