"""A server that costs as little as Python can: it answers every GET with the same 41 bytes. ``python -m benchmarks.server 3``

It listens on as many ports as its argument says, and prints them with the name of its event loop. A request is what ends
in an empty line: for GET that is all there is to know, and parsing more would only make the server the thing measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

_BODY = b'{"id": 1, "name": "a body of 41 bytes !"}'
assert len(_BODY) == 41
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: benchmark\r\nContent-Type: application/json\r\n"
    b"Content-Length: 41\r\nConnection: keep-alive\r\n\r\n" + _BODY
)


class _Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        requests = data.count(b"\r\n\r\n")
        self._rest = data.rpartition(b"\r\n\r\n")[2]
        self._transport.write(_ANSWER * requests)


async def _serve(ports: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Protocol, "127.0.0.1", 0) for _ in range(ports)]
    kind = type(loop)
    print(
        json.dumps(
            {
                "ports": [server.sockets[0].getsockname()[1] for server in servers],
                "loop": f"{kind.__module__}.{kind.__qualname__}",
            }
        ),
        flush=True,
    )
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)  # nothing is ever sent: readable means ended
    await over.wait()


def main() -> None:
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
