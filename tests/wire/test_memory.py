"""Backpressure: who reads slowly, or is read slowly, does not have the whole body in memory."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from .engines import OURS, Way

SIZE = 50_000_000
PIECE = b"z" * 100_000
MOST = 12_000_000
"""Bytes that may be under way, with what the kernel holds on both sides (some megabytes each)."""


class Counter:
    """A server that sends 50 MB as fast as they are taken, or reads as slowly as it is told; it counts."""

    def __init__(self, kind: str) -> None:
        self.moved = 0
        self.may_read = threading.Semaphore(0)
        self._kind = kind
        self._line: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.may_read.release(10**6)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:
            return
        self._line = line
        with line, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += line.recv(65536)
            if self._kind == "down":
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                for _ in range(SIZE // len(PIECE)):
                    line.sendall(PIECE)
                    self.moved += len(PIECE)
            else:
                self.moved = len(head.partition(b"\r\n\r\n")[2])
                left = SIZE - self.moved
                while left:
                    self.may_read.acquire()
                    data = line.recv(len(PIECE))
                    left -= len(data)
                    self.moved += len(data)
                    if not data:
                        return
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            while line.recv(65536):
                pass


@contextlib.contextmanager
def counter(kind: str) -> Iterator[Counter]:
    made = Counter(kind)
    try:
        yield made
    finally:
        made.close()


def test_a_large_body_that_is_read_slowly_waits_at_the_server(way: Way) -> None:
    async def case() -> None:
        read, furthest = 0, 0
        async with (
            OURS.client(way, server.port, timeout=30.0) as client,
            client.stream("GET", "/") as response,
        ):
            await stands_still(way, server)
            assert server.moved < MOST, "nothing was read, and most of it has been sent"
            async for part in client.parts(response):
                read += len(part)
                furthest = max(furthest, server.moved - read)
                if read < 5_000_000:
                    await way.pause()
        assert read == SIZE
        assert furthest < MOST, f"{furthest} bytes were under way"

    with counter("down") as server:
        way.run(case)


def test_a_large_body_is_asked_for_no_faster_than_the_server_reads(way: Way) -> None:
    given = 0

    def pieces() -> Iterator[bytes]:
        nonlocal given
        for _ in range(SIZE // len(PIECE)):
            given += len(PIECE)
            yield PIECE

    async def apieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    async def case() -> Any:
        async with OURS.client(way, server.port, timeout=30.0) as client:
            headers = {"Content-Length": str(SIZE)}
            return await client.post("/", content=pieces() if way.is_sync else apieces(), headers=headers)

    furthest = 0

    def let_read() -> None:
        """Nothing for as long as anything moves; then all, and how far ahead the sender is by then."""
        nonlocal furthest
        last = -1
        while given != last or not given:
            last = given
            threading.Event().wait(0.1)
        furthest = given - server.moved
        server.may_read.release(10**6)

    with counter("up") as server:
        reader = threading.Thread(target=let_read)
        reader.start()
        assert way.run(case).status_code == 200
        reader.join()
    assert server.moved == given == SIZE
    assert furthest < MOST, f"{furthest} bytes were asked for before the server read any"


def test_the_negative_control_what_is_read_whole_is_all_under_way(way: Way) -> None:
    async def case() -> None:
        async with OURS.client(way, server.port, timeout=30.0) as client:
            assert len((await client.get("/")).content) == SIZE
            assert server.moved == SIZE

    with counter("down") as server:
        way.run(case)


async def stands_still(way: Way, server: Counter) -> None:
    last = -1
    while server.moved != last or not server.moved:
        last = server.moved
        await way.pause(0.05)
