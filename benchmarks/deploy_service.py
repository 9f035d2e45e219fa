"""The service that is deployed: ``python -m benchmarks.deploy_service --port 8000 --version v2 [--ledger FILE] [...]``

The same for all ways. ``/work`` takes 10 to 30 ms, as a request does that asks a database, and answers with the version. A POST
is written into the ledger when its work begins, whatever becomes of it: so one that is executed twice, or executed though its
caller was told that it failed, can be counted afterwards. ``/healthz`` is 200 if it is well. SIGTERM is obeyed as a good server
does it: no new connections, what is in flight gets its answer, then it ends.

``--register PORT`` is for the way of 2014: once it listens it writes its port and its pid into the etcd on that port
(`deploy_keys`). The other ways register it from outside.

``--mood`` is for deploys that go wrong: ``exits`` ends at start with an error, ``unready`` listens and answers everything with
503, ``sickens`` fails its health checks from one second after the first of them on, and does its work as before.

Only the standard library, and little of it: it starts in a twentieth of a second, or the starts would be what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from random import Random
from time import monotonic
from typing import cast

from .deploy_keys import swap

__all__ = ["MOODS", "WORK", "Instance"]

MOODS = ("well", "exits", "unready", "sickens")
WORK = (0.010, 0.030)
"""Seconds of work for a request, at least and at most."""
_WELL_FOR = 1.0
_REASONS = {200: b"OK", 404: b"Not Found", 503: b"Service Unavailable"}


class Instance:
    """What one process of the service knows: its mood, its ledger, and who is connected."""

    def __init__(self, version: str, mood: str, ledger: int | None) -> None:
        self.version = version
        self.is_leaving = False
        self.connections: set[Connection] = set()
        self.idle = asyncio.Event()
        self._mood = mood
        self._ledger = ledger
        self._rng = Random()
        self._first_check: float | None = None

    def respond(self, method: bytes, target: bytes, body: bytes) -> tuple[int, float]:
        """The status of the answer, and the seconds until it is due."""
        if self._mood == "unready":
            return 503, 0.0
        if target == b"/healthz":
            now = monotonic()
            if self._first_check is None:
                self._first_check = now
            is_sick = self._mood == "sickens" and now - self._first_check > _WELL_FOR
            return 503 if is_sick else 200, 0.0
        if target != b"/work":
            return 404, 0.0
        if method == b"POST" and self._ledger is not None:
            os.write(self._ledger, body + b"\n")  # appended as one piece: old and new share the file
        return 200, self._rng.uniform(*WORK)

    def leave(self) -> None:
        """Close what is idle, and say in each answer that it was the last on its connection."""
        self.is_leaving = True
        for connection in list(self.connections):
            connection.close_if_idle()
        self.forget(None)

    def forget(self, connection: Connection | None) -> None:
        if connection is not None:
            self.connections.discard(connection)
        if self.is_leaving and not self.connections:
            self.idle.set()


class Connection(asyncio.Protocol):
    """A caller's. One request at a time; a caller that sends the next before the answer is not served here."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._data = b""
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._instance.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._instance.forget(self)

    def close_if_idle(self) -> None:
        if not self._is_busy and not self._data:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower()
        length = int(fields.partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self._data = b""
        self._is_busy = True
        method, target, protocol = head.split(b"\r\n")[0].split(b" ")
        is_last = b"\r\nconnection: close" in fields or protocol == b"HTTP/1.0"
        status, delay = self._instance.respond(method, target, rest[:length])
        asyncio.get_running_loop().call_later(delay, self._answer, status, is_last)

    def _answer(self, status: int, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        self._is_busy = False
        is_last = is_last or self._instance.is_leaving
        body = self._instance.version.encode()
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nServer: benchmark\r\nContent-Type: text/plain\r\nConnection: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (status, _REASONS[status], b"close" if is_last else b"keep-alive", len(body), body)
        )
        if is_last:
            self._transport.close()


async def _serve(options: argparse.Namespace, ledger: int | None) -> None:
    loop = asyncio.get_running_loop()
    instance = Instance(options.version, options.mood, ledger)
    listener = socket.create_server((options.host, options.port), backlog=256)
    server = await loop.create_server(lambda: Connection(instance), sock=listener)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    if options.register is not None:
        # in this order, as the original does it: both swaps are a get and two sets
        for name, value in (("port", listener.getsockname()[1]), ("pid", os.getpid())):
            await swap(options.register, name, str(value))
    await over.wait()
    server.close()
    instance.leave()
    await instance.idle.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy_service")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--ledger")
    parser.add_argument("--register", type=int)
    parser.add_argument("--mood", choices=MOODS, default="well")
    options = parser.parse_args()
    if options.mood == "exits":
        raise SystemExit("this version does not start")
    ledger = None
    if options.ledger:
        ledger = os.open(options.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    asyncio.run(_serve(options, ledger))


if __name__ == "__main__":
    main()
