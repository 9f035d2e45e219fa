"""A service on gunicorn. ``/`` answers with the worker's pid; ``/hold`` answers once the file $GATE is there.

``/healthz`` answers well only then; with $SLOW, the service is imported only then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from discoclient.wsgi import DiscoMiddleware

GATE = Path(os.environ["GATE"])


def wait_until_open() -> None:
    while not GATE.exists():
        time.sleep(0.005)


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/hold":
        print("holding", os.getpid(), flush=True)
        wait_until_open()
    if environ["PATH_INFO"] == "/healthz" and not GATE.exists():
        print("not well yet", flush=True)
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [str(os.getpid()).encode()]


app = DiscoMiddleware(serve)

if os.environ.get("SLOW"):
    print("starting", flush=True)
    wait_until_open()
