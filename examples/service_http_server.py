"""A service in plain http.server, registered while it serves.

    disco dev --nodes 1 --port 2379             in one terminal: a real etcd, where the examples look for one
    python examples/service_http_server.py      in a second and a third: two instances of 'experiment'
    python examples/caller_sync.py              in a fourth: who answers?

Another name than 'experiment' can be given as an argument; another registry in $DISCO_REGISTRY. Ctrl-C or SIGTERM ends an
instance, and its callers don't notice.
"""

import random
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from discoclient import register

NUMBER = random.randrange(1000)  # so that one sees who answered
KEEPALIVE = 30.0  # seconds that an idle connection stays open


class Hello(BaseHTTPRequestHandler):
    # Callers keep connections open, which HTTP/1.0, the default here, does not know. On an open connection the body, sent
    # after the headers in a packet of its own, would wait 40 ms (Nagle's algorithm against delayed acknowledgements): so the
    # answer is buffered (wbufsize) and sent in one piece, at once.
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = KEEPALIVE

    def do_GET(self) -> None:
        body = f"{self.path} answered by {NUMBER}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    service = sys.argv[1] if len(sys.argv) > 1 else "experiment"
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)  # any free port
    threading.Thread(target=server.serve_forever, daemon=True).start()

    # Only now, when it serves: what is registered is called.
    # For callers on other hosts, listen on "0.0.0.0" and leave host= out.
    with register(service, server.server_port, host="127.0.0.1", http_keepalive=KEEPALIVE) as registration:
        print(f"{NUMBER} serves {service!r} at {registration.instance.address}", flush=True)
        stop.wait()
        print("leaving: callers are told, and have a second to turn away", flush=True)
    # Out of the block it is out of the registry, and nobody calls any more.
    server.shutdown()


if __name__ == "__main__":
    main()
