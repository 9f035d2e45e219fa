"""nginx and HAProxy as the other sides: their configuration, and a process that runs with it.

They are to do as well as they can. What they are told, and why, stands beside each configuration; both may make three attempts
at a request, of a second each.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from discoclient.system.listeners import Listener, look_at
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

__all__ = ["PROXIES", "find", "haproxy_config", "nginx_config", "running", "version"]

ATTEMPTS = 3
_START_TIMEOUT = 10.0
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def nginx_config(port: int, ports: Sequence[int], *, timeout: float, user: str | None = None) -> str:
    """``least_conn`` over kept-alive connections.

    ``max_fails=1 fail_timeout=10s`` (nginx's own defaults): one failure keeps an instance away for ten seconds, which is
    the quickest it can learn; then one request tries it. 502, 503 and 504 count as failures because they stand in
    ``proxy_next_upstream``. nginx never tries the same instance twice for a request. One worker, so that all requests share
    what was learnt. (nginx has no active health checks but in its commercial edition.)
    """
    servers = "\n".join(f"        server 127.0.0.1:{each} max_fails=1 fail_timeout=10s;" for each in ports)
    milliseconds = f"{timeout * 1e3:.0f}ms"
    return f"""\
{f"user {user};" if user else ""}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream fleet {{
        zone fleet 128k;
        least_conn;
{servers}
        keepalive 256;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://fleet;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout {milliseconds};
            proxy_send_timeout {milliseconds};
            proxy_read_timeout {milliseconds};
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_next_upstream_tries {ATTEMPTS};
        }}
    }}
}}
"""


def haproxy_config(port: int, ports: Sequence[int], *, timeout: float, user: str | None = None) -> str:
    """``leastconn`` over kept-alive connections, with retries that go elsewhere and with active health checks.

    Up to 3.0 HAProxy does not count a failure that it retries (haproxy/haproxy#2679), so ``observe layer7`` alone hardly
    ever marks an instance down here. What it learns from is a check of each instance every second, to which the hung
    and the failing one answer as they do to everything: an advantage over the other sides, which have only the requests
    to learn from. One failed check or observed error is enough, two good checks bring an instance back.
    """
    servers = "\n".join(f"    server s{number} 127.0.0.1:{each}" for number, each in enumerate(ports))
    milliseconds = f"{timeout * 1e3:.0f}ms"
    return f"""\
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout client 75s
    timeout connect {milliseconds}
    timeout server {milliseconds}
    timeout check {milliseconds}
    retries {ATTEMPTS - 1}
    option redispatch 1
    retry-on conn-failure empty-response junk-response response-timeout 502 503 504
    http-reuse always
    option httpchk GET /health
listen fleet
    bind 127.0.0.1:{port}
    balance leastconn
    default-server check inter 1s fall 1 rise 2 observe layer7 error-limit 1 on-error mark-down
{servers}
"""


PROXIES: dict[str, Callable[..., str]] = {"nginx": nginx_config, "haproxy": haproxy_config}
_COMMANDS = {
    "nginx": lambda program, file: [program, "-p", file.parent, "-c", file],
    "haproxy": lambda program, file: [program, "-db", "-f", file],
}


def find(name: str) -> str | None:
    """The path of the program, from ``PATH`` or from where Debian puts it; ``None`` if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def version(program: str) -> str:
    """Such as ``1.22.1``."""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10)
    found = re.search(r"\d+\.\d+[.\d]*\d", said.stdout + said.stderr)
    return found.group() if found else "of unknown version"


@contextmanager
def running(name: str, port: int, ports: Sequence[int], *, timeout: float) -> Iterator[None]:
    """Run the proxy *name* on *port*, in front of *ports*, as a child of ours with a folder of its own; inside it listens.

    Raises:
        RuntimeError: it did not listen in time; with what it said.
    """
    program = find(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    user = pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None  # else its worker can't enter the folder
    with TemporaryDirectory(prefix=f"disco-{name}-") as folder:
        file, said = Path(folder, f"{name}.conf"), Path(folder, "said")
        file.write_text(PROXIES[name](port, ports, timeout=timeout, user=user))
        with said.open("wb") as output:
            process = spawn(_COMMANDS[name](program, file), cwd=folder, stdout=output, stderr=output)
        try:
            wait_until(
                lambda: process.poll() is not None or look_at(port, process.pid) is Listener.OURS,
                timeout=_START_TIMEOUT,
            )
            if look_at(port, process.pid) is not Listener.OURS:
                raise RuntimeError(f"{name} does not listen on {port}: {said.read_text()}")
            yield
        finally:
            end(process, grace=2.0)
