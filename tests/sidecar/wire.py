"""A client at the level of bytes: what a test says to the sidecar, and what exactly came back."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

__all__ = ["Address", "Client", "Reply", "ask", "get", "post"]

Address: TypeAlias = "str | tuple[str, int]"
"""The path of a Unix socket, or host and port."""

_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Reply:
    """One response, as it came. Names of headers as they were spelt."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    version: str = "HTTP/1.1"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The header's only value, or nothing. Twice the same header is an error here."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {self.headers}"
        return values[0] if values else ""

    @property
    def says_close(self) -> bool:
        return "close" in [word.strip().lower() for word in ",".join(self.all("connection")).split(",")]


class Client:
    """One connection. A context manager. Nothing waits for longer than *timeout* seconds."""

    def __init__(self, address: Address, *, timeout: float = 5.0, receive_buffer: int | None = None) -> None:
        family = (
            socket.AF_UNIX
            if isinstance(address, str)
            else socket.AF_INET6
            if ":" in address[0]
            else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_unix = family == socket.AF_UNIX
        self._buffer = b""
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End the connection with a RST (TCP only)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> Self:
        """Send it all. That the other side has closed meanwhile is no error: what it answered is still to be read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
        return self

    def send_apart(self, *pieces: bytes) -> Self:
        """Send *pieces* so that each is read by itself: on a Unix socket the kernel says when one has been taken."""
        for piece in pieces:
            self.send(piece)
            self._wait_until_read()
        return self

    def send_bytewise(self, data: bytes) -> Self:
        return self.send_apart(*(data[at : at + 1] for at in range(len(data))))

    def reply(self, method: str = "GET") -> Reply:
        """The next response with its whole body; 1xx ones are responses too."""
        reply = self.head()
        if method == "HEAD" or reply.status in _WITHOUT_BODY or 100 <= reply.status < 200:
            return reply
        body, trailers = self._body(reply)
        return Reply(reply.status, reply.headers, body, trailers, reply.version)

    def final(self, method: str = "GET") -> Reply:
        """The next response that is not a 1xx."""
        while True:
            reply = self.reply(method)
            if reply.status >= 200 or reply.status == 101:
                return reply

    def head(self) -> Reply:
        """The next response's head; its body is left to be read."""
        lines = self.until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        version, status, *_ = lines[0].split(" ", 2)
        headers = tuple(_field(line) for line in lines[1:])
        return Reply(int(status), headers, version=version)

    def until(self, mark: bytes) -> bytes:
        """All that comes up to *mark*, with it."""
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    def exactly(self, count: int) -> bytes:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < count:
            self._buffer = b""
            self._more()
            parts.append(self._buffer)
            have += len(self._buffer)
        whole = b"".join(parts)
        self._buffer = whole[count:]
        return whole[:count]

    def rest(self) -> bytes:
        """All that comes until the other side closes, be it by RST."""
        parts = [self._buffer]
        self._buffer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(1 << 18):
                parts.append(data)
        return b"".join(parts)

    def is_closed(self, *, timeout: float = 2.0) -> bool:
        """Whether the other side closes within *timeout* seconds, and says nothing more."""
        self.socket.settimeout(timeout)
        try:
            return self.rest() == b""
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(self._timeout)

    def has_data(self, *, timeout: float = 0.0) -> bool:
        """Whether something (or the end) can be read within *timeout* seconds."""
        return bool(self._buffer) or bool(select.select([self.socket], [], [], timeout)[0])

    def _more(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionAbortedError(f"closed by the other side; unread so far: {self._buffer[:500]!r}")
        self._buffer += data

    def _body(self, reply: Reply) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        if reply.all("transfer-encoding"):
            assert reply.get("transfer-encoding").lower() == "chunked", reply
            assert not reply.all("content-length"), reply
            return self._chunked()
        if reply.all("content-length"):
            return self.exactly(int(reply.get("content-length"))), ()
        return self.rest(), ()

    def _chunked(self) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        parts: list[bytes] = []
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            parts.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        trailers: list[tuple[str, str]] = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            trailers.append(_field(line[:-2].decode("latin-1")))
        return b"".join(parts), tuple(trailers)

    def _wait_until_read(self) -> None:
        if not self._is_unix:
            return
        deadline = time.monotonic() + self._timeout
        while struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0"))[0]:
            assert time.monotonic() < deadline, "nobody reads"
            select.select([], [], [], 0.0)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    assert colon, f"no header: {line!r}"
    return name, value.strip()


def get(target: str, *headers: str, host: str = "localhost") -> bytes:
    """The bytes of a GET."""
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def post(target: str, body: bytes, *headers: str, method: str = "POST", host: str = "localhost") -> bytes:
    """The bytes of a POST with a ``Content-Length``."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def ask(address: Address, request: bytes, *, timeout: float = 5.0) -> Reply:
    """One request on a connection of its own, and its final response."""
    with Client(address, timeout=timeout) as client:
        return client.send(request).final(request.split(b" ", 1)[0].decode("latin-1"))
