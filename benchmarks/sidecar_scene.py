"""What stands behind the sides: three instances of a service, each an nginx of its own, and a real etcd that knows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import discoclient
from discoclient.dev import EtcdCluster
from discoclient.system.ports import pick_ports
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

from .sidecar_configs import servers_config
from .sidecar_sides import SERVICE, Front, nginx_user, running
from .trouble_proxies import find
from .usage import cores, on_core
from .wrk import answers, fetch

__all__ = ["HUGE", "LARGE", "SMALL", "SMALL_BODY", "Scene", "register", "scene"]

SMALL, LARGE, HUGE = "/small", "/large", "/huge"
SMALL_BODY = b'{"id": 1, "name": "a body of 41 bytes !"}'
LARGE_SIZE = 1_000_000
HUGE_SIZE = 200_000_000
INSTANCES = 3
_START_TIMEOUT = 10.0
_KEEPALIVE = 75.0
"""Seconds that the servers keep an idle connection, as the registry says it."""


@dataclass(frozen=True, slots=True)
class Scene:
    ports: tuple[int, ...]
    """Of the instances."""
    registry: str
    folder: Path
    """For whatever has to be written."""
    core: int
    """The proxy's; all else is on another one, if there is another."""
    is_shared: bool
    """There is no other core."""

    @contextmanager
    def front(self, side: str, *, ports: Sequence[int] = (), probe: str = SMALL) -> Iterator[Front]:
        with running(side, ports or self.ports, registry=self.registry, core=self.core, probe=probe) as front:
            yield front

    def counts(self) -> tuple[int, ...]:
        """Requests that each instance had so far; the one that asks for it included."""
        return tuple(map(_count, self.ports))

    def served(self, before: Sequence[int]) -> list[int]:
        """Requests that each instance had since it said *before*, these questions left out."""
        return [after - each - 1 for after, each in zip(self.counts(), before, strict=True)]


def _count(port: int) -> int:
    # "Active connections: 1 \nserver accepts handled requests\n 1 1 1 \nReading: ..."
    return int(fetch(port, "/count")[1].splitlines()[2].split()[2])


@contextmanager
def scene(*, registered: bool = True) -> Iterator[Scene]:
    """Inside the instances answer, and are *registered* if they are to be. This process and what it starts share one core."""
    core, other = cores()
    with ExitStack() as stack:
        stack.enter_context(on_core(other))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="disco-sidecar-bench-")))
        ports = tuple(stack.enter_context(_server(folder / str(each))) for each in range(INSTANCES))
        etcd = stack.enter_context(EtcdCluster(nodes=1))
        if registered:
            for port in ports:
                stack.callback(register(etcd.registry_url, port).leave)
        yield Scene(ports, etcd.registry_url, folder, core, core == other)


def register(registry: str, port: int) -> discoclient.Registration:
    """Put an instance into the registry that listens on that port; ``leave`` takes it out, at once."""
    return discoclient.register(
        SERVICE,
        port,
        host="127.0.0.1",
        hostname=f"web-{port}",
        http_keepalive=_KEEPALIVE,
        registry=registry,
    )


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    program = find("nginx")
    if program is None:
        raise RuntimeError("nginx is not installed")
    folder.mkdir()
    (port,) = pick_ports()
    (folder / "config").write_text(servers_config(port, small=SMALL_BODY.decode(), user=nginx_user()))
    (folder / LARGE[1:]).write_bytes(b"x" * LARGE_SIZE)
    with (folder / HUGE[1:]).open("wb") as file:
        file.truncate(HUGE_SIZE)  # a hole: it takes no disk
    said = folder / "said"
    with said.open("wb") as output:
        process = spawn(
            [program, "-p", str(folder), "-c", str(folder / "config")],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(port, SMALL), timeout=_START_TIMEOUT)
        if process.poll() is not None:
            raise RuntimeError(f"an instance did not start: {said.read_text()}")
        yield port
    finally:
        end(process, grace=2.0)
