"""An instance at the level of bytes: it keeps every byte that it was sent, and answers what a test tells it to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

__all__ = ["Answer", "Exchange", "Origin", "Received", "reply"]

_READ = 1 << 16


@dataclass(slots=True)
class Received:
    """One request, as the instance got it. *raw* is its bytes, head and body, framing and all."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    is_whole: bool = False

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str:
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {self.headers}"
        return values[0] if values else ""

    @property
    def names(self) -> set[str]:
        return {key.lower() for key, _ in self.headers}


Answer: TypeAlias = "Callable[[Exchange], None]"


def reply(status: int = 200, body: bytes = b"ok", *headers: str) -> bytes:
    """The bytes of a response with a ``Content-Length``."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@dataclass
class _Connection:
    socket: socket.socket
    received: int = 0
    buffer: bytes = b""
    ended: threading.Event = field(default_factory=threading.Event)

    def more(self) -> bytes:
        """The next bytes; nothing at the end, of whatever kind."""
        try:
            data = self.socket.recv(_READ)
        except OSError:
            data = b""
        self.received += len(data)
        if not data:
            self.ended.set()
        return data


class Exchange:
    """One request being answered, in a thread of its own. The head is read; the body is the answer's business."""

    def __init__(self, connection: _Connection, request: Received) -> None:
        self._connection = connection
        self.request = request
        self.is_over = False

    @property
    def socket(self) -> socket.socket:
        return self._connection.socket

    def read_body(self) -> bytes:
        """The request's whole body. `EOFError` if it does not come."""
        request = self.request
        if not request.is_whole:
            if "chunked" in "".join(request.all("transfer-encoding")).lower():
                self._read_chunked()
            else:
                request.body += self.take(int([*request.all("content-length"), "0"][0]))
            request.is_whole = True
        return request.body

    def _read_chunked(self) -> None:
        request = self.request
        while size := int(self.take_line().split(b";")[0], 16):
            request.body += self.take(size)
            if self.take(2) != b"\r\n":
                raise EOFError("a chunk without its end")
        trailers = []
        while line := self.take_line():
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name, value.strip()))
        request.trailers = tuple(trailers)

    def take(self, count: int) -> bytes:
        """Exactly *count* bytes of what comes."""
        connection = self._connection
        while len(connection.buffer) < count:
            self._more()
        taken, connection.buffer = connection.buffer[:count], connection.buffer[count:]
        self.request.raw += taken
        return taken

    def take_line(self) -> bytes:
        while b"\r\n" not in self._connection.buffer:
            self._more()
        return self.take(self._connection.buffer.index(b"\r\n") + 2)[:-2]

    def take_some(self) -> bytes:
        """What comes next, at least a byte; nothing at the end. Not kept, for what is large."""
        connection = self._connection
        if connection.buffer:
            taken, connection.buffer = connection.buffer, b""
            return taken
        return connection.more()

    def _more(self) -> None:
        data = self._connection.more()
        if not data:
            raise EOFError("the connection ended")
        self._connection.buffer += data

    def send(self, data: bytes) -> None:
        """Raises `OSError` when nobody is there any more."""
        self._connection.socket.sendall(data)

    def wait_gone(self, timeout: float) -> bool:
        """Whether the connection ends within *timeout* seconds; what still comes until then is dropped."""
        self._connection.socket.settimeout(timeout)
        try:
            while self._connection.more():
                pass
        finally:
            self._connection.socket.settimeout(None)
        return self._connection.ended.is_set()

    def half_close(self) -> None:
        self._connection.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.is_over = True
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        self.is_over = True
        linger = struct.pack("ii", 1, 0)
        self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.socket.close()


def _answer_ok(exchange: Exchange) -> None:
    exchange.read_body()
    exchange.send(reply())


class Origin:
    """Listens on 127.0.0.1 (or *host*), in threads. A context manager.

    What has no answer of its own (`on`) is read whole and answered with ``200`` and ``ok``.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self.host, self.port = host, int(self._listener.getsockname()[1])
        self.default: Answer = _answer_ok
        self.raw: Callable[[Exchange], None] | None = None
        """Takes whole connections, for what is not HTTP."""
        self.requests: list[Received] = []
        self._answers: dict[str, Answer] = {}
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self._is_open = True
        threading.Thread(target=self._accept, name="origin", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on(self, target: str, answer: Answer | bytes) -> None:
        """Answer requests for *target* (without its query) so. Bytes are sent when the request has been read."""
        if isinstance(answer, bytes):
            data = answer

            def send(exchange: Exchange) -> None:
                exchange.read_body()
                exchange.send(data)

            self._answers[target] = send
        else:
            self._answers[target] = answer

    @property
    def received(self) -> int:
        """Bytes that came in so far, on all connections."""
        return sum(connection.received for connection in self._connections)

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return len(self._connections)

    @property
    def open(self) -> int:
        """Connections that have not been ended by the other side."""
        return sum(not connection.ended.is_set() for connection in self._connections)

    def find(self, target: str) -> list[Received]:
        """The requests for *target*, its query included."""
        return [request for request in list(self.requests) if request.target == target]

    def only(self, target: str) -> Received:
        found = self.find(target)
        assert len(found) == 1, f"{len(found)} requests for {target}: {found}"
        return found[0]

    def close(self) -> None:
        """Stop listening and end all connections, as a killed process would."""
        self._is_open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)

    def _accept(self) -> None:
        while self._is_open:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            if self._listener.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(accepted)
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=[connection], name="origin", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: _Connection) -> None:
        try:
            if self.raw is not None:
                self.raw(Exchange(connection, Received("", "", "", (), b"")))
                return
            while (exchange := self._next(connection)) is not None:
                target = exchange.request.target.partition("?")[0]
                self._answers.get(target, self.default)(exchange)
                if exchange.is_over:
                    break
        except (EOFError, OSError, ValueError):
            pass
        finally:
            connection.ended.set()
            connection.socket.close()

    def _next(self, connection: _Connection) -> Exchange | None:
        while b"\r\n\r\n" not in connection.buffer:
            data = connection.more()
            if not data:
                return None
            connection.buffer += data
        head, mark, connection.buffer = connection.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        headers = tuple((name, value.strip()) for name, _, value in fields)
        request = Received(method, target, version, headers, head + mark)
        self.requests.append(request)
        return Exchange(connection, request)
