"""One HTTP/2 connection to one member, by grpclib, set up for watches that live for weeks."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

from ...model.errors import ConfigError
from ..address import RegistryAddress

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


class MemberChannel(Channel):
    """A grpclib channel with a keepalive that works while nothing is sent, and a quick end on TLS.

    grpclib's keepalive settings are private, and its default for pings without data turns the others off after two. On TLS
    a frozen member would be noticed 30 s late, asyncio's default wait for the peer's part of the shutdown.
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

    def close(self) -> None:
        """Close at once. A peer behind TLS is not waited for: by then the loop may have ended."""
        self._is_closed = True
        super().close()
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
        self._transport = None

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
