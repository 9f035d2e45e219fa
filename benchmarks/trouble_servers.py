"""A fleet in trouble: HTTP servers on loopback, well and unwell. ``python -m benchmarks.trouble_servers SEED KIND [KIND...]``

Each KIND is one instance on a port of its own:

- ``normal`` works on one request at a time, as a synchronous gunicorn worker does, for a time drawn from an exponential
  distribution with a mean of 10 ms; what comes meanwhile waits in line. Its capacity is therefore 100 requests a second.
- ``slow`` does the same, ten times as slowly.
- ``hung`` accepts connections, reads requests, and never answers.
- ``failing`` answers at once, with 503.

It prints its ports when it listens, and, when its input ends, the moments at which each instance got a request (`monotonic`,
which is one clock for all processes of a Linux machine). ``/health`` is answered at once, without the line and without being
counted: 200, 503 by ``failing``, never by ``hung``. An answer says in ``Server-Timing`` how long it took in here.

Whose caller has gone before its turn came is not worked on: every side gives up after the same second, so none gains by it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from functools import partial
from random import Random
from time import monotonic
from typing import cast

__all__ = ["KINDS", "MEAN_SERVICE", "Instance", "capacity"]

MEAN_SERVICE = {"normal": 0.010, "slow": 0.100}
"""Seconds of work for a request, by kind; the others do no work."""
KINDS = (*MEAN_SERVICE, "hung", "failing")
_BODY = b'{"id": 1, "name": "a body of 41 bytes !"}'


def capacity(*kinds: str) -> float:
    """Requests a second that instances of these *kinds* can answer with 200 when they are never idle."""
    return sum(1 / MEAN_SERVICE[kind] for kind in kinds if kind in MEAN_SERVICE)


class Instance:
    """One of the fleet: what it does with a request, and when it got them."""

    def __init__(self, kind: str, seed: str) -> None:
        self.kind = kind
        self.arrivals: list[float] = []
        self._rng = Random(seed)
        self._waiting: deque[tuple[Connection, float]] = deque()
        self._is_busy = False

    def accept(self, connection: Connection, target: bytes) -> None:
        now = monotonic()
        if target == b"/health":
            if self.kind != "hung":
                connection.answer(503 if self.kind == "failing" else 200, 0.0)
            return
        self.arrivals.append(now)
        if self.kind == "failing":
            connection.answer(503, 0.0)
        elif self.kind != "hung":
            self._waiting.append((connection, now))
            if not self._is_busy:
                self._work(now)

    def _work(self, began: float) -> None:
        """Begin with the next in line. *began* is when it ought to have begun: a timer that is late must not cost capacity."""
        while self._waiting:
            connection, arrival = self._waiting.popleft()
            if connection.is_gone:
                continue
            began = max(began, arrival)
            until = began + self._rng.expovariate(1 / MEAN_SERVICE[self.kind])
            self._is_busy = True
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, until - monotonic()), self._done, connection, arrival, until)
            return
        self._is_busy = False

    def _done(self, connection: Connection, arrival: float, until: float) -> None:
        connection.answer(200, monotonic() - arrival)
        self._work(until)


class Connection(asyncio.Protocol):
    """A caller's, kept open. A request is what ends in an empty line: for GET that is all there is to know."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._rest = b""
        self.is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone = True

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            self._instance.accept(self, head.split(maxsplit=2)[1])

    def answer(self, status: int, took: float) -> None:
        if self.is_gone:
            return
        reason = b"OK" if status == 200 else b"Service Unavailable"
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nServer: benchmark\r\nContent-Type: application/json\r\n"
            b"Server-Timing: here;dur=%.3f\r\nContent-Length: %d\r\n\r\n%b"
            % (status, reason, took * 1e3, len(_BODY), _BODY)
        )


async def _serve(seed: str, kinds: list[str]) -> None:
    loop = asyncio.get_running_loop()
    fleet = [Instance(kind, f"{seed}/{number}") for number, kind in enumerate(kinds)]
    ports = []
    for instance in fleet:
        server = await loop.create_server(partial(Connection, instance), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps({"ports": ports}), flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)  # nothing is ever sent: readable means ended
    await over.wait()
    print(json.dumps([instance.arrivals for instance in fleet]), flush=True)


def main() -> None:
    seed, *kinds = sys.argv[1:]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SystemExit(f"no instance is {unknown[0]!r}; there are {', '.join(KINDS)}")
    asyncio.run(_serve(seed, kinds))


if __name__ == "__main__":
    main()
