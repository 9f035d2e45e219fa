"""A service on uvicorn. ``/`` answers; ``/hold`` answers once the file $GATE is there. With $SLOW it starts only then.

Its first argument says which hook registers it: "server", or, as one should not, "lifespan". The others are options of
`discoclient.uvicorn.run`, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from discoclient import register
from discoclient.uvicorn import run

GATE = Path(os.environ.get("GATE", "/nowhere"))
SLOW = bool(os.environ.get("SLOW"))


async def until_open() -> None:
    while not GATE.exists():
        await asyncio.sleep(0.005)


class App:
    """With a *port*, it registers itself in its lifespan."""

    def __init__(self, port: int = 0) -> None:
        self.port = port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.live(receive, send)
        if scope["path"] == "/hold":
            print("holding", flush=True)
            await until_open()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        return await send({"type": "http.response.body", "body": b"ok"})

    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        registration = None
        if self.port:
            registration = await asyncio.to_thread(
                register, "experiment", self.port, host="127.0.0.1", quiet=0
            )
        print("starting", flush=True)
        if SLOW:
            await until_open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if registration is not None:
            await asyncio.to_thread(registration.close)
        await send({"type": "lifespan.shutdown.complete"})


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    hook, options = sys.argv[1], json.loads(sys.argv[2])
    if hook == "server":
        run(App(), "experiment", **options)
    else:
        port = free_port()
        uvicorn.run(App(port), host="127.0.0.1", port=port)
