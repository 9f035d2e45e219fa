"""Ends of a connection that are slow on purpose: a reader of a large answer, and a service that takes an upload slowly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import Self

__all__ = ["PACE", "SlowServer", "read_slowly", "write_fast"]

PACE = 1_000_000
"""Bytes a second, for each connection."""
_TICK = 0.05
_PIECE = b"x" * 65_536
_TIMEOUT = 10.0


def read_slowly(
    port: int, path: str, *, clients: int, seconds: float, look: Callable[[], float]
) -> tuple[int, float]:
    """As many *clients* as are told each GET *path*, and read `PACE` of the answer.

    Returns the bytes they got, and the most that *look* said meanwhile.

    Raises:
        RuntimeError: an answer ended early.
    """
    budget, got, most = int(PACE * _TICK), 0, look()
    with ExitStack() as stack:
        sockets = [stack.enter_context(_connect(port)) for _ in range(clients)]
        for each in sockets:
            each.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            each.setblocking(False)
        for _ in _ticks(seconds):
            for each in sockets:
                try:
                    piece = each.recv(budget)
                except BlockingIOError:
                    continue
                if not piece:
                    raise RuntimeError("the answer ended early")
                got += len(piece)
            most = max(most, look())
    return got, most


def write_fast(
    port: int, path: str, size: int, *, clients: int, seconds: float, look: Callable[[], float]
) -> tuple[int, float]:
    """As many *clients* as are told each POST *size* bytes to *path*, as fast as they are taken.

    Returns the bytes that were taken, and the most that *look* said meanwhile.

    Raises:
        RuntimeError: an answer came before the upload was over.
    """
    sent, most = 0, look()
    with ExitStack() as stack:
        sockets = [stack.enter_context(_connect(port)) for _ in range(clients)]
        for each in sockets:
            each.sendall(
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            each.setblocking(False)
        left = dict.fromkeys(sockets, size)
        for _ in _ticks(seconds):
            for each in sockets:
                taken = _send(each, left[each])
                left[each] -= taken
                sent += taken
                try:
                    answer = each.recv(4096)
                except BlockingIOError:
                    continue
                raise RuntimeError(f"an answer in the middle of the upload: {answer[:200]!r}")
            most = max(most, look())
    return sent, most


class SlowServer:
    """Answers a GET at once with an empty 200, and takes `PACE` of the body of anything else. *port*: where it listens."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        # before the first connection, which inherits it: what the kernel takes beforehand is taken by nobody
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.port: int = self._listener.getsockname()[1]
        self.taken = 0
        self._connections: list[socket.socket] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, name="slow-server")

    def __enter__(self) -> Self:
        self._listener.setblocking(False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._thread.join()
        for each in (self._listener, *self._connections):
            each.close()

    def _serve(self) -> None:
        while not self._is_over:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                pass
            else:
                connection.setblocking(False)
                self._connections.append(connection)
            for each in list(self._connections):
                self._take(each)
            time.sleep(_TICK)

    def _take(self, connection: socket.socket) -> None:
        try:
            piece = connection.recv(int(PACE * _TICK))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            connection.close()
            self._connections.remove(connection)
            return
        self.taken += len(piece)
        if piece.startswith(b"GET "):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _TIMEOUT)


def _send(connection: socket.socket, left: int) -> int:
    """As much as is taken at once."""
    sent = 0
    while sent < left:
        try:
            sent += connection.send(_PIECE[: left - sent])
        except BlockingIOError:
            break
    return sent


def _ticks(seconds: float) -> Iterator[None]:
    until = monotonic() + seconds
    while monotonic() < until:
        yield
        time.sleep(_TICK)
