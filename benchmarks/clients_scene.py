"""What stands behind the clients: three nginx instances and one that looks like 64, an nginx in front, and a real etcd.

Where nginx is not installed, `server` stands behind instead, and nothing in front. All of it runs on one core; the clients, one
after the other, on another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import discoclient
from discoclient.dev import EtcdCluster
from discoclient.system.ports import pick_ports
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

from .children import Child, family_cpu
from .clients_calls import SERVICE, Target
from .sidecar_configs import nginx_config, servers_config
from .sidecar_scene import SMALL, SMALL_BODY
from .sidecar_sides import nginx_user
from .trouble_proxies import find
from .usage import cores, on_core
from .wrk import answers, fetch

__all__ = ["INSTANCES", "MANY", "TEN", "TEN_SIZE", "UPLOAD", "Scene", "scene"]

INSTANCES = 3
MANY = 64
TEN, TEN_SIZE = "/ten", 10_000_000
UPLOAD = "/upload"
_KEEPALIVE = 75.0
_START_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Scene:
    ports: tuple[int, ...]
    many: tuple[int, ...]
    front: int | None
    """The port of the nginx in front; ``None`` where nginx is not installed."""
    registry: str | None
    """The etcd that knows the three; ``None`` where nobody asked for it."""
    pids: tuple[int, ...]
    """Of all that serves."""
    core: int
    """The clients'."""
    is_shared: bool
    """There is no other core."""
    folder: Path

    def target(self, where: str, path: str = SMALL) -> Target:
        """For who calls ``direct``, through ``nginx``, or finds the instances itself: ``memory``, ``many``, ``etcd``."""
        port = self.front if where == "nginx" else self.ports[0]
        return Target(
            url=f"http://127.0.0.1:{port}",
            path=path,
            ports={"memory": self.ports, "many": self.many}.get(where, ()),
            registry=self.registry if where == "etcd" else None,
            keepalive=_KEEPALIVE,
        )

    def servers_cpu(self) -> float:
        """Seconds that all servers, the proxy among them, have spent so far."""
        return sum(map(family_cpu, self.pids))


@contextmanager
def scene(*, etcd: bool = True) -> Iterator[Scene]:
    """Inside everybody answers. This process and the servers share a core."""
    core, other = cores()
    with ExitStack() as stack:
        stack.enter_context(on_core(other))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="disco-clients-")))
        front: int | None = None
        if find("nginx"):
            free = pick_ports(INSTANCES + MANY + 1)
            ports, many, front = tuple(free[:INSTANCES]), tuple(free[INSTANCES:-1]), free[-1]
            user = nginx_user()
            small = SMALL_BODY.decode()
            configs = [servers_config(port, small=small, user=user) for port in ports]
            configs.append(servers_config(*many, small=small, user=user))
            configs.append(nginx_config(front, ports, user=user))
            pids = tuple(
                stack.enter_context(_nginx(folder / str(number), config, port))
                for number, (config, port) in enumerate(zip(configs, [*ports, many[0], front]))
            )
        else:
            servers = [stack.enter_context(Child("server", count)) for count in (INSTANCES, MANY)]
            ports, many = (tuple(server.wait_ready().hello["ports"]) for server in servers)
            pids = tuple(server.pid for server in servers)
        registry = _etcd(stack, ports) if etcd else None
        yield Scene(ports, many, front, registry, pids, core, core == other, folder)


def _etcd(stack: ExitStack, ports: tuple[int, ...]) -> str:
    url = stack.enter_context(EtcdCluster(nodes=1)).registry_url
    for port in ports:
        stack.callback(
            discoclient.register(
                SERVICE,
                port,
                host="127.0.0.1",
                hostname=f"web-{port}",
                http_keepalive=_KEEPALIVE,
                registry=url,
            ).leave
        )
    return url


@contextmanager
def _nginx(folder: Path, config: str, port: int) -> Iterator[int]:
    """Run it; gives its pid once *port* answers."""
    program = find("nginx")
    assert program is not None
    folder.mkdir()
    (folder / "config").write_text(config)
    (folder / TEN[1:]).write_bytes(b"x" * TEN_SIZE)
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
        if process.poll() is not None or fetch(port, SMALL) != (200, SMALL_BODY):
            raise RuntimeError(f"nginx did not start: {said.read_text()}")
        yield process.pid
    finally:
        end(process, grace=2.0)
