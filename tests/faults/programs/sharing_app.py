"""A WSGI application for gunicorn whose workers call a service, and watch it together as $DISCO_REGISTRY has it.

It answers with who answers, whom it knows, and its standing among the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from discoclient import DiscoClient, connect
from discoclient.control.hub import find_address, hub

client = DiscoClient("experiment")
handle = connect()
if os.environ.get("USED_BEFORE"):
    client.wait_ready(20.0)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    client.wait_ready(20.0)
    known = [instance.id for instance in handle.instances("experiment")]
    registry: Any = hub().registry(find_address(None))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "known": known, "standing": registry.standing}).encode()]
