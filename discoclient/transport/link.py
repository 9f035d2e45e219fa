"""A link: what a connection of httpcore's is told about the request it carries, and what it tells of it.

httpcore knows timeouts for each read and write and no deadline, and does not say whether anything of an answer had come when a
connection broke. Both are known where the bytes pass: at its network streams, which are its public extension point.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from .home import is_trio
from .http1.bounded import Bounded

__all__ = ["AsyncLinkedBackend", "Link", "LinkedBackend"]


PIECE = 65536
"""Bytes that are written between two looks at the deadline."""


class Link(Bounded):
    """One connection's. ``has_answer`` is whether a byte of one has come."""

    __slots__ = ("_is_broken_off", "_stream", "deadline", "has_answer")

    def __init__(self) -> None:
        self.deadline = None
        self.has_answer = False
        self._is_broken_off = False
        self._stream: Any = None

    def break_off(self) -> None:
        """From another thread: have whoever reads or writes here fail at once."""
        self._is_broken_off = True
        carrier = self._stream.get_extra_info("socket") if self._stream is not None else None
        if carrier is not None:
            try:
                # TLS's own would first have whoever writes here go on in the clear.
                socket.socket.shutdown(carrier, socket.SHUT_RDWR)
            except OSError:
                return

    def opened(self, stream: Any) -> None:
        self._stream = stream
        if self._is_broken_off:
            self.break_off()


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, link: Link) -> None:
        self._inner = inner
        self._link = link
        link.opened(inner)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        link = self._link
        data = self._inner.read(max_bytes, link.bound(timeout, httpcore.ReadTimeout))
        if data:
            link.has_answer = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        link = self._link
        if link.deadline is None:
            self._inner.write(buffer, timeout)
            return
        # httpcore gives each piece that the system takes the whole timeout anew.
        for start in range(0, len(buffer), PIECE):
            self._inner.write(buffer[start : start + PIECE], link.bound(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        timeout = self._link.bound(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._link)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class LinkedBackend(httpcore.SyncBackend):
    def __init__(self, link: Link) -> None:
        self._link = link

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = self._link.bound(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options), self._link)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream, link: Link) -> None:
        self._inner = inner
        self._link = link
        link.opened(inner)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        link = self._link
        data = await self._inner.read(max_bytes, link.bound(timeout, httpcore.ReadTimeout))
        if data:
            link.has_answer = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, self._link.bound(timeout, httpcore.WriteTimeout))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        timeout = self._link.bound(timeout, httpcore.ConnectTimeout)
        return _AsyncStream(await self._inner.start_tls(ssl_context, server_hostname, timeout), self._link)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncLinkedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, link: Link) -> None:
        self._link = link

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        backend = httpcore.TrioBackend() if is_trio() else httpcore.AnyIOBackend()
        timeout = self._link.bound(timeout, httpcore.ConnectTimeout)
        return _AsyncStream(
            await backend.connect_tcp(host, port, timeout, local_address, socket_options), self._link
        )
