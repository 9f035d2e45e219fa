"""Real nginx and real HAProxy with a configuration that is rendered, services that say who they are, and traffic."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from discoclient import Instance
from discoclient.system.process import end, spawn
from tests.cli.records import instance
from tests.support.eventually import eventually
from tests.support.ports import free_port

__all__ = ["Proxy", "Traffic", "find", "haproxy", "needs", "nginx", "serving"]

_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
SLOW = 20.0


def find(program: str) -> str | None:
    return shutil.which(program, path=_SBIN)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find(program) is None, reason=f"{program} is not installed")


@contextmanager
def serving(*ids: str) -> Iterator[list[Instance]]:
    """An instance of ``experiment`` for each of *ids*, which answers with its id. They are not registered yet."""
    with ExitStack() as stack:
        yield [stack.enter_context(_serve(id)) for id in ids]


@contextmanager
def _serve(id: str) -> Iterator[Instance]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(id)))
            self.end_headers()
            self.wfile.write(id.encode())

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            """The proxy closed its connection."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield instance(
                "experiment", id, host="127.0.0.1", port=server.server_port, http_keepalive=30, version="1"
            )
        finally:
            server.shutdown()
            thread.join()


class Proxy:
    """A proxy at 127.0.0.1:``port``; ``out`` is the file that is rendered."""

    def __init__(self, folder: Path, out: Path, port: int, *, check: str, reload: str) -> None:
        self.folder = folder
        self.out = out
        self.port = port
        self.check = check
        self.reload = reload

    def ask(self) -> str:
        """Who answers; or the status, if nobody does."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        return body if answer.status == 200 else str(answer.status)

    def answerers(self) -> set[str]:
        return {self.ask() for _ in range(8)}

    def workers(self) -> list[int]:
        """Their ids. Those of before a reload are among them for as long as they answer: nginx ends them 0.1 s after it started
        the new ones.
        """
        pid = (self.folder / "pid").read_text().strip()
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_for(self, *ids: str) -> None:
        """Until exactly these answer, and there is nobody who knows it otherwise."""
        eventually(
            lambda: len(self.workers()) == 1 and self.answerers() == set(ids),
            timeout=SLOW,
            what=f"{ids} answer",
        )

    def is_valid(self) -> bool:
        """What the proxy itself says of the configuration that it would start with."""
        check = self.check.replace("{}", str(self.out))
        return subprocess.run(["/bin/sh", "-c", check], capture_output=True, timeout=10).returncode == 0


@contextmanager
def _running(command: list[str], proxy: Proxy) -> Iterator[Proxy]:
    log = proxy.folder / "said"
    with log.open("wb") as said:
        process = spawn(command, cwd=proxy.folder, stdout=said, stderr=said)
    (proxy.folder / "pid").write_text(f"{process.pid}\n")
    try:

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", proxy.port), timeout=1).close()
            except OSError:
                return False
            return True

        eventually(is_up, timeout=SLOW, what=f"{command[0]} listens")
        yield proxy
    finally:
        end(process, grace=3.0)


@contextmanager
def nginx(folder: Path) -> Iterator[Proxy]:
    """It listens on a port of its own with nothing behind it yet, and includes whatever is in ``conf.d``."""
    program, port = find("nginx"), free_port()
    assert program is not None
    main, site = folder / "nginx.conf", folder / "conf.d"
    site.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers can't enter the folder
    paths = "".join(f"{kind}_temp_path {kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    main.write_text(
        f"{user}\npid nginx.pid;\nerror_log stderr;\nworker_processes 1;\nevents {{}}\n"
        f"http {{\n    access_log off;\n    client_body_temp_path body;\n    {paths}\n    include conf.d/*.conf;\n}}\n"
    )
    out = site / "experiment.conf"
    out.write_text(f"server {{ listen 127.0.0.1:{port}; return 404; }}\n")
    base = f"{program} -p {folder} -c {main}"
    proxy = Proxy(folder, out, port, check=f"{base} -t -q", reload=f"{base} -s reload")
    with _running([*base.split(), "-g", "daemon off;"], proxy):
        yield proxy


@contextmanager
def haproxy(folder: Path) -> Iterator[Proxy]:
    """A master with a worker; USR2 reloads. The one of Debian 12 (2.6) loses a USR2 that comes while it starts itself again."""
    program, port = find("haproxy"), free_port()
    assert program is not None
    out = folder / "haproxy.cfg"
    out.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n"
        f"frontend none\n    bind 127.0.0.1:{port}\n    http-request return status 404\n"
    )
    reload = f"/bin/sh {Path(__file__).with_name('reload-haproxy.sh')} {folder}/pid"
    proxy = Proxy(folder, out, port, check=f"{program} -c -f {{}}", reload=reload)
    with _running([program, "-W", "-f", str(out)], proxy):
        yield proxy


class Traffic:
    """One request after the other while the block lasts; who answered how often, and what went wrong."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(0.002):
            try:
                self.answers[self._proxy.ask()] += 1
            except (OSError, HTTPException) as error:
                self.answers[repr(error)] += 1
