"""nginx in front of the service, as uswitch/etcd-experiment had it: an upstream of one server, written anew at each deploy."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from discoclient.system.listeners import Listener, look_at
from discoclient.system.ports import pick_ports
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

from .trouble_proxies import find

__all__ = ["Nginx", "main_config", "running", "upstream_config"]

_START_TIMEOUT = 10.0
_COMMAND_TIMEOUT = 10.0


def upstream_config(port: int, service: int) -> str:
    """The template of 2014, its headers included: a connection to the service for each request, and no second server to try.

    Keeping these connections (``keepalive``) would save 0.1 ms, and be one more thing that can end at the wrong moment.
    """
    return f"""\
upstream experiment_app {{
    server 127.0.0.1:{service};
}}
server {{
    listen 127.0.0.1:{port} backlog=511;
    location / {{
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Host $http_host;
        proxy_redirect off;
        proxy_pass http://experiment_app;
    }}
}}
"""


def main_config(site: str, *, workers: int, user: str | None = None) -> str:
    """*site* is the file with the upstream. ``keepalive_requests`` is raised, so that connections end by deploys alone."""
    return f"""\
{f"user {user};" if user else ""}
worker_processes {workers};
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {site};
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """One nginx with a folder of its own. Whoever has this can render, check and reload it, also from another process."""

    folder: Path
    port: int

    @property
    def site(self) -> Path:
        return self.folder / "experiment-nginx.conf"

    def render(self, service: int) -> bool:
        """Write the upstream for the service on that port. False if it is written already."""
        text = upstream_config(self.port, service)
        if self.site.exists() and self.site.read_text() == text:
            return False
        fresh = self.site.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.site)
        return True

    def check(self) -> bool:
        """``nginx -t``."""
        return self._run("-t")

    def reload(self) -> bool:
        """``nginx -s reload``: it returns when the signal is sent, and not when the new workers work."""
        return self._run("-s", "reload")

    def command(self, *words: str) -> list[str]:
        program = find("nginx")
        if program is None:
            raise RuntimeError("nginx is not installed")
        return [program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), *words]

    def _run(self, *words: str) -> bool:
        done = subprocess.run(self.command(*words), capture_output=True, timeout=_COMMAND_TIMEOUT)
        return done.returncode == 0


@contextmanager
def running(service: int) -> Iterator[Nginx]:
    """An nginx of our own in front of the service on that port; inside it listens, afterwards it and its folder are gone.

    Raises:
        RuntimeError: it did not listen in time; with what it said.
    """
    user = pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None  # else its workers can't enter the folder
    with TemporaryDirectory(prefix="disco-nginx-") as name:
        (port,) = pick_ports()
        nginx = Nginx(Path(name), port)
        workers = len(os.sched_getaffinity(0))
        Path(name, "nginx.conf").write_text(main_config(nginx.site.name, workers=workers, user=user))
        nginx.render(service)
        said = Path(name, "said")
        with said.open("wb") as output:
            process = spawn(nginx.command("-g", "daemon off;"), cwd=name, stdout=output, stderr=output)
        try:
            wait_until(
                lambda: process.poll() is not None or look_at(port, process.pid) is Listener.OURS,
                timeout=_START_TIMEOUT,
            )
            if look_at(port, process.pid) is not Listener.OURS:
                raise RuntimeError(f"nginx does not listen on {port}: {said.read_text()}")
            yield nginx
        finally:
            end(process, grace=2.0)
