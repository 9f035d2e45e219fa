"""A WSGI application for `gunicorn --preload`: all of discoclient is in use in the master before it forks its workers.

It answers with who answers, whom it knows, and who answered it. `$WITHOUT`: a protection to take away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.faults import controls

if os.environ.get("WITHOUT"):
    controls.take_away(os.environ["WITHOUT"])

from discoclient import DiscoClient, connect, register

client = DiscoClient("experiment", balancer="round_robin")
handle = connect()
registration = register("web", 9, host="127.0.0.1", quiet=0)
client.get("/")
handle.instances("experiment")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    answered = client.get("/").extensions["disco"].instance.id
    known = [instance.id for instance in handle.instances("experiment")]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "answered": answered, "known": known}).encode()]
