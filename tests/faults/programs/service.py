"""A service as anybody would write it: an HTTP server that registers itself once it listens.

It prints "serving ID PORT" and every change of its state, and answers with who it is. `/work?seconds=0.1`
takes that long. SIGTERM ends it in order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from discoclient import register
from tests.faults import controls

KEEPALIVE = 5.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    answer = b""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = KEEPALIVE
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = parse_qs(urlsplit(self.path).query)
        time.sleep(float(wanted.get("seconds", ["0"])[0]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("service")
    parser.add_argument("--ttl", type=float, default=15.0)
    parser.add_argument("--quiet", type=float, default=0.0)
    parser.add_argument(
        "--without", default="", help="the protection to take away; see tests.faults.controls"
    )
    options = parser.parse_args()
    if options.without:
        controls.take_away(options.without)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    port = server.server_address[1]
    with register(
        options.service,
        port,
        host="127.0.0.1",
        ttl=options.ttl,
        quiet=options.quiet,
        http_keepalive=KEEPALIVE,
        on_state=lambda state: print("state", state),
    ) as registration:
        who = {"id": registration.instance.id, "pid": os.getpid(), "number": random.randrange(10**6)}
        server.answer = json.dumps(who).encode()
        print("serving", registration.instance.id, port)
        stopping.wait()


if __name__ == "__main__":
    main()
