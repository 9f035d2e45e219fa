"""DNS on one address, by UDP and TCP: carries packets to `queries` and `answers` and back, and bounds what that may take.

Nothing that comes in here is worth more than a line at debug, and no packet can end the server.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Self, TypeAlias

from discoclient.model.errors import ConfigError
from discoclient.model.instance import Instance

from .answers import answer, fail, wanted
from .limits import DEFAULT_LIMITS, Limits
from .packets import refuse
from .queries import HEADER, MAX_QUERY, Query, Refusal, read_query

__all__ = ["Capacity", "DnsServer", "Lookup"]

logger = logging.getLogger("discoclient.sidecar.dns")

Lookup: TypeAlias = Callable[[str], Awaitable[Sequence[Instance] | None]]
"""The instances of a service that may be called; empty: there is no such service; ``None``: nothing is known."""

_TRIES = 20
"""For one port that is free in UDP and TCP alike, when the kernel chooses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What clients may take up.

    ``connections``: of TCP at once, another is closed at once. ``idle_timeout``: seconds in which a whole query must
    arrive, or a reply be taken. ``lookup_timeout``: seconds, then SERVFAIL; less than the 5 that resolvers wait.
    ``pending``: datagrams being answered at once, others are dropped (clients ask again).
    """

    connections: int = 64
    idle_timeout: float = 10.0
    lookup_timeout: float = 2.0
    pending: int = 256

    def __post_init__(self) -> None:
        for name in ("connections", "idle_timeout", "lookup_timeout", "pending"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"dns: {name} is {getattr(self, name)!r}: it must be more than 0")


DEFAULT_CAPACITY = Capacity()


class DnsServer:
    """Answers for ``disco.`` on *host* and *port* (0: any that is free), which is open inside ``async with``.

    *reuse_port* lets several processes share the address. On an address that isn't a loopback's anybody could have
    our answers sent to anybody else: it has to be allowed by *allow_remote*.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        lookup: Lookup,
        limits: Limits = DEFAULT_LIMITS,
        capacity: Capacity = DEFAULT_CAPACITY,
        rng: Random | None = None,
        reuse_port: bool = False,
        allow_remote: bool = False,
    ) -> None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(f"dns: {host!r} is no IP address: try 127.0.0.1 or ::1") from None
        if not address.is_loopback and not allow_remote:
            raise ConfigError(
                f"dns: {host} is not a loopback address (127.0.0.1, ::1), and others were not allowed"
            )
        if not 0 <= port <= 65535:
            raise ConfigError(f"dns: {port!r} is no port: it can be 0 to 65535")
        self._host, self._port = host, port
        self._family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._lookup, self._limits, self._capacity = lookup, limits, capacity
        self._rng = rng or Random()
        self._reuse_port = reuse_port
        self._answering: set[asyncio.Task[None]] = set()
        self._connected: set[asyncio.Task[None]] = set()
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._address: tuple[str, int] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on. Raises `RuntimeError` unless it is open."""
        if self._address is None:
            raise RuntimeError("the DNS server is not open")
        return self._address

    async def start(self) -> None:
        """Open the address. Raises `OSError` when it can't be had."""
        stream, datagram = self._bind()
        loop = asyncio.get_running_loop()
        try:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagram)
            self._tcp = await asyncio.start_server(self._on_connection, sock=stream, limit=2 + MAX_QUERY)
        except BaseException:
            stream.close()
            datagram.close()
            await self.close()
            raise
        self._address = self._host, stream.getsockname()[1]

    async def close(self) -> None:
        """Close the address; what is being answered is dropped. Does nothing the second time."""
        self._address = None
        server, self._tcp = self._tcp, None
        datagrams, self._udp = self._udp, None
        if server is not None:
            server.close()
        if datagrams is not None:
            datagrams.abort()
        tasks = [*self._answering, *self._connected]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop lets go of what was aborted in its next round
        if server is not None:
            await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- one query ---

    async def _reply(self, packet: bytes, *, stream: bool) -> bytes | None:
        query = None
        try:
            query = read_query(packet)
            if query is None:
                return None
            if isinstance(query, Refusal):
                return refuse(query)
            service = wanted(query)
            found = None
            if service is not None:
                async with asyncio.timeout(self._capacity.lookup_timeout):
                    found = await self._lookup(service)
            return answer(query, found, rng=self._rng, limits=self._limits, stream=stream)
        except Exception:
            # whatever keeps us from knowing or from saying it: the client hears that we can't, and the server goes on
            logger.debug("can't answer %r", query or packet, exc_info=True)
            return fail(query, limits=self._limits) if isinstance(query, Query) else None

    # --- UDP ---

    def _on_datagram(self, packet: bytes, client: tuple[Any, ...]) -> None:
        if len(self._answering) < self._capacity.pending:
            _ = _start(self._answer_datagram(packet, client), self._answering)

    async def _answer_datagram(self, packet: bytes, client: tuple[Any, ...]) -> None:
        reply = await self._reply(packet, stream=False)
        if reply is not None and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(reply, client)

    # --- TCP ---

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connected) >= self._capacity.connections or self._tcp is None:
            logger.debug("a connection too many is closed")
            writer.transport.abort()
            return
        task = _start(self._serve(reader, writer), self._connected)
        # not in a `finally`: a task that is cancelled before its first step has none
        task.add_done_callback(lambda _: None if writer.is_closing() else writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one connection in their order, until it ends, rests too long or sends what is no query."""
        writer.transport.set_write_buffer_limits(
            high=0
        )  # so that `drain` waits until the client has taken the reply
        try:
            while (packet := await self._next_query(reader)) is not None:
                reply = await self._reply(packet, stream=True)
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                async with asyncio.timeout(self._capacity.idle_timeout):
                    await writer.drain()
                await asyncio.sleep(
                    0
                )  # what has arrived is read without waiting: others have their turn in between
            writer.close()
        except (OSError, EOFError, TimeoutError) as error:
            logger.debug("a connection ended: %r", error)

    async def _next_query(self, reader: asyncio.StreamReader) -> bytes | None:
        """The next query; ``None`` when there is none, or its length can't be a query's."""
        async with asyncio.timeout(self._capacity.idle_timeout):
            try:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            except asyncio.IncompleteReadError:
                return None
            if not HEADER <= length <= MAX_QUERY:
                return None
            return await reader.readexactly(length)

    # --- sockets ---

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        """A listening socket and one for datagrams, with the same port."""
        for tries_left in reversed(range(_TRIES)):
            stream = self._bound(socket.SOCK_STREAM, self._port)
            try:
                return stream, self._bound(socket.SOCK_DGRAM, stream.getsockname()[1])
            except OSError as error:
                stream.close()
                if self._port or error.errno != errno.EADDRINUSE or not tries_left:
                    raise
        raise AssertionError("unreachable")

    def _bound(self, kind: socket.SocketKind, port: int) -> socket.socket:
        new = socket.socket(self._family, kind)
        try:
            new.setblocking(False)
            if self._family == socket.AF_INET6:
                new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._reuse_port:
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            new.bind((self._host, port))
        except BaseException:
            new.close()
            raise
        return new


class _Datagrams(asyncio.DatagramProtocol):
    """The datagrams of the server; while the kernel takes none from us, none is read."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._is_paused = False

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if not self._is_paused:
            self._server._on_datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        logger.debug("a client could not be reached: %r", exc)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False


def _start(work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    """A task for *work*, which is kept in *among* until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)
    return task
