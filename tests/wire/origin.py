"""A raw server: a thread for each connection, which does what the play says and takes down every byte that came."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .plays import AFTER, Act, Play, ok
from .reading import wait_until_read

__all__ = ["Heard", "Origin", "origin"]

_LONGEST = 10.0
_KEPT = 10_000


class _Gone(Exception):
    """The caller closed, or the origin ends."""


@dataclass(slots=True)
class Heard:
    """One connection. ``requests``: each as it came, its body as far as it was read; ``rest``: what no request was."""

    number: int
    requests: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    is_open: bool = True


class Origin:
    """See `origin`. ``plays``: by the last part of the request's path; for others ``otherwise``, by default `AFTER`."""

    def __init__(
        self,
        plays: Mapping[str, Play] | None = None,
        *,
        otherwise: Play | None = None,
        greetings: Sequence[Play] = (),
        receive_buffer: int | None = None,
        port: int = 0,
    ) -> None:
        self.plays = dict(plays or {})
        self.otherwise = otherwise or ok(AFTER)
        self.connections: list[Heard] = []
        self.order: list[int] = []
        """The number of the connection over which each request came, in order."""
        self._greetings = list(greetings)
        self._busy = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(512)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="origin", daemon=True)
        self._acceptor.start()

    @property
    def is_settled(self) -> bool:
        """Whether no connection is in the middle of its play."""
        with self._lock:
            return self._busy == 0

    @property
    def open(self) -> int:
        """How many connections the callers have open, as far as this side has noticed."""
        with self._lock:
            return sum(heard.is_open for heard in self.connections)

    @property
    def requests(self) -> list[bytes]:
        with self._lock:
            return [request for heard in self.connections for request in heard.requests]

    def forget(self) -> None:
        """Begin a new account; connections go on, under the numbers that they have."""
        with self._lock:
            self.order.clear()
            for heard in self.connections:
                heard.requests.clear()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(_LONGEST)
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_LONGEST)
            assert not thread.is_alive(), "a connection of the origin does not end"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                heard = Heard(len(self.connections) + 1)
                self.connections.append(heard)
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, heard), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, heard: Heard) -> None:
        line = _Line(sock)
        try:
            with self._lock:
                greeting = self._greetings.pop(0) if self._greetings else None
            if greeting is not None:
                with self._at_work():
                    last = self._perform(line, greeting, b"")
                if last is not None:
                    line.wait_for_end()
                    return
            while head := line.head():
                with self._at_work():
                    with self._lock:
                        self.order.append(heard.number)
                        heard.requests.append(head)
                    last = self._perform(line, self._play(head), head, heard)
                if last is Act.SHUT:
                    line.wait_for_end()
                elif last is Act.STALL:
                    line.wait_without_reading()
                if last is not None:
                    return
        except (_Gone, OSError):
            pass
        finally:
            heard.rest += line.buffer
            with self._lock:
                heard.is_open = False
                self._sockets.discard(sock)
            sock.close()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def _play(self, head: bytes) -> Play:
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        target = parts[1].decode("latin-1") if len(parts) > 1 else ""
        return self.plays.get(target.partition("?")[0].rpartition("/")[2], self.otherwise)

    def _perform(self, line: _Line, play: Play, head: bytes, heard: Heard | None = None) -> Act | None:
        """Do it; how the connection ends, or nothing if it goes on."""
        is_apart = False
        has_read = False
        for act in play.acts:
            if isinstance(act, bytes):
                if is_apart:
                    wait_until_read(line.sock)
                line.sock.sendall(act)
                is_apart = True
                continue
            is_apart = False
            match act:
                case Act.READ:
                    has_read = True
                    for part in line.body(head):
                        if heard is not None:
                            with self._lock:
                                heard.requests[-1] += part
                case Act.SHUT:
                    line.sock.shutdown(socket.SHUT_WR)
                    return act
                case Act.CLOSE:
                    line.sock.close()
                    return act
                case Act.RESET:
                    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.sock.close()
                    return act
                case Act.STALL:
                    return act
        if not has_read:
            for part in line.body(head):
                if heard is not None:
                    with self._lock:
                        heard.requests[-1] += part
        return None


class _Line:
    """What comes over a connection, taken apart into heads and bodies. Everything is kept as it came."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        sock.settimeout(_LONGEST)

    def head(self) -> bytes:
        """The next request's head, with the empty line; nothing at the end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return b""
        head, end, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head + end

    def body(self, head: bytes) -> Iterator[bytes]:
        """The rest of the request that began with *head*, raw. `_Gone` if the caller closes before its end."""
        fields = [field.partition(b":") for field in head.split(b"\r\n")[1:]]
        values = {name.lower(): value.strip().lower() for name, _, value in fields}
        if values.get(b"transfer-encoding") == b"chunked":
            while True:
                size = yield from self._until(b"\r\n")
                yield from self._exactly(int(size, 16) + 2)
                if int(size, 16) == 0:
                    return
        length = values.get(b"content-length", b"0")
        if not length.isdigit():
            raise _Gone  # what is no length is no request
        yield from self._exactly(int(length))

    def wait_for_end(self) -> None:
        with contextlib.suppress(OSError, _Gone):
            while self._more():
                self.buffer = self.buffer[-_KEPT:]

    def wait_without_reading(self) -> None:
        """Until the caller closes. What it sends meanwhile is left where it is, so that sooner or later it can't send."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        poll.poll(_LONGEST * 1000)

    def _until(self, mark: bytes) -> Generator[bytes, None, bytes]:
        while mark not in self.buffer:
            self._must_come()
        found, _, self.buffer = self.buffer.partition(mark)
        yield found + mark
        return found

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            if not self.buffer:
                self._must_come()
            part, self.buffer = self.buffer[:left], self.buffer[left:]
            left -= len(part)
            yield part

    def _must_come(self) -> None:
        if not self._more():
            raise _Gone

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)


@contextlib.contextmanager
def origin(plays: Mapping[str, Play] | None = None, **options: object) -> Iterator[Origin]:
    """An `Origin` that listens, and is gone at the end with all its connections."""
    made = Origin(plays, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
