"""The httpx face: `DiscoClient` and `AsyncDiscoClient`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from .balancing.balancer import Balancer
from .model.errors import ConfigError
from .model.instance import check_service
from .model.policy import OutlierPolicy, RetryPolicy
from .transport.async_transport import AsyncDiscoTransport
from .transport.outside import AsyncOutside, Outside
from .transport.sync_transport import DiscoTransport
from .transport.wire import WireOptions

__all__ = ["AsyncDiscoClient", "DiscoClient"]

_WIRE = ("verify", "cert", "trust_env", "http1", "http2", "limits")


class DiscoClient(httpx.Client):
    """An `httpx.Client` for one service: ``DiscoClient("experiment").get("/users/1")``.

    It is httpx's own in all but where a request goes: to a live instance of the service, chosen for each request, and
    tried again on another one where that is safe (see `RetryPolicy`). Making one costs little and does no I/O; clients of
    the same service share what they know and their connections; one that is dropped without being closed leaks nothing.
    Requests to other hosts, redirects included, go there as with httpx and never reach an instance.

    Args:
        service: its name.
        registry: the registry's URL. Default: ``$DISCO_REGISTRY``, else ``etcd://127.0.0.1:2379``.
        balancer: ``peak_ewma`` (default), ``least_request``, ``round_robin``, ``random``, or a `Balancer`.
        retry: what is tried again, and how often.
        outlier: when an instance that keeps failing is left alone.
        host_header: the ``Host`` header, in place of the service's name.
        server_name: the name that a TLS certificate of an ``https`` instance must be for. Default: the service's name.
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
        host_header: str | None = None,
        server_name: str | None = None,
        discovery_timeout: float = 5.0,
        base_url: str = "",
        mounts: Mapping[str, httpx.BaseTransport | None] | None = None,
        transport: httpx.BaseTransport | None = None,
        proxy: Any = None,
        **httpx_kwargs: Any,
    ) -> None:
        wire = {name: httpx_kwargs.pop(name) for name in _WIRE if name in httpx_kwargs}
        self._disco = DiscoTransport(
            check_service(service),
            registry=registry,
            balancer=balancer,
            retry=retry,
            outlier=outlier,
            host_header=host_header,
            server_name=server_name,
            discovery_timeout=discovery_timeout,
            wire=WireOptions(**wire),
        )
        super().__init__(
            base_url=_base_url(service, base_url),
            transport=transport or Outside({**wire, "proxy": proxy}),
            mounts={**(mounts or {}), f"all://{service}": self._disco},
            trust_env=wire.get("trust_env", True),
            **httpx_kwargs,
        )

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the service has an instance to call.

        Args:
            timeout: seconds, ``discovery_timeout`` by default.

        Raises:
            NoInstances: the service is known, and has none.
            DiscoveryTimeout: nothing is known of it.
        """
        self._disco.wait_ready(timeout)


class AsyncDiscoClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` for one service, on asyncio and on trio. Everything said of `DiscoClient` holds."""

    def __init__(
        self,
        service: str,
        *,
        registry: str | None = None,
        balancer: str | Balancer = "peak_ewma",
        retry: RetryPolicy = RetryPolicy(),
        outlier: OutlierPolicy = OutlierPolicy(),
        host_header: str | None = None,
        server_name: str | None = None,
        discovery_timeout: float = 5.0,
        base_url: str = "",
        mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        proxy: Any = None,
        **httpx_kwargs: Any,
    ) -> None:
        wire = {name: httpx_kwargs.pop(name) for name in _WIRE if name in httpx_kwargs}
        self._disco = AsyncDiscoTransport(
            check_service(service),
            registry=registry,
            balancer=balancer,
            retry=retry,
            outlier=outlier,
            host_header=host_header,
            server_name=server_name,
            discovery_timeout=discovery_timeout,
            wire=WireOptions(**wire),
        )
        super().__init__(
            base_url=_base_url(service, base_url),
            transport=transport or AsyncOutside({**wire, "proxy": proxy}),
            mounts={**(mounts or {}), f"all://{service}": self._disco},
            trust_env=wire.get("trust_env", True),
            **httpx_kwargs,
        )

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As `DiscoClient.wait_ready`."""
        await self._disco.wait_ready(timeout)


def _base_url(service: str, path: str) -> str:
    if path and not path.startswith("/"):
        raise ConfigError(f"base_url= is a path that begins with '/', such as '/api'; got {path!r}")
    return f"http://{service}{path}"
