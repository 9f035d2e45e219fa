"""One HTTP/2 connection to one member, by grpclib, set up for watches that live for weeks."""

from __future__ import annotations

import asyncio
import logging
import ssl
from time import monotonic
from typing import Any

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

from ...model.errors import ConfigError
from ..address import RegistryAddress
from .errors import NotSpoken, is_about_certificates

__all__ = ["MemberChannel", "make_ssl_context"]

KEEPALIVE_TIME = 10.0
"""Seconds between HTTP/2 pings. etcd refuses them more often than every 5 s by default."""
KEEPALIVE_TIMEOUT = 5.0
"""Seconds that the answer to a ping may take before the connection is given up."""
KEEPALIVE_SPACING = 5.0
"""Seconds between two pings at least, whatever made grpclib send one."""
# At DEBUG, hpack logs the headers that it encodes, and with them the token of our user.
if logging.getLogger("hpack").level == logging.NOTSET:
    logging.getLogger("hpack").setLevel(logging.INFO)

_WINDOW = 16 * 2**20
_HEADER, _SETTINGS = 9, 4
"""The length of an HTTP/2 frame's header, and the kind of the first frame that a server sends (RFC 9113, 3.4)."""


def make_ssl_context(address: RegistryAddress) -> ssl.SSLContext | None:
    """The TLS context for an ``etcds://`` address. Raises `ConfigError` for files that can't be read."""
    if address.scheme != "etcds":
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (address.ca, address.cert, address.key) if name)
        raise ConfigError(f"can't use the TLS files of the registry URL ({files}): {error}") from error
    context.set_alpn_protocols(["h2"])  # gRPC needs it, and an own context does not have it
    return context


class _Protocol(H2Protocol):
    """Knows whether its peer has spoken HTTP/2 at all, when it was last heard, and why it went."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._first = b""
        self.heard_at = 0.0
        self.lost: BaseException | None = None
        self.begun = asyncio.Event()
        """Set when the peer has begun to speak, or is gone."""

    def data_received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        if not self.begun.is_set():
            self._first += data[:_HEADER]
            if len(self._first) >= _HEADER:
                if self._first[3] != _SETTINGS:
                    self.connection.close()  # h2 might take it for a long frame, and wait for the rest
                    return
                self.begun.set()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is None:
            said = f"it said {self._first[:_HEADER]!r}" if self._first else "it closed the connection"
            exc = ConnectionResetError(said)
        self.lost = exc
        self.begun.set()
        super().connection_lost(exc)


class MemberChannel(Channel):
    """A grpclib channel with a keepalive that works while nothing is sent, and a quick end on TLS.

    grpclib's keepalive settings are private, and its default for pings without data turns the others off after two. On TLS
    a frozen member would be noticed 30 s late, asyncio's default wait for the peer's part of the shutdown.

    It is one connection: once lost it is not made anew behind the back of `Member`, which counts the attempts.
    """

    def __init__(
        self, host: str, port: int, *, context: ssl.SSLContext | None, server_name: str | None
    ) -> None:
        private: dict[str, Any] = {
            "_keepalive_time": KEEPALIVE_TIME,
            "_keepalive_timeout": KEEPALIVE_TIMEOUT,
            "_http2_max_pings_without_data": 0,
            "_http2_min_sent_ping_interval_without_data": KEEPALIVE_SPACING,
        }
        config = Configuration(
            http2_connection_window_size=_WINDOW,
            http2_stream_window_size=_WINDOW,
            ssl_target_name_override=server_name,
            **private,
        )
        super().__init__(host, port, ssl=context, config=config)
        self._transport: asyncio.BaseTransport | None = None
        self._is_closed = False
        self.streams = 0
        """How many there are; `Member` counts them."""
        self.made_at = 0.0
        self._doubted_at = 0.0

    @property
    def is_lost(self) -> bool:
        """Whether it was connected, and is no more."""
        return self._transport is not None and (self._transport.is_closing() or not self._connected)

    @property
    def lost(self) -> BaseException | None:
        """Why it was lost, once the transport has said so."""
        return self._protocol.lost if isinstance(self._protocol, _Protocol) else None

    @property
    def is_doubted(self) -> bool:
        """Whether it left a question without a word, and has not been heard since."""
        return self._doubted_at > self._heard_at

    def doubt(self, asked_at: float) -> None:
        """A question of *asked_at* (monotonic clock) was not answered in time. If nothing else was heard since, it may be dead.

        It is not closed for that: others may have watches on it, and the keepalive finds out.
        """
        if self._heard_at < asked_at:
            self._doubted_at = monotonic()

    @property
    def _heard_at(self) -> float:
        return self._protocol.heard_at if isinstance(self._protocol, _Protocol) else 0.0

    async def connect(self) -> None:
        """Connect, and wait until the peer has spoken: a port that takes connections is not yet a member that serves.

        Raises what the network or TLS raises, and `NotSpoken`.
        """
        try:
            protocol = await self.__connect__()
            if isinstance(protocol, _Protocol):
                await protocol.begun.wait()
                if protocol.lost is not None:
                    raise protocol.lost
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
            if is_about_certificates(error):
                raise
            raise NotSpoken(is_tls=self._ssl is not None) from error
        self.made_at = monotonic()

    def close(self) -> None:
        """Close at once. A peer behind TLS is not waited for: by then the loop may have ended."""
        self._is_closed = True
        super().close()
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
        self._transport = None

    async def __connect__(self) -> H2Protocol:
        if self._is_closed or self.is_lost:
            raise ConnectionResetError("Connection lost")
        return await super().__connect__()

    def _protocol_factory(self) -> H2Protocol:
        # grpclib's own handler, which it does not export, is made by its own factory.
        plain = super()._protocol_factory()
        return _Protocol(plain.handler, plain.config, plain.h2_config)

    async def _create_connection(self) -> H2Protocol:
        loop = asyncio.get_running_loop()
        if self._ssl is None:
            self._transport, protocol = await loop.create_connection(
                self._protocol_factory, self._host, self._port
            )
        else:
            self._transport, protocol = await loop.create_connection(
                self._protocol_factory,
                self._host,
                self._port,
                ssl=self._ssl,
                server_hostname=self._config.ssl_target_name_override,
                ssl_shutdown_timeout=1.0,
            )
        if self._is_closed:  # while it was connecting: nobody else will close what there is now
            self._transport.abort()
            raise ConnectionAbortedError("the channel was closed")
        return protocol
