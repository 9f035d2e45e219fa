"""``etcd grpc-proxy``, which comes with etcd: many clients' watches of a range become one at the cluster."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ..system.listeners import Listener, look_at
from ..system.ports import pick_ports
from ..system.process import Process, end, pause, send, spawn
from ..system.waiting import wait_until
from .binary import EtcdBinary, clean_environment, find_etcd
from .failures import EtcdFailed, ForeignListener
from .folder import DataFolder

__all__ = ["GrpcProxy", "read_metrics"]


class GrpcProxy:
    """A real grpc-proxy on 127.0.0.1, before the members at *endpoints* (``host:port``). A context manager.

    The port is chosen at the first start and stays over restarts. ``binary``: default `find_etcd`.
    """

    def __init__(self, endpoints: Sequence[str], *, binary: EtcdBinary | None = None) -> None:
        self.endpoints = tuple(endpoints)
        self._binary = binary
        self._process: Process | None = None
        self._folder: DataFolder | None = None
        self.port = 0

    @property
    def registry_url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, *, timeout: float = 10.0) -> Self:
        """Start it, and wait until it listens. Raises `EtcdFailed`."""
        binary = self._binary or find_etcd()
        self.port = self.port or pick_ports()[0]
        self._folder = self._folder or DataFolder.temporary()
        command = [
            str(binary.path),
            "grpc-proxy",
            "start",
            f"--endpoints={','.join(self.endpoints)}",
            f"--listen-addr=127.0.0.1:{self.port}",
            f"--advertise-client-url=127.0.0.1:{self.port}",
            f"--data-dir={self._folder.path / 'data'}",
        ]
        log_path = self._folder.path / "log"
        with log_path.open("ab") as log:
            self._process = process = spawn(command, env=clean_environment(), stdout=log, stderr=log)

        def is_listening() -> bool:
            if process.poll() is not None:
                said = log_path.read_text(errors="replace")[-1000:]
                raise EtcdFailed(f"grpc-proxy ended with exit code {process.returncode}\n{said}")
            who = look_at(self.port, process.pid)
            if who is Listener.FOREIGN:
                raise ForeignListener(f"127.0.0.1:{self.port} is somebody else's", port=self.port)
            return who is Listener.OURS

        try:
            if not wait_until(is_listening, timeout=timeout):
                raise EtcdFailed(f"grpc-proxy does not listen after {timeout:g} s")
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            end(self._process, grace=0.0)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        if self._process is not None:
            pause(self._process)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            send(self._process, signal.SIGCONT)

    def stop(self) -> None:
        """End it, and remove its folder. Can be called again."""
        self.kill()
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def read_metrics(port: int, *names: str, timeout: float = 5.0) -> dict[str, float]:
    """Some of what the member at 127.0.0.1:*port* says at ``/metrics``: those of *names* that have no labels."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as reply:
        lines = reply.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(found.get(name, 0.0)) for name in names}
