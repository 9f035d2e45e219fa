"""The ways to deploy: what each of them needs around the service, and how a new version takes over from the old one.

Inside its ``with`` block a way has one version of the service running, and an address that callers can be given.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from discoclient import connect
from discoclient.dev import EtcdCluster
from discoclient.system.ports import pick_ports
from discoclient.system.process import Process, end, spawn
from discoclient.system.waiting import wait_until

from .children import Child
from .deploy_keys import key, read
from .deploy_load import SERVICE
from .deploy_nginx import running
from .sidecar_sides import sidecar_words
from .wrk import answers

__all__ = ["CAREFUL_PAUSE", "Deploy", "DiscoWay", "NginxWay", "SidecarWay", "Way", "command", "start"]

CAREFUL_PAUSE = 2.0
"""Seconds that the careful operator waits between reload and SIGTERM: many times what a request takes here."""
BAKE = 1.0
"""Seconds for which a new version is watched before the old one goes; 5 by default, of which 4 would only be waited here."""
QUIET = 1.0
TIMEOUT = 30.0
_READY_TIMEOUT = 3.0
"""Of a version that is bad: it is only waited for."""
_ROOT = Path(__file__).resolve().parents[1]


class Deploy(NamedTuple):
    """`monotonic`, which is one clock for all processes of a Linux machine."""

    began: float
    """When the new version was started."""
    ended: float
    """When the process of the old one was gone; or, if it stayed, when the new one had given up."""
    code: int | None
    """The exit code of the new version's process, ``None`` while it runs."""
    was_replaced: bool
    old_code: int | None
    """The exit code of the old version's process, negative for a signal."""


class Way(Protocol):
    target: str
    """What a caller is given: a registry, or the URL of a proxy."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def deploy(self, version: str, *, mood: str = "well", patience: float = TIMEOUT) -> Deploy:
        """Start *version*, and wait until the one before is gone, or the new one, or *patience* is over."""
        ...


def command(version: str, *words: object, mood: str = "well", ledger: Path | None = None) -> list[str]:
    """The command of the service."""
    line = [sys.executable, "-m", "benchmarks.deploy_service", "--version", version, "--mood", mood]
    return [*line, *(["--ledger", str(ledger)] if ledger else []), *map(str, words)]


def start(words: list[str], said: Path, *, registry: str | None = None) -> Process:
    """Start a program of ours, with that *registry* in its environment; what it says is appended to the file *said*."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with said.open("ab") as output:
        env = os.environ | {"PYTHONPATH": path} | ({"DISCO_REGISTRY": registry} if registry else {})
        return spawn(words, env=env, stdout=output, stderr=output)


class _Base:
    """One version after the other, each a process of ours; the newest that took over is `current`."""

    def __init__(self, etcd: EtcdCluster, folder: Path) -> None:
        self.etcd = etcd
        self.ledger = folder / "ledger"
        self.said = folder / "said"
        self.said.touch()
        self.ledger.touch()
        self.stack = ExitStack()
        self.target = etcd.registry_url
        self._current: Process | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def launch(self, version: str, mood: str) -> Process:
        raise NotImplementedError

    def first(self, is_up: Callable[[], bool]) -> None:
        """Start the first version, and wait until *is_up*."""
        self._current = self._begin("v1", "well")
        if not wait_until(lambda: is_up() or self._is_over(self._current), timeout=TIMEOUT) or not is_up():
            raise RuntimeError(f"the first version did not come up: {self.said.read_text()}")

    def deploy(self, version: str, *, mood: str = "well", patience: float = TIMEOUT) -> Deploy:
        old, began = self._current, monotonic()
        assert old is not None
        new = self._begin(version, mood)
        wait_until(lambda: self._is_over(old) or self._is_over(new), timeout=patience)
        ended = monotonic()
        was_replaced = self._is_over(old)
        if was_replaced:
            self._current = new
        elif mood == "well":
            raise RuntimeError(f"{version} did not replace the one before: {self.said.read_text()}")
        return Deploy(began, ended, new.poll(), was_replaced, old.poll())

    def _begin(self, version: str, mood: str) -> Process:
        process = self.launch(version, mood)
        self.stack.callback(end, process, grace=0.0)
        return process

    @staticmethod
    def _is_over(process: Process | None) -> bool:
        return process is not None and process.poll() is not None


class NginxWay(_Base):
    """nginx in front, the keys of 2014, and a renderer. *pause*: seconds before SIGTERM; ``None`` is ``kill -9``, at once."""

    def __init__(self, etcd: EtcdCluster, folder: Path, *, pause: float | None = None) -> None:
        super().__init__(etcd, folder)
        self._pause = pause

    def __enter__(self) -> Self:
        try:
            self.first(lambda: self._registered() is not None)
            nginx = self.stack.enter_context(running(int(self._registered() or 0)))
            how = ("kill",) if self._pause is None else ("term", self._pause)
            self.stack.enter_context(
                Child("deploy_renderer", self.etcd.registry_url, nginx.folder, nginx.port, *how)
            ).wait_ready()
            self.target = f"http://127.0.0.1:{nginx.port}"
        except BaseException:
            self.stack.close()
            raise
        return self

    def launch(self, version: str, mood: str) -> Process:
        words = command(version, "--register", self._etcd_port, mood=mood, ledger=self.ledger)
        return start(words, self.said)

    def _registered(self) -> str | None:
        return asyncio.run(read(self._etcd_port, key("port", "current")))

    @property
    def _etcd_port(self) -> int:
        return self.etcd.members[0].client_port


class DiscoWay(_Base):
    """``disco run --replace``, and callers with the SDK."""

    def __init__(self, etcd: EtcdCluster, folder: Path, *, bake: float = BAKE) -> None:
        super().__init__(etcd, folder)
        self._bake = bake

    def __enter__(self) -> Self:
        try:
            self._registry = self.stack.enter_context(connect(self.etcd.registry_url))
            self.first(lambda: bool(self.ready()))
        except BaseException:
            self.stack.close()
            raise
        return self

    def launch(self, version: str, mood: str) -> Process:
        service = command(version, "--port", "{port}", mood=mood, ledger=self.ledger)
        options = {
            "--version": version,
            "--hostname": "web-1",
            "--bake": self._bake,
            "--quiet": QUIET,
            "--ready-timeout": TIMEOUT if mood == "well" else _READY_TIMEOUT,
            "--health-interval": 0.2,
            "--http-keepalive": 60,
        }
        words = disco_run(self.etcd.registry_url, service, *chain.from_iterable(options.items()))
        return start([sys.executable, "-m", "discoclient.cli", *words], self.said)

    def ready(self) -> list[str]:
        """The ids of the instances that are ready now."""
        return [each.id for each in self._registry.instances(SERVICE) if each.state == "ready"]


class SidecarWay(DiscoWay):
    """``disco run --replace`` all the same, and callers that know nothing of it: they call the sidecar, by path."""

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            (port,) = pick_ports()
            sidecar = start(sidecar_words(port), self.said, registry=self.etcd.registry_url)
            self.stack.callback(end, sidecar, grace=2.0)
            if not wait_until(lambda: answers(port, f"/{SERVICE}/healthz"), timeout=TIMEOUT):
                raise RuntimeError(f"the sidecar does not answer: {self.said.read_text()}")
            self.target = f"http://127.0.0.1:{port}/{SERVICE}"
        except BaseException:
            self.stack.close()
            raise
        return self


def disco_run(registry: str, words: list[str], *options: object) -> list[str]:
    """Arguments of ``disco``, to run *words* as an instance of the service, in place of what runs there."""
    return [
        *("--registry", registry, "run", SERVICE, "--replace", "--health-path", "/healthz"),
        *map(str, options),
        "--",
        *words,
    ]
