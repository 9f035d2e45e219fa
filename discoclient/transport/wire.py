"""The wire: what a user may say about the connections, where they lead, and what their failures mean. For all engines."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import httpcore
import httpx

from ..balancing.endpoint import Endpoint
from ..model.errors import ConfigError
from ..model.instance import Instance
from ..model.outcome import Outcome, OutcomeKind
from .carrying import AsyncCarrier, Carrier
from .http1 import failures
from .http1.reader import ProtocolChange

__all__ = [
    "ENGINES",
    "Engine",
    "Place",
    "WireOptions",
    "as_httpx",
    "classify",
    "is_timeout",
    "lend",
    "wire_errors",
]

KEEPALIVE_MARGIN = 1.0
"""Seconds that we close an idle connection before the server does; equal times make a race that a request loses."""
KEEPALIVE_UNSAID = 2.0
"""Seconds that we believe a server keeps an idle connection if it does not say: gunicorn's default, the shortest usual."""

ENGINES = ("auto", "native", "httpcore")

Engine: TypeAlias = str | Callable[[Instance], httpx.BaseTransport | httpx.AsyncBaseTransport]
"""``auto``: native where it can do what is asked, which is HTTP/1.1 in threads and on asyncio, else httpcore."""


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
    engine: Engine = "auto"

    @property
    def max_connections(self) -> int | None:
        return self.limits.max_connections if self.limits else None

    @property
    def max_idle(self) -> int | None:
        return self.limits.max_keepalive_connections if self.limits else None

    @property
    def is_native(self) -> bool:
        """Whether our own engine is to be used where it can be."""
        return self.engine == "native" or (self.engine == "auto" and self.http1 and not self.http2)

    def __post_init__(self) -> None:
        if self.engine == "native" and (self.http2 or not self.http1):
            raise ConfigError(
                "engine='native' speaks HTTP/1.1 alone: leave http1= and http2=, or say engine='httpcore'"
            )
        if self.engine not in ENGINES and not callable(self.engine):
            raise ConfigError(
                f"engine= must be one of {', '.join(ENGINES)}, or a function that gives an httpx transport for an "
                f"Instance; got {self.engine!r}"
            )

    def __hash__(self) -> int:
        return hash(
            (
                self.verify,
                repr(self.cert),
                self.trust_env,
                self.http1,
                self.http2,
                repr(self.limits),
                self.engine,
            )
        )


@lru_cache(maxsize=32)
def _ssl_context(
    verify: ssl.SSLContext | str | bool, cert: Any, trust_env: bool, http2: bool
) -> ssl.SSLContext:
    """One context for all endpoints: making one costs 20 ms. Apart for HTTP/2, which has its own ALPN."""
    context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
    if cert is not None and isinstance(verify, str):  # beside a path httpx forgets the certificate
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    if not http2:  # with it, httpcore says by itself what may be spoken
        context.set_alpn_protocols(["http/1.1"])
    return context


class Place:
    """Where an endpoint listens, and on which terms a connection is made to it. ``expiry``: seconds that one is kept idle."""

    __slots__ = ("endpoint", "expiry", "host", "options", "port", "scheme", "tls")

    def __init__(self, endpoint: Endpoint, options: WireOptions) -> None:
        self.endpoint = endpoint
        self.options = options
        self.scheme, self.host, self.port = endpoint.address
        self.tls: ssl.SSLContext | None = None
        if self.scheme == "https":
            cert = options.cert if isinstance(options.cert, str | tuple | None) else tuple(options.cert)
            self.tls = _ssl_context(options.verify, cert, options.trust_env, options.http2)
        said, limits = endpoint.instance.http_keepalive, options.limits
        self.expiry = max(0.0, (KEEPALIVE_UNSAID if said is None else said) - KEEPALIVE_MARGIN)
        if limits is not None and limits.keepalive_expiry is not None:
            self.expiry = min(self.expiry, limits.keepalive_expiry)


T = TypeVar("T")


def lend(options: WireOptions, endpoint: Endpoint, kind: type[T]) -> T | None:
    """The user's own transport for *endpoint*, if the engine makes such. Raises `ConfigError` if it is none of *kind*."""
    if isinstance(options.engine, str):
        return None
    lent = options.engine(endpoint.instance)
    if not isinstance(lent, kind):
        raise ConfigError(f"engine= must give an httpx.{kind.__name__} here; got {lent!r}")
    return lent


_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    failures.ConnectExpired: httpx.ConnectTimeout,
    failures.ReadExpired: httpx.ReadTimeout,
    failures.WriteExpired: httpx.WriteTimeout,
    failures.ConnectFailure: httpx.ConnectError,
    failures.ReadFailure: httpx.ReadError,
    failures.WriteFailure: httpx.WriteError,
    failures.LocalProtocolFailure: httpx.LocalProtocolError,
    failures.RemoteProtocolFailure: httpx.RemoteProtocolError,
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


_NOT_SENT = (failures.ConnectFailure, httpcore.ConnectError, httpcore.ConnectTimeout)
_LOCAL = (
    failures.LocalProtocolFailure,
    httpcore.PoolTimeout,
    httpcore.LocalProtocolError,
    httpcore.UnsupportedProtocol,
)
_EXPIRED = (
    failures.ConnectExpired,
    failures.ReadExpired,
    failures.WriteExpired,
    httpcore.TimeoutException,
)


def as_httpx(error: Exception) -> Exception:
    """An engine's exceptions as httpx's own; any other as it is."""
    translated = _ERRORS.get(type(error))
    if translated is None:
        return error
    ours = translated(_say(error))
    ours.__cause__ = error
    return ours


def _say(error: BaseException) -> str:
    """Its message, or that of what caused it: on trio httpcore says nothing about a certificate that is refused.

    And where another engine could do it, which one.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ProtocolChange):
        return f"{error}: engine='httpcore' lets it"
    return str(error) or (_say(cause) if cause is not None else "")


@contextmanager
def wire_errors() -> Iterator[None]:
    """Have an engine's exceptions raised `as_httpx`."""
    try:
        yield
    except Exception as error:
        ours = as_httpx(error)
        if ours is error:
            raise
        raise ours from error


def is_timeout(error: Exception) -> bool:
    """Whether an engine's exception says that something took too long."""
    return isinstance(error, _EXPIRED)


def classify(
    error: Exception,
    latency: float,
    *,
    is_warm: bool = False,
    carrier: Carrier | AsyncCarrier | None = None,
) -> Outcome:
    """What a failed attempt means for the next one.

    *error* as it was raised: one of httpx's own comes from the request's body, which may be read from somewhere else, and not
    from our wire. *is_warm*: whether *carrier* had been used before.
    """
    name = _ERRORS.get(type(error), type(error)).__name__
    return Outcome(_kind(error, is_warm=is_warm, carrier=carrier), latency, is_warm=is_warm, error=name)


def _kind(error: Exception, *, is_warm: bool, carrier: Carrier | AsyncCarrier | None) -> OutcomeKind:
    if carrier is not None and carrier.is_expired and is_timeout(error):
        return OutcomeKind.EXPIRED
    if carrier is not None and not isinstance(error, carrier.raises):
        return OutcomeKind.LOCAL  # of another engine's connection, which the request's body is read from
    if isinstance(error, _NOT_SENT):
        return OutcomeKind.NOT_SENT
    if type(error) not in _ERRORS or isinstance(error, _LOCAL):
        return OutcomeKind.LOCAL
    if is_warm and not is_timeout(error) and carrier is not None and not carrier.has_answer:
        return OutcomeKind.STALE
    return OutcomeKind.NO_ANSWER
