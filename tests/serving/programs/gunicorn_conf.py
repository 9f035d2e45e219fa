"""gunicorn's configuration for tests. $HOOK: how it registers; "right", or as one should not."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from discoclient import Registration, register
from discoclient.gunicorn import registered

bind = "127.0.0.1:0"
keepalive = 7

_hook = os.environ.get("HOOK", "right")
_naive: list[Registration] = []

if _hook != "naive":
    when_ready = registered("experiment", quiet=0.2, **json.loads(os.environ.get("OPTIONS", "{}")))
else:

    def when_ready(server: Any) -> None:
        port = server.LISTENERS[0].getsockname()[1]
        _naive.append(register("experiment", port, host="127.0.0.1", quiet=0))

    def on_exit(server: Any) -> None:
        _naive[0].close()


if _hook == "blocking":
    _right = when_ready

    def when_ready(server: Any) -> None:
        """The drain as it would be without a thread of its own."""
        _right(server)
        handle_term = server.handle_term

        def wait() -> None:
            handle_term()
            while not handle_term.__self__._tenure.is_over:
                time.sleep(0.01)

        server.handle_term = wait
