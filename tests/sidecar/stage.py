"""The stage of the sidecar's tests: its process on free ports, before instances that keep every byte."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from discoclient.system.ports import pick_ports
from tests.support.eventually import eventually
from tests.support.processes import PythonProcess

from .origin import Origin, Received
from .wire import Address, Client, Reply, ask, get

__all__ = ["Sidecar", "Stage", "fixed", "toml"]

READY_TIMEOUT = 15.0
"""Seconds for an interpreter to start on a machine that has other things to do."""

_number = itertools.count()


def fixed(**services: Sequence[Origin | int]) -> str:
    """A registry that never changes: by service, the origins or ports of its instances."""
    lists = []
    for service, members in services.items():
        ports = [member.port if isinstance(member, Origin) else member for member in members]
        lists.append(f"{service}=" + ",".join(f"127.0.0.1:{port}" for port in ports))
    return "static://" + ";".join(lists)


def toml(settings: Mapping[str, object]) -> str:
    """*settings* as TOML: numbers, booleans, texts, and lists of them, all of which JSON writes alike."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


class Sidecar:
    """``python -m disco_sidecar``, on addresses of its own. A context manager.

    Args:
        registry: its ``$DISCO_REGISTRY``.
        options: more options.
        settings: what is written into its configuration file.
        like: another sidecar, whose addresses to use.
        wait: for readiness (default), or not at all.
    """

    def __init__(
        self,
        registry: str,
        *options: str,
        settings: Mapping[str, object] | None = None,
        like: Sidecar | None = None,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sc-"))
        if like is None:
            self.port, self.admin_port, self.service_port = pick_ports(3)
            self.unix = str(self.folder / "in.sock")
        else:
            self.port, self.admin_port, self.service_port = like.port, like.admin_port, like.service_port
            self.unix = like.unix
        arguments = [
            *("--bind", f"127.0.0.1:{self.port}"),
            *("--admin", f"127.0.0.1:{self.admin_port}"),
            *("--listen", f"{self.service_port}=experiment"),
            *("--listen", f"unix:{self.unix}=experiment"),
            *options,
        ]
        if settings is not None:
            file = self.folder / "sidecar.toml"
            file.write_text(toml(settings))
            arguments += ["--config", str(file)]
        self.process = PythonProcess(
            "-m", "disco_sidecar", *arguments, env={"DISCO_REGISTRY": registry} | dict(env or {})
        )
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.port

    @property
    def admin(self) -> Address:
        return "127.0.0.1", self.admin_port

    @property
    def listening(self) -> Address:
        """The port that is ``experiment``'s alone."""
        return "127.0.0.1", self.service_port

    def wait_ready(self, path: str = "/readyz") -> None:
        """Wait until *path* of the admin address says 200."""

        def is_ready() -> bool:
            if not self.process.is_running:
                self.process.wait(timeout=1.0)
                raise RuntimeError(f"the sidecar ended\n{self.process.output}\n{self.process.errors}")
            try:
                return ask(self.admin, get(path)).status == 200
            except OSError:
                return False

        eventually(is_ready, timeout=READY_TIMEOUT, what=f"the sidecar's {path} says 200")

    def page(self, path: str) -> Reply:
        """What the admin address answers."""
        return ask(self.admin, get(path))

    def services(self) -> Any:
        return json.loads(self.page("/api/services").body)

    def memory(self) -> int:
        """Resident bytes of the process and its children."""
        pids = [self.process.pid, *self.children()]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    def children(self) -> list[int]:
        """The processes it has started."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def terminate(self) -> None:
        self.process.signal(signal.SIGTERM)

    def stop(self) -> int:
        """End it, and remove what is left of it."""
        code = self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


class Stage:
    """A sidecar before one instance of ``experiment``, beside a ``ledger`` and a service nobody listens for."""

    def __init__(self, *options: str, settings: Mapping[str, object] | None = None) -> None:
        self.origin = Origin()
        self.ledger = Origin()
        (self.dead_port,) = pick_ports(1)
        registry = fixed(experiment=[self.origin], ledger=[self.ledger], dead=[self.dead_port])
        try:
            self.sidecar = Sidecar(registry, *options, settings=settings)
        except BaseException:
            self.close_origins()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sidecar.stop()
        self.close_origins()

    def close_origins(self) -> None:
        self.origin.close()
        self.ledger.close()

    def client(self, **options: Any) -> Client:
        """A connection to the sidecar's main address."""
        return Client(self.sidecar.address, **options)

    def ask(self, request: bytes) -> Reply:
        return ask(self.sidecar.address, request)

    def seen(self, request: bytes, target: str | None = None) -> Received:
        """Send *request*, which must be answered 200, and give what the instance got: the last for *target*."""
        before = len(self.origin.requests)
        reply = self.ask(request)
        assert reply.status == 200, reply
        got = self.origin.requests[before:]
        assert len(got) == 1, got
        assert target is None or got[0].target == target
        return got[0]

    @contextmanager
    def nothing_forwarded(self) -> Iterator[None]:
        """Not one byte reaches an instance meanwhile. A good request afterwards proves that it would have been seen."""
        before, ledgers = self.origin.received, self.ledger.received
        yield
        more = self.new_bytes(before)
        assert more == 0, f"{more} bytes were forwarded: {self.origin.requests[-3:]}"
        assert self.ledger.received == ledgers, f"forwarded to another service: {self.ledger.requests[-3:]}"

    def new_bytes(self, before: int) -> int:
        """What has been received since *before*, apart from those of a good request that is sent now."""
        target = f"/barrier/{next(_number)}"
        assert self.ask(get(f"/experiment{target}")).status == 200
        return self.origin.received - before - len(self.origin.only(target).raw)

    def hold(self, target: str) -> Held:
        """Requests for *target* reach the instance and get no answer until they are told to."""
        return Held(self.origin, target)


class Held:
    """Requests for one target, kept waiting at the instance."""

    def __init__(self, origin: Origin, target: str) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self.gone = threading.Event()

        def answer(exchange: Any) -> None:
            exchange.read_body()
            self.reached.set()
            while not self.release.wait(0.02):
                if _has_ended(exchange.socket):
                    self.gone.set()
                    exchange.close()
                    return
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

        origin.on(target, answer)


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
