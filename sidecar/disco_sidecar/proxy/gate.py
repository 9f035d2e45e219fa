"""What all connections of clients have in common: the services, the limits, the log; and who is here."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..http.reading import Limits, Message
from ..http.refusal import Refused
from .services import RETRY_AFTER, Services

if TYPE_CHECKING:
    from .client import Client
    from .exchange import Exchange
    from .raw import RawClient
    from .tunnel import TunnelEnd

__all__ = ["Gate", "Policy"]

SWEEP = 0.25
"""Seconds between two looks for what takes too long: so exact are the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How clients are treated. Times are seconds, sizes bytes.

    ``header_timeout`` (5): from a head's first byte to its last. ``idle_timeout`` (30): between two requests.
    ``read_timeout`` (60, as nginx's ``proxy_read_timeout``): without a byte from either side while a request is under way.
    ``drain_idle`` (1): as ``idle_timeout``, once the sidecar is to end. ``max_connections`` (4096). ``replay`` (65536): bodies
    of up to so much are kept, so that they can be sent again. ``ca``: a file with the authorities for instances with TLS.
    """

    limits: Limits = field(default_factory=Limits)
    header_timeout: float = 5.0
    idle_timeout: float = 30.0
    read_timeout: float = 60.0
    drain_idle: float = 1.0
    max_connections: int = 4096
    replay: int = 65536
    ca: str | None = None


class Gate:
    """On the loop of the proxy. *log_line* is given each line of the access log; ``None``: there is none."""

    def __init__(
        self,
        services: Services,
        policy: Policy,
        *,
        loop: asyncio.AbstractEventLoop,
        log_line: Callable[[str], None] | None = None,
    ) -> None:
        self.services = services
        self.policy = policy
        self.loop = loop
        self.clients: set[Client] = set()
        self.tunnels: set[TunnelEnd | RawClient] = set()
        self.total = 0
        """Connections so far."""
        self.refused: Counter[str] = Counter()
        self.is_draining = False
        self.emptied = asyncio.Event()
        """While it is to end: nothing is under way any more."""
        self.has_log = log_line is not None
        self._log_line = log_line
        self._sweeping: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look after the clients from now on."""
        self._sweeping = self.loop.call_later(SWEEP, self._sweep)

    def enter(self, client: Client) -> bool:
        self.total += 1
        self.clients.add(client)
        return len(self.clients) + len(self.tunnels) <= self.policy.max_connections

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        if self.is_draining:
            self._look()

    def enter_tunnel(self, end: TunnelEnd | RawClient) -> None:
        self.tunnels.add(end)

    def leave_tunnel(self, end: TunnelEnd | RawClient) -> None:
        self.tunnels.discard(end)
        if self.is_draining:
            self._look()

    def full(self) -> Refused:
        return Refused(
            503, "too_many_connections", "too many connections", is_final=True, retry_after=RETRY_AFTER
        )

    def drain(self) -> None:
        """Finish what is under way, and take nothing new on the connections that there are."""
        self.is_draining = True
        self._look()

    def abort(self) -> None:
        """End what is left."""
        for client in list(self.clients):
            client.transport.abort()
        for end in list(self.tunnels):
            end.transport.abort()

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.abort()

    def log(self, client: Client, exchange: Exchange, status: int, *, error: str | None = None) -> None:
        """A line for a request that was carried out, as far as it came."""
        if self._log_line is None:
            return
        instance, attempts = exchange.answered_by
        facts: dict[str, Any] = {
            **_request(exchange.message),
            "service": exchange.service.name,
            "client": client.address,
            "status": int(status),
            "seconds": round(exchange.seconds, 6),
            "instance": instance,
            "attempts": attempts,
        }
        if error is not None:
            facts["error"] = error
        if exchange.tried:
            facts["tried"] = list(exchange.tried)
        self._log_line(json.dumps(facts))

    def log_refusal(self, client: Client, message: Message | None, refusal: Refused) -> None:
        """A line for one that was not; *message* is ``None`` if it could not even be read."""
        if self._log_line is None:
            return
        facts = {
            **_request(message),
            "service": None,
            "client": client.address,
            "status": int(refusal.status),
            "error": refusal.reason,
        }
        self._log_line(json.dumps(facts))

    def is_gone(self, transport: asyncio.Transport) -> bool:
        """Whether a client whose bytes are not read for now has closed: only the kernel knows."""
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return True
        return struct.unpack("B", info)[0] in _CLOSED

    def _look(self) -> None:
        if not self.clients and not self.tunnels:
            self.emptied.set()

    def _sweep(self) -> None:
        self._sweeping = self.loop.call_later(SWEEP, self._sweep)
        now = monotonic()
        for client in list(self.clients):
            try:
                client.sweep(now)
            except Exception:
                logging.getLogger("discoclient.sidecar").exception("a client could not be looked after")
        self.services.sweep(now)


def _request(message: Message | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    if message is not None:
        facts["method"] = message.method.decode()
        path = message.target.partition(b"?")[0]  # a query may hold secrets, and so may what is no path
        facts["path"] = path.decode() if path.startswith(b"/") else None
    return facts


_CLOSED = frozenset({7, 8})
"""TCP_CLOSE and TCP_CLOSE_WAIT of Linux's ``tcp_states.h``."""
