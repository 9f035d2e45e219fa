"""Other ways to a server: over a Unix socket, and through a forward proxy. Both are small, and real."""

from __future__ import annotations

import contextlib
import http.client
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Proxy", "UnixServer", "answering", "serving"]


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """``UnixServer(path, answering("hello"))``; see `serving`."""

    daemon_threads = True

    def get_request(self) -> Any:
        carrier, _ = super().get_request()
        return carrier, ("unix", 0)


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """*server* serves in a thread of its own until the block is left."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(text: str) -> type[BaseHTTPRequestHandler]:
    """A handler that answers a GET with *text*, the path and the ``Host``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"{text} {self.path} {self.headers['Host']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    return Handler


class Proxy(ThreadingHTTPServer):
    """A forward proxy for plain HTTP, which tunnels nothing. ``passed``: the addresses it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.passed: list[str] = []
        super().__init__(("127.0.0.1", 0), _Passing)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        url = urlsplit(self.path)
        self.server.passed.append(url.netloc)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        target = http.client.HTTPConnection(url.netloc, timeout=5.0)
        try:
            target.request(self.command, url.path, body, dict(self.headers))
            answer = target.getresponse()
            content, status = answer.read(), answer.status
        except (OSError, http.client.HTTPException):
            content, status = b"", 502
        finally:
            target.close()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _pass

    def do_CONNECT(self) -> None:
        self.server.passed.append(self.path)
        self.send_response(403, "Forbidden")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""
