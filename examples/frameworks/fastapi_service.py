"""A service in FastAPI on uvicorn, registered while it listens. The same works for Starlette, and for any ASGI application.

    disco dev --nodes 1 --port 2379                         in one terminal: a real etcd, where the examples look for one
    python examples/frameworks/fastapi_service.py           in a second and a third: two instances of 'experiment'
    python examples/caller_sync.py 1000                     in a fourth: who answers? End one with Ctrl-C meanwhile

Needs: pip install fastapi uvicorn. As a plain application, without its last lines:

    disco run experiment --health-path /healthz -- \\
        uvicorn --app-dir examples/frameworks fastapi_service:app --host 0.0.0.0 --port {port}
"""

import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()


@app.get("/healthz")
async def healthz() -> PlainTextResponse:
    return PlainTextResponse("well\n")


@app.get("/{path:path}")
async def hello(path: str) -> PlainTextResponse:
    return PlainTextResponse(f"/{path} answered by {os.getpid()}\n")


if __name__ == "__main__":
    from discoclient.uvicorn import run

    # For callers on other hosts: host="0.0.0.0". The port is any free one, and callers learn it from the registry.
    run(app, "experiment", host="127.0.0.1", timeout_keep_alive=30, access_log=False)
