"""The httpx face: `DiscoClient` and `AsyncDiscoClient`."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import httpx

from .balancing.balancer import Balancer
from .balancing.explanation import Explanation
from .model.errors import ConfigError
from .model.events import Hook
from .model.instance import check_service
from .model.policy import (
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    SlowStartPolicy,
    ThrottlePolicy,
)
from .transport.async_transport import AsyncDiscoTransport
from .transport.options import mark
from .transport.outside import AsyncOutside, Outside
from .transport.settings import WIRE
from .transport.sparing import SparingFace
from .transport.sync_transport import DiscoTransport
from .transport.wire import Engine

__all__ = ["AsyncDiscoClient", "DiscoClient"]


class DiscoClient(SparingFace, httpx.Client):
    """An `httpx.Client` for one service: ``DiscoClient("experiment").get("/users/1")``.

    It is httpx's own in all but where a request goes: to a live instance of the service, chosen for each request, and
    tried again on another one where that is safe (see `RetryPolicy`). Making one costs little and does no I/O; clients of
    the same service share what they know and their connections; one that is dropped without being closed leaks nothing.
    Requests to other hosts, redirects included, go there as with httpx and never reach an instance.

    Args:
        service: its name.
        registry: the registry's URL. Default: ``$DISCO_REGISTRY``, else ``etcd://127.0.0.1:2379``.
        balancer: ``peak_ewma`` (default), ``least_request``, ``round_robin``, ``random``, ``weighted_round_robin``,
        ``rendezvous``
            (with a ``hash_key`` per request), or a `Balancer`.
        retry: how often is tried again what may be (`calling.retries` has the table).
        outlier: when an instance that keeps failing is left alone.
        hedge: send a request that is late to a second instance too. Default: no.
        throttle: refuse here what the service would refuse there. Default: no.
        recovery: after an outage, let through what the instances that are back can carry. Default: no.
        slow_start: how a newcomer gets its share: from 10 % to all of it in 10 s, unless most are new.
        zone: where this process runs: instances there are preferred, as far as their capacity goes. Default: ``$DISCO_ZONE``;
        ``""``:
            zones don't matter.
        versions: shares of the requests by version, for a canary: ``{"2.4.1": 0.05}``. The other versions get the rest.
        subset: how many of the instances (of each zone and version, where these count) this process uses, if there are more.
            Default: all.
        vanish_grace: seconds that instances which vanished from the registry together, without draining, are kept as a last
            resort. Default 30, twice the default ttl; 0: not at all.
        deadline: seconds that a call may take: all attempts, the waits, and the body. Default: no limit but httpx's timeouts.
        last_known: a folder in which to keep what is known of the service, for a start while the registry is away. Default:
        none.
        hooks: objects that get every event (`Hook`).
        host_header: the ``Host`` header, in place of the service's name.
        server_name: the name that a TLS certificate of an ``https`` instance must be for. Default: the service's name.
        engine: what carries the requests to the instances: ``native``, our own HTTP/1.1 wire; ``httpcore``, which httpx comes
            with, for HTTP/2 and under trio; ``auto`` (default): native where it can do what is asked, else httpcore; or a
            function that gives an httpx transport for an `Instance`, such as one with a proxy or over a Unix socket.
        discovery_timeout: seconds that a call may wait for the first knowledge of the service. Default 5.
        base_url: a path that is put before every path, such as ``/api``.
        httpx_kwargs: everything else that `httpx.Client` takes. ``verify``, ``cert``, ``http1``, ``http2`` and ``limits`` (per
            instance) hold for the instances too; ``proxy``, ``transport`` and ``mounts`` for other hosts only.

    Raises:
        ConfigError: an argument is wrong; the message names the valid choices.

    A request raises what httpx raises, and `NoInstances` or `DiscoveryTimeout`, which are `httpx.TransportError`\\ s.
    ``response.extensions["disco"]`` says who answered (`Routed`); ``extensions={"disco": {...}}`` takes options for one
    request (`DiscoOptions`).
    """

    def __init__(
        self,
        service: str,
        *,
        registry: str | None = None,
        balancer: str | Balancer = "peak_ewma",
        retry: RetryPolicy = RetryPolicy(),
        outlier: OutlierPolicy = OutlierPolicy(),
        hedge: HedgePolicy | None = None,
        throttle: ThrottlePolicy | None = None,
        recovery: RecoveryPolicy | None = None,
        slow_start: SlowStartPolicy = SlowStartPolicy(),
        zone: str | None = None,
        versions: Mapping[str, float] | None = None,
        subset: int | None = None,
        vanish_grace: float = 30.0,
        deadline: float | None = None,
        last_known: str | os.PathLike[str] | None = None,
        hooks: Sequence[Hook] = (),
        host_header: str | None = None,
        server_name: str | None = None,
        engine: Engine = "auto",
        discovery_timeout: float = 5.0,
        base_url: str = "",
        mounts: Mapping[str, httpx.BaseTransport | None] | None = None,
        transport: httpx.BaseTransport | None = None,
        proxy: Any = None,
        **httpx_kwargs: Any,
    ) -> None:
        wire = {name: httpx_kwargs.pop(name) for name in WIRE if name in httpx_kwargs}
        self._disco = DiscoTransport(
            check_service(service),
            registry=registry,
            balancer=balancer,
            retry=retry,
            outlier=outlier,
            hedge=hedge,
            throttle=throttle,
            recovery=recovery,
            slow_start=slow_start,
            zone=zone,
            versions=versions,
            subset=subset,
            vanish_grace=vanish_grace,
            deadline=deadline,
            last_known=last_known,
            hooks=hooks,
            host_header=host_header,
            server_name=server_name,
            engine=engine,
            discovery_timeout=discovery_timeout,
            **wire,
        )
        super().__init__(
            base_url=_base_url(service, base_url),
            transport=transport or Outside({**wire, "proxy": proxy}),
            mounts={**(mounts or {}), f"all://{service}": self._disco},
            trust_env=wire.get("trust_env", True),
            **httpx_kwargs,
        )
        _clients.add(self)

    def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """As `httpx.Client.send`, to which ``get``, ``post``, ``stream`` and all the others lead."""
        mark(request, is_whole=not stream)
        return super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the service has an instance to call.

        Args:
            timeout: seconds, ``discovery_timeout`` by default.

        Raises:
            NoInstances: the service is known, and has none.
            DiscoveryTimeout: nothing is known of it.
        """
        self._disco.wait_ready(timeout)

    def explain(self) -> Explanation:
        """What would be chosen from now, and why: every instance with its state, cost and ejection. ``print`` it, or read its
        fields.

        Raises `DiscoveryTimeout` as a request would.
        """
        return self._disco.explain()

    def stats(self) -> dict[str, int]:
        """What the calls to the service have come to, in this process: counts by name, from the clients with equal policies."""
        return self._disco.stats()


class AsyncDiscoClient(SparingFace, httpx.AsyncClient):
    """An `httpx.AsyncClient` for one service, on asyncio and on trio. Everything said of `DiscoClient` holds."""

    def __init__(
        self,
        service: str,
        *,
        registry: str | None = None,
        balancer: str | Balancer = "peak_ewma",
        retry: RetryPolicy = RetryPolicy(),
        outlier: OutlierPolicy = OutlierPolicy(),
        hedge: HedgePolicy | None = None,
        throttle: ThrottlePolicy | None = None,
        recovery: RecoveryPolicy | None = None,
        slow_start: SlowStartPolicy = SlowStartPolicy(),
        zone: str | None = None,
        versions: Mapping[str, float] | None = None,
        subset: int | None = None,
        vanish_grace: float = 30.0,
        deadline: float | None = None,
        last_known: str | os.PathLike[str] | None = None,
        hooks: Sequence[Hook] = (),
        host_header: str | None = None,
        server_name: str | None = None,
        engine: Engine = "auto",
        discovery_timeout: float = 5.0,
        base_url: str = "",
        mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        proxy: Any = None,
        **httpx_kwargs: Any,
    ) -> None:
        wire = {name: httpx_kwargs.pop(name) for name in WIRE if name in httpx_kwargs}
        self._disco = AsyncDiscoTransport(
            check_service(service),
            registry=registry,
            balancer=balancer,
            retry=retry,
            outlier=outlier,
            hedge=hedge,
            throttle=throttle,
            recovery=recovery,
            slow_start=slow_start,
            zone=zone,
            versions=versions,
            subset=subset,
            vanish_grace=vanish_grace,
            deadline=deadline,
            last_known=last_known,
            hooks=hooks,
            host_header=host_header,
            server_name=server_name,
            engine=engine,
            discovery_timeout=discovery_timeout,
            **wire,
        )
        super().__init__(
            base_url=_base_url(service, base_url),
            transport=transport or AsyncOutside({**wire, "proxy": proxy}),
            mounts={**(mounts or {}), f"all://{service}": self._disco},
            trust_env=wire.get("trust_env", True),
            **httpx_kwargs,
        )
        _clients.add(self)

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """As `httpx.AsyncClient.send`."""
        mark(request, is_whole=not stream)
        return await super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `DiscoClient.wait_ready`."""
        await self._disco.wait_ready(timeout)

    async def explain(self) -> Explanation:
        """As `DiscoClient.explain`."""
        return await self._disco.explain()

    def stats(self) -> dict[str, int]:
        """As `DiscoClient.stats`."""
        return self._disco.stats()


def _base_url(service: str, path: str) -> str:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise ConfigError(f"base_url= is a path that begins with '/', such as '/api'; got {path!r}")
    try:
        httpx.URL(f"http://{service}").host  # noqa: B018 - which is where httpx reads it
    except UnicodeError as error:
        raise ConfigError(
            f"{service!r} can't be the host of a URL: what begins with 'xn--' is taken for a domain name in punycode, and "
            f"this is none ({error}). Choose another name for the service"
        ) from error
    return f"http://{service}{path}"


_clients: WeakSet[httpx.Client | httpx.AsyncClient] = WeakSet()


def _free_cookies() -> None:
    """In a forked child: the lock of a cookie jar may have been held by a thread of the parent, which is not here."""
    for client in _clients:
        client.cookies.jar._cookies_lock = threading.RLock()  # type: ignore[attr-defined]  # the standard library's own


os.register_at_fork(after_in_child=_free_cookies)
