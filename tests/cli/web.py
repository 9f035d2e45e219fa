"""A small web service in a thread, with a health that tests can switch."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["Web"]


class Web:
    """Listens on 127.0.0.1:``port`` until `close`.

    ``/echo`` answers with what it got, ``/status/404`` with that status, ``/health`` with ``health``, ``/hang`` not before
    the end, ``/elsewhere`` redirects to ``/echo``.
    """

    def __init__(self) -> None:
        self.health = 200
        self.probes = 0
        self.hanging = threading.Event()
        """Set when a request for /hang has arrived."""
        self.ending = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10.0

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                if self.path == "/health":
                    web.probes += 1
                    self.answer(web.health, b"")
                elif self.path.startswith("/status/"):
                    self.answer(int(self.path.rpartition("/")[2]), b"as you wish\n")
                elif self.path == "/hang":
                    web.hanging.set()
                    web.ending.wait(30.0)
                elif self.path == "/elsewhere":
                    self.answer(307, b"", location="/echo")
                else:
                    got = {"method": self.command, "path": self.path, "body": body.decode("latin-1")}
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    self.answer(200, json.dumps({**got, "headers": headers}).encode())

            do_POST = do_PUT = do_GET

            def answer(self, status: int, body: bytes, *, location: str | None = None) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-test", "yes")
                if location:
                    self.send_header("location", location)
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            def handle_error(self, *arguments: object) -> None:
                """A caller that has gone is none: it would be told on the standard error of whoever runs in here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more. Can be called again."""
        self.ending.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
