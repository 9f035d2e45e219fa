"""The wire: what httpcore needs to be told, and what its exceptions mean. Shared by both flavours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from ..balancing.endpoint import Endpoint
from ..model.outcome import Outcome, OutcomeKind
from .link import Link

__all__ = ["Origin", "WireOptions", "as_httpx", "classify", "wire_errors"]

KEEPALIVE_MARGIN = 1.0
"""Seconds that we close an idle connection before the server does; equal times make a race that a request loses."""
KEEPALIVE_UNSAID = 2.0
"""Seconds that we believe a server keeps an idle connection if it does not say: gunicorn's default, the shortest usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOptions:
    """What a user may say about the connections. Clients with equal options share them."""

    verify: ssl.SSLContext | str | bool = True
    cert: Any = None
    trust_env: bool = True
    http1: bool = True
    http2: bool = False
    limits: httpx.Limits | None = None
    """Per endpoint. Default: as many connections as there are requests, all of them kept while they are fresh."""

    @property
    def max_connections(self) -> int | None:
        return self.limits.max_connections if self.limits else None

    @property
    def max_idle(self) -> int | None:
        return self.limits.max_keepalive_connections if self.limits else None

    def __hash__(self) -> int:
        return hash((self.verify, repr(self.cert), self.trust_env, self.http1, self.http2, repr(self.limits)))


@lru_cache(maxsize=32)
def _ssl_context(
    verify: ssl.SSLContext | str | bool, cert: Any, trust_env: bool, http2: bool
) -> ssl.SSLContext:
    """One context for all endpoints: making one costs 20 ms. Apart for HTTP/2, whose ALPN httpcore writes into it."""
    context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
    if cert is not None and isinstance(verify, str):  # beside a path httpx forgets the certificate
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    return context


class Origin:
    """Where an endpoint listens, in the bytes that httpcore wants, and how to make a connection to it."""

    __slots__ = ("_context", "_endpoint", "_options", "_origin", "_scheme")

    def __init__(self, endpoint: Endpoint, options: WireOptions) -> None:
        scheme, host, port = endpoint.address
        self._endpoint = endpoint
        self._options = options
        self._scheme = scheme.encode()
        self._origin = httpcore.Origin(self._scheme, host.encode("ascii"), port)
        self._context: ssl.SSLContext | None = None
        if scheme == "https":
            cert = options.cert if isinstance(options.cert, str | tuple | None) else tuple(options.cert)
            self._context = _ssl_context(options.verify, cert, options.trust_env, options.http2)

    def connection_settings(self) -> dict[str, Any]:
        """The arguments of httpcore's two connection classes."""
        said = self._endpoint.instance.http_keepalive
        expiry = max(0.0, (KEEPALIVE_UNSAID if said is None else said) - KEEPALIVE_MARGIN)
        limits = self._options.limits
        if limits is not None and limits.keepalive_expiry is not None:
            expiry = min(expiry, limits.keepalive_expiry)
        return {
            "origin": self._origin,
            "ssl_context": self._context,
            "keepalive_expiry": expiry,
            "http1": self._options.http1,
            "http2": self._options.http2,
        }

    def aim(
        self, request: httpx.Request, headers: list[tuple[bytes, bytes]], extensions: dict[str, Any]
    ) -> httpcore.Request:
        """*request* for this endpoint: the same in all but where it goes, and what is said to it alone."""
        origin = self._origin
        url = httpcore.URL(
            scheme=self._scheme, host=origin.host, port=origin.port, target=request.url.raw_path
        )
        return httpcore.Request(
            method=request.method, url=url, headers=headers, content=request.stream, extensions=extensions
        )


_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    # With HTTP/2: the server said goodbye while we were about to send.
    httpcore.ConnectionNotAvailable: httpx.RemoteProtocolError,
}


_LOCAL = (httpcore.PoolTimeout, httpcore.LocalProtocolError, httpcore.UnsupportedProtocol)


def as_httpx(error: Exception) -> Exception:
    """httpcore's exceptions as httpx's own, as httpx's transports do it; any other as it is."""
    translated = _ERRORS.get(type(error))
    if translated is None:
        return error
    ours = translated(_say(error))
    ours.__cause__ = error
    return ours


def _say(error: BaseException) -> str:
    """Its message, or that of what caused it: on trio httpcore says nothing about a certificate that is refused."""
    cause = error.__cause__ or error.__context__
    return str(error) or (_say(cause) if cause is not None else "")


@contextmanager
def wire_errors() -> Iterator[None]:
    """Have httpcore's exceptions raised `as_httpx`."""
    try:
        yield
    except Exception as error:
        ours = as_httpx(error)
        if ours is error:
            raise
        raise ours from error


def classify(error: Exception, latency: float, *, is_warm: bool = False, link: Link | None = None) -> Outcome:
    """What a failed attempt means for the next one.

    *error* as it was raised: one of httpx's own comes from the request's body, which may be read from somewhere else, and not
    from our wire. *is_warm*: whether the connection had been used before; *link* is its.
    """
    return Outcome(
        _kind(error, is_warm=is_warm, link=link), latency, is_warm=is_warm, error=type(error).__name__
    )


def _kind(error: Exception, *, is_warm: bool, link: Link | None) -> OutcomeKind:
    if link is not None and link.is_expired and isinstance(error, httpcore.TimeoutException):
        return OutcomeKind.EXPIRED
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
        return OutcomeKind.NOT_SENT
    if type(error) not in _ERRORS or isinstance(error, _LOCAL):
        return OutcomeKind.LOCAL
    is_closed = not isinstance(error, httpcore.TimeoutException)
    if is_warm and is_closed and link is not None and not link.has_answer:
        return OutcomeKind.STALE
    return OutcomeKind.NO_ANSWER
