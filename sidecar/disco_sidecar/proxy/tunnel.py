"""Bytes both ways, whatever they mean: raw TCP, and what follows an upgrade."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .client import Client
    from .connection import Connection

__all__ = ["TunnelEnd", "join", "link", "stay_alive"]


class TunnelEnd(asyncio.Protocol):
    """One of two ends: what arrives at one leaves at the other, at the pace of the slower."""

    __slots__ = ("_is_ended", "is_full", "on_over", "other", "transport")

    transport: asyncio.Transport
    other: TunnelEnd

    def __init__(self, on_over: Callable[[TunnelEnd], None] | None = None) -> None:
        """*on_over* is called with this end when the connection is gone."""
        self.on_over = on_over
        self._is_ended = False
        self.is_full = False
        """Whether it takes no more for now."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._is_ended = True
        other = self.other
        if other._is_ended or not other.transport.can_write_eof():
            return False
        try:
            other.transport.write_eof()
        except OSError:  # gone already
            return False
        return True

    def connection_lost(self, error: Exception | None) -> None:
        other = self.other
        if error is None:
            other.transport.close()
        else:
            other.transport.abort()
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()


def link(one: TunnelEnd, other: TunnelEnd) -> None:
    one.other, other.other = other, one


def join(
    client: Client,
    connection: Connection,
    on_over: Callable[[TunnelEnd], None],
    *,
    first: bytes,
    behind: bytes,
) -> TunnelEnd:
    """Make a tunnel of two connections that spoke HTTP until now. *first*: what the instance has said already; *behind*: what
    the client has. The client's end.
    """
    near, far = TunnelEnd(on_over), TunnelEnd()
    link(near, far)
    near.transport, far.transport = client.transport, connection.transport
    near.is_full, far.is_full = client.is_full, connection.is_full
    for end in (near, far):
        end.transport.set_protocol(end)
        stay_alive(end.transport)
    if first:
        near.transport.write(first)
    if behind:
        far.transport.write(behind)
    for end in (near, far):
        if end.other.is_full:
            end.transport.pause_reading()
        else:
            end.transport.resume_reading()
    return near


def stay_alive(transport: asyncio.Transport) -> None:
    """A connection whose other end has vanished is found by the kernel: raw connections may be silent for days."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
