"""A service in Starlette on uvicorn, registered from when it listens until before it stops listening.

    disco dev --nodes 1 --port 2379             in one terminal: a real etcd, where the examples look for one
    python examples/service_starlette.py        in a second: an instance of 'experiment'
    python examples/caller_async.py             in a third: who answers?

Another name than 'experiment' can be given as an argument; another registry in $DISCO_REGISTRY. The same works for FastAPI, and
for any other ASGI application. Needs: pip install starlette uvicorn

Why not in a lifespan function, where one would look for it? uvicorn runs the lifespan's startup *before* it listens, and its
shutdown *after* it has stopped listening: at both ends callers would be sent to a closed door.
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from discoclient.uvicorn import Server

NUMBER = random.randrange(1000)  # so that one sees who answered
KEEPALIVE = 30  # seconds that an idle connection stays open


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.path} answered by {NUMBER}\n")


async def count(request: Request) -> StreamingResponse:
    """A line every tenth of a second: /count?to=5."""

    async def lines() -> AsyncIterator[str]:
        for number in range(1, int(request.query_params.get("to", "5")) + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")


async def measure(request: Request) -> JSONResponse:
    """How much was sent, without ever holding all of it."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"bytes": size})


app = Starlette(
    routes=[
        Route("/count", count),
        Route("/measure", measure, methods=["POST"]),
        Route("/{path:path}", hello),
    ]
)


def main() -> None:
    service = sys.argv[1] if len(sys.argv) > 1 else "experiment"

    def told(state: str) -> None:
        host, port = server.servers[0].sockets[0].getsockname()
        if state == "registered":
            print(f"{NUMBER} serves {service!r} at {host}:{port}", flush=True)
        elif state == "draining":
            print("leaving: callers are told, and have a second to turn away", flush=True)

    # For callers on other hosts, host="0.0.0.0".
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, timeout_keep_alive=KEEPALIVE, log_level="warning", access_log=False
    )
    # Where there is nothing to print, this is shorter: discoclient.uvicorn.run(app, service, host="127.0.0.1")
    server = Server(config, service, on_state=told)
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn passes Ctrl-C on, once it has shut down
        pass


if __name__ == "__main__":
    main()
