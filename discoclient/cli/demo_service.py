"""The service of the demo, one instance in a process of its own: it answers every request with its number.

``python -m discoclient.cli.demo_service --number N --hostname NAME --registry URL`` is version 1: it listens on a random port,
registers itself, and says so on standard output in one line of JSON. When it is asked to retire, it drains, says in another
line how that went, and ends. Version 2 is run by path, and needs nothing but Python; ``--port`` is all that ``disco run`` tells
it, and it knows nothing of a registry.

Every POST is told on standard output, with what it carried, before it is answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

__all__ = ["SERVICE"]

SERVICE = "experiment"
KEEPALIVE = 30.0


class Numbered(BaseHTTPRequestHandler):
    """Answers with a number. One TCP segment per answer: headers and body in two would wait for a delayed ACK (40 ms)."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = KEEPALIVE
    number = 0

    def do_GET(self) -> None:
        body = str(self.number).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        say({"done": int(self.rfile.read(int(self.headers["Content-Length"])))})
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def say(record: object) -> None:
    """One line of JSON, in one piece whoever else says something."""
    os.write(1, f"{json.dumps(record)}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, required=True, help="what it answers with")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--registry", metavar="URL", help="where it registers itself; else somebody else does"
    )
    parser.add_argument("--hostname")
    parser.add_argument("--ttl", type=float, default=15.0)
    parser.add_argument("--hasty", action="store_true", help="end at once when asked to retire")
    parser.add_argument("--broken", action="store_true", help="don't even start")
    options = parser.parse_args()
    if options.broken:
        sys.exit("version 2 cannot start: no such table: users")
    Numbered.number = options.number
    with Listener(("127.0.0.1", options.port), Numbered) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        if options.registry is None:
            threading.Event().wait()
        else:
            live(listener.server_port, options)


def live(port: int, options: argparse.Namespace) -> None:
    """Be registered until it is asked to retire and its callers have left."""
    from ..serving.registration import register  # only now: version 2 can do without

    retired = threading.Event()

    def end_hastily(state: str) -> None:
        if options.hasty and state == "draining":
            os._exit(1)

    with register(
        SERVICE,
        port,
        host="127.0.0.1",
        version="1",
        hostname=options.hostname,
        metadata={"number": options.number},
        ttl=options.ttl,
        http_keepalive=KEEPALIVE,
        registry=options.registry,
        on_state=end_hastily,
        on_retire=retired.set,
    ) as registration:
        say({"registered_at": monotonic()})
        retired.wait()
        drained, asked = registration.drain(), registration.retirement  # it is over: this tells how it went
        say({"drained": asdict(drained), "why": str(asked)})


if __name__ == "__main__":
    main()
