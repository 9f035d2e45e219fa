"""The engine that httpx comes with: httpcore's connections, one by one and without its pool. For HTTP/2, and under trio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import httpcore
import httpx

from .carrying import Answer, Raises, Terms
from .http1.head import Field
from .link import AsyncLinkedBackend, Link, LinkedBackend
from .options import without_ours
from .wire import Place

__all__ = ["AsyncHttpcoreCarrier", "HttpcoreCarrier"]


class _Linked:
    """What the link knows, for both flavours."""

    raises: ClassVar[Raises] = (
        httpcore.ConnectionNotAvailable,
        httpcore.NetworkError,
        httpcore.PoolTimeout,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        httpcore.UnsupportedProtocol,
    )
    _link: Link
    _aimed_at: httpcore.Origin

    @property
    def deadline(self) -> float | None:
        return self._link.deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._link.deadline = deadline

    @property
    def has_answer(self) -> bool:
        return self._link.has_answer

    @property
    def is_expired(self) -> bool:
        return self._link.is_expired

    def hurry(self, deadline: float) -> None:
        self._link.hurry(deadline)

    def break_off(self) -> None:
        self._link.break_off()

    def _aim(self, request: httpx.Request, fields: Sequence[Field], terms: Terms) -> httpcore.Request:
        """*request* as httpcore wants it.

        Connecting is bounded by the policy, and TLS is checked against the service's name.
        """
        origin, extensions = self._aimed_at, without_ours(request.extensions)
        timeouts = dict(extensions.get("timeout") or ())
        connect, bound = timeouts.get("connect"), terms.connect_timeout
        if connect is None or connect > bound:
            timeouts["connect"] = bound
        extensions["timeout"] = timeouts
        if origin.scheme == b"https" and "sni_hostname" not in extensions:
            extensions["sni_hostname"] = terms.server_name
        url = httpcore.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, target=request.url.raw_path
        )
        self._link.has_answer = False
        return httpcore.Request(
            method=request.method,
            url=url,
            headers=list(fields),
            content=request.stream,
            extensions=extensions,
        )


def _origin(place: Place) -> httpcore.Origin:
    return httpcore.Origin(place.scheme.encode(), place.host.encode("ascii"), place.port)


def _settings(place: Place) -> dict[str, Any]:
    """The arguments of httpcore's two connection classes."""
    return {
        "ssl_context": place.tls,
        "keepalive_expiry": place.expiry,
        "http1": place.options.http1,
        "http2": place.options.http2,
    }


class HttpcoreCarrier(_Linked, httpcore.HTTPConnection):
    """A `Carrier`."""

    def __init__(self, place: Place) -> None:
        self._link = Link()
        self._aimed_at = _origin(place)
        super().__init__(self._aimed_at, network_backend=LinkedBackend(self._link), **_settings(place))

    @property
    def is_used(self) -> bool:
        return super().is_idle()

    def is_idle(self) -> bool:
        # One of HTTP/2 stays idle after an error; what it is good for, it says itself.
        return super().is_idle() and self.is_available()

    def is_overdue(self, now: float) -> bool:
        return self.has_expired()

    def has_ended(self) -> bool:
        return self.has_expired()

    def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        response = self.handle_request(self._aim(request, fields, terms))
        return Answer(response.status, response.headers, dict(response.extensions), response.stream)


class AsyncHttpcoreCarrier(_Linked, httpcore.AsyncHTTPConnection):
    """An `AsyncCarrier`."""

    def __init__(self, place: Place) -> None:
        self._link = Link()
        self._aimed_at = _origin(place)
        super().__init__(self._aimed_at, network_backend=AsyncLinkedBackend(self._link), **_settings(place))

    @property
    def is_used(self) -> bool:
        return super().is_idle()

    def is_idle(self) -> bool:
        return super().is_idle() and self.is_available()

    def is_overdue(self, now: float) -> bool:
        return self.has_expired()

    def has_ended(self) -> bool:
        return self.has_expired()

    async def carry(
        self,
        request: httpx.Request,
        fields: Sequence[Field],
        terms: Terms,
        on_head: Callable[[float], None],
    ) -> Answer:
        response = await self.handle_async_request(self._aim(request, fields, terms))
        return Answer(response.status, response.headers, dict(response.extensions), response.stream)
