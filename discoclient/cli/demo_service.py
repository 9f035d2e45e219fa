"""The service of the demo, one instance in a process of its own: it answers every request with its number.

``python -m discoclient.cli.demo_service REGISTRY LEAST MOST TTL`` draws the number, from *LEAST* to *MOST*, listens on a random
port, registers itself, and says so on standard output in one line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

from ..serving.registration import register

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

    def log_message(self, format: str, *args: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main(registry: str, least: str, most: str, ttl: str) -> None:
    Numbered.number = random.randint(int(least), int(most))
    with Listener(("127.0.0.1", 0), Numbered) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        with register(
            SERVICE,
            listener.server_port,
            host="127.0.0.1",
            metadata={"number": Numbered.number},
            ttl=float(ttl),
            http_keepalive=KEEPALIVE,
            registry=registry,
        ) as registration:
            said = {
                "number": Numbered.number,
                "id": registration.instance.id,
                "port": listener.server_port,
                "registered_at": monotonic(),
            }
            print(json.dumps(said), flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
