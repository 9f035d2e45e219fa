"""A service that knows nothing of discoclient, written with Python's standard library alone.

In *folder* it leaves ``facts.json`` (who it is, what it was given) when it starts, ``probes`` with a line for each
request for /healthz, ``requests`` with a line for each other one that was answered, and ``TERM`` or ``INT`` when it gets
that signal. A file ``sick`` there makes /healthz answer 503, ``mute`` makes it hang, ``go`` makes a service with
``--notify`` say that it is ready.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOLD = ("DISCO_", "LISTEN_", "NOTIFY_", "PORT", "MINE")
"""How the variables begin that are told."""
POLL = 0.01
LONGEST = 20.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listener: socket.socket | None, address: tuple[str, int], folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.in_flight = 0
        super().__init__(address, Handler, bind_and_activate=listener is None)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()

    def server_bind(self) -> None:
        # not HTTPServer's own, which asks for this host's name
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.in_flight += 1
        try:
            self.respond()
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    do_POST = do_PUT = do_GET

    def respond(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        wanted = parse_qs(url.query)
        folder = self.server.folder
        status = int(wanted.get("status", ["200"])[0])
        if url.path == "/healthz":
            note(folder / "probes", self.headers.get("Host", ""))
            if (folder / "mute").exists():
                time.sleep(LONGEST)
            status = 503 if (folder / "sick").exists() else 204
        else:
            # What is slow ends when it is time, or when the file is there: a test need not guess.
            until = time.monotonic() + float(wanted.get("seconds", ["0"])[0])
            gate = wanted.get("until", [""])[0]
            if gate:
                until = time.monotonic() + LONGEST
                note(folder / "begun", self.command)
            while time.monotonic() < until and not (gate and (folder / gate).exists()):
                time.sleep(POLL)
        body = b"" if status == 204 else json.dumps({"pid": os.getpid()}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if url.path != "/healthz":
            note(folder / "requests", self.command)

    def log_message(self, format: str, *args: object) -> None:
        pass


def note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{time.monotonic()} {line}\n")


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text)
    aside.rename(path)


def say_ready(folder: Path) -> None:
    while not (folder / "go").exists():
        time.sleep(POLL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as carrier:
        address = os.environ["NOTIFY_SOCKET"]
        carrier.connect("\0" + address[1:] if address.startswith("@") else address)
        carrier.sendall(b"STATUS=here\nREADY=1\n")


def facts(listener: socket.socket | None) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "pgid": os.getpgrp(),
        "argv": sys.argv[1:],
        "env": {name: value for name, value in os.environ.items() if name.startswith(TOLD)},
        "blocked": [signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "nodelay": listener is not None and listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
        "listening": listener is not None
        and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="default: $PORT")
    parser.add_argument("--port-file", type=Path, help="any port, which is written there")
    parser.add_argument("--fd", type=int, help="a listening socket")
    parser.add_argument("--deaf", action="store_true", help="do not listen")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until it listens")
    parser.add_argument("--exit", type=int, help="with this code, at the start")
    parser.add_argument("--notify", action="store_true")
    parser.add_argument("--on-term", choices=["finish", "die", "ignore"], default="finish")
    options = parser.parse_args()
    folder: Path = options.folder
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        (folder / signal.Signals(number).name.removeprefix("SIG")).touch()
        if options.on_term == "die":
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif options.on_term == "finish":
            stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    listener = None if options.fd is None else socket.socket(fileno=options.fd)
    write(folder / "facts.json", json.dumps(facts(listener)))
    if options.exit is not None:
        sys.exit(options.exit)
    time.sleep(options.delay)
    if options.notify:
        threading.Thread(target=say_ready, args=[folder], daemon=True).start()
    if options.deaf:
        stopping.wait()
        return
    port = 0 if options.port_file else options.port if options.port is not None else None
    if port is None:
        port = 0 if listener is not None else int(os.environ["PORT"])
    server = Server(listener, (options.bind, port), folder)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    if options.port_file:
        write(options.port_file, f"{server.server_address[1]}\n")
    stopping.wait()
    server.shutdown()
    server.server_close()
    until = time.monotonic() + LONGEST
    while server.in_flight and time.monotonic() < until:
        time.sleep(POLL)


if __name__ == "__main__":
    main()
