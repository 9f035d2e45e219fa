"""Registering a service, for people: `register`. Its async twin is in `serving.async_registration`."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self, cast

from ..control.hub import Hub, find_address, hub, is_current
from ..model.errors import ConfigError
from ..model.instance import Instance
from ..model.instance import State as InstanceState
from ..registry.address import RegistryAddress
from ..registry.asked import Asked, Retirement
from .arguments import LEAST_TTL, Arguments
from .drain import Drained
from .load import Load
from .registrar import Registrar
from .retiring import call_on_retire

__all__ = ["LEAST_TTL", "Registration", "own_address", "prepare", "register"]


logger = logging.getLogger("discoclient.serving")


class Registration:
    """One registered instance. Made by `register`; a context manager that drains and deregisters on exit.

    Its methods wait for the background thread, so they are not for callbacks, which run there: `RuntimeError`. It does nothing
    in a forked child: the registration is its parent's.
    """

    def __init__(self, make: Callable[[Registration], Registrar], hub: Hub, arguments: Arguments) -> None:
        self._hub = hub
        self._quiet = arguments.quiet
        self._drain_timeout = arguments.drain_timeout
        self._timeout = arguments.timeout
        self._on_retire = arguments.on_retire
        self._loads: list[Load] = []
        self._retirement: Retirement | None = None
        self._registrar = make(self)
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

    @property
    def in_flight(self) -> int:
        """The requests that are being served, as the middlewares of this process which know of this registration count them."""
        return sum(load.in_flight for load in self._loads)

    @property
    def retirement(self) -> Retirement | None:
        """Why it was asked to retire through the registry, and by whom; ``None`` if it wasn't."""
        return self._retirement

    def attach(self, load: Load) -> None:
        """For a middleware: a drain waits until *load* has nothing in flight."""
        if load not in self._loads:
            self._loads.append(load)

    def set_ready(self, is_ready: bool) -> None:
        """Say whether the service is well. While it is not, callers come only if nothing else is left."""
        if self._is_mine():
            self._wait(self._registrar.announce, InstanceState.READY if is_ready else InstanceState.UNREADY)

    def set_weight(self, weight: float) -> None:
        """Change its share of the requests, 0 to 10,000."""
        if self._is_mine():
            self._wait(self._registrar.weigh, weight)

    def drain(self) -> Drained:
        """Ask callers to leave, and wait until they have; go on serving meanwhile. Cannot be taken back.

        It is over when every caller has said in the registry that it sends nothing more and waits for nothing, when the
        middleware counts nothing in flight, and when ``quiet`` seconds have passed since the registry knew of it (which is
        waited for up to 8 seconds); and after ``drain_timeout`` seconds in any case. How it went, it returns. An exception
        that a signal's handler raises meanwhile (Ctrl-C) ends the wait; to be cancelled on a loop does not, and `close`
        waits for the rest.
        """
        if not self._is_mine():
            return Drained(is_clean=False, seconds=0.0, problem="it is not this process's registration")
        _check_thread(self._hub)
        try:
            return cast("Drained", self._wait(self._registrar.drain, self._quiet, self._drain_timeout))
        except BaseException:
            self._post(self._registrar.hurry)
            raise

    def hurry(self) -> None:
        """End a drain that goes on, whoever waits for it, also one that begins later. Waits for nothing."""
        if self._is_mine():
            self._post(self._registrar.hurry)

    def leave(self) -> None:
        """Leave the registry at once, without a drain: for a service that is gone already."""
        if self._is_mine():
            self._wait(self._leave)

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

    def _wait(self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> object:
        _check_thread(self._hub)
        with _silence_at_exit():
            return self._submit(function, *arguments).result()

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
        await self._registrar.close(self._quiet, self._drain_timeout)
        self._forget()

    def _asked(self, asked: Asked) -> None:
        if asked.retire is not None and self._retirement is None:
            self._retirement = asked.retire
            logger.info("%s: asked to retire: %s", self.instance.id, asked.retire)
            _ = self._hub.background.spawn(self._retire(asked.retire))

    async def _retire(self, retirement: Retirement) -> None:
        await self._registrar.drain(self._quiet, self._drain_timeout)
        if self._on_retire is None:
            await self._close()
            return
        call_on_retire(self._on_retire, retirement.reason)


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
    drain_timeout: float = 20.0,
    timeout: float = 10.0,
    on_state: Callable[[str], None] | None = None,
    on_retire: Callable[..., object] | None = None,
    observed: bool = False,
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
        quiet: seconds to go on serving at least once the drain is in the registry, for callers that may not say there that
            they are callers. Default 1.
        drain_timeout: seconds that a drain may take at most: for callers that don't answer, and requests that don't end.
            Default 20.
        timeout: seconds that the first registration may take. Default 10.
        on_state: called with the new state whenever it changes, on the background thread, which keeps everybody's leases
            and watches: keep it short, and leave what waits (a method of the registration, a request) to a thread of yours.
        on_retire: called, with the reason if it takes an argument, when somebody asked the instance to retire through the
            registry (``disco drain``, ``disco run --replace``), and all callers have left: now is the time to end, for
            instance by ``lambda: os.kill(os.getpid(), signal.SIGTERM)``. On a thread of its own. Without it the registration
            leaves the registry, and that is all.
        observed: callers tell in the registry, every 2 seconds, how many of their requests to it failed, until
            `Registration.set_weight` is called. Default false.

    Raises:
        ConfigError: an argument is wrong, or the registry is ``static://...``, where nothing can be registered.
        RegistryError: the first registration failed. Nothing is left behind.
        RuntimeError: it was called on the background thread, by a callback.
    """
    registration = prepare(**locals())
    registration._begin()
    return registration


def prepare(**given: Any) -> Registration:
    """What `register` returns, before it has begun. Raises `ConfigError`. May ask for this host's address, and wait for it."""
    arguments, shared = Arguments(**given), hub()
    _check_thread(shared)
    address, on_state = find_address(arguments.registry), arguments.on_state
    instance = arguments.instance(address, own_address)
    with _silence_at_exit():
        registry = shared.registry(address)

    def make(registration: Registration) -> Registrar:
        return Registrar(
            instance,
            registry=registry,
            keys=address.keys,
            hostnames=address.hostnames,
            ttl=arguments.ttl,
            settings=shared.settings,
            clock=monotonic,
            rng=shared.rng,
            on_state=(lambda state: on_state(str(state))) if on_state else lambda state: None,
            on_asked=registration._asked,
            in_flight=lambda: registration.in_flight,
        )

    return Registration(make, shared, arguments)


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
