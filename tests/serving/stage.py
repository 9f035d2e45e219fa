"""What tests of servers share: a registry, an instance that stays, callers, and a request that lasts as long as one wants."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from discoclient import DiscoClient, RetryPolicy
from discoclient.control.hub import fresh_hub
from discoclient.dev import EtcdCluster
from tests.faults.raw import Raw, RawKey
from tests.support.eventually import eventually
from tests.support.load import Load
from tests.support.processes import Processes, PythonProcess
from tests.support.servers import Servers

__all__ = ["ONCE", "PROGRAMS", "Stage", "stage", "tell"]

PROGRAMS = Path(__file__).parent / "programs"
ONCE = RetryPolicy(max_attempts=1)
"""What goes wrong is seen, and not made good on another instance."""


def tell(process: PythonProcess, number: signal.Signals) -> None:
    """Send a signal to the process alone, as an init system or a container's runtime does, and not to what it started."""
    assert process.is_running
    os.kill(process.pid, number)


class Stage:
    """The service 'experiment' in the registry at *url*."""

    def __init__(
        self, etcd: EtcdCluster, url: str, processes: Processes, folder: Path, ends: ExitStack
    ) -> None:
        self.url = url
        self.raw = Raw(etcd, url)
        self.gate = folder / "gate"
        self._folder = folder
        self._processes = processes
        self._ends = ends
        self._threads = ends.enter_context(ThreadPoolExecutor(8))
        ends.callback(self.open)  # whatever a test left waiting
        self._servers = ends.enter_context(Servers())

    def python(self, *arguments: str | os.PathLike[str], **env: str) -> PythonProcess:
        """``python ARGUMENTS``, which finds the registry and the gate in its environment."""
        mine = {"DISCO_REGISTRY": self.url, "GATE": str(self.gate), "XDG_RUNTIME_DIR": str(self._folder)}
        process = self._processes.python(*arguments, env=mine | env)
        self._ends.callback(process.kill)  # how it leaves has tests of its own, and takes its time
        return process

    def open(self) -> None:
        """What waits for the gate goes on."""
        self.gate.touch()

    # ---- who is registered

    def stand_by(self) -> str:
        """An instance that answers all the while. Its id."""
        return self.raw.add("experiment", port=self._servers.start().port).id

    def keys(self) -> dict[str, RawKey]:
        return self.raw.instances("experiment")

    def states(self) -> dict[str, str]:
        return {id: json.loads(key.value)["state"] for id, key in self.keys().items()}

    def newcomer(self, *known: str) -> dict[str, Any]:
        """The record of the one that is not *known*, once it is registered."""
        (record,) = self.newcomers(1, *known)
        return record

    def newcomers(self, count: int, *known: str) -> list[dict[str, Any]]:
        """As `newcomer`, for *count* of them."""

        def found() -> list[RawKey]:
            newcomers = [key for id, key in self.keys().items() if id not in known]
            return newcomers if len(newcomers) >= count else []

        keys = eventually(found, timeout=30, what=f"{count} are registered")
        return [json.loads(key.value) for key in keys]

    def until(self, id: str, state: str | None, *, timeout: float = 10.0) -> None:
        """Until *id* is in *state*; ``None``: until it is in the registry no more."""
        eventually(lambda: self.states().get(id) == state, timeout=timeout, what=f"it is {state}")

    def ask_to_retire(self, id: str) -> None:
        key = self.raw.instance("experiment", id)
        assert key is not None
        asked = json.dumps({"v": 1, "retire": {"reason": "a test", "by": "nobody"}}).encode()
        self.raw.put(self.raw.keys.control("experiment", id), asked, lease=key.lease)

    # ---- callers

    def client(self, **options: Any) -> DiscoClient:
        """A caller who knows the registry, and who tries only once."""
        options = {"registry": self.url, "retry": ONCE, "timeout": 10.0} | options
        return self._ends.enter_context(DiscoClient("experiment", **options))

    def unaware(self, record: dict[str, Any]) -> httpx.Client:
        """A caller who has an address, and learns nothing."""
        url = f"http://{record['host']}:{record['port']}"
        limits = httpx.Limits(max_keepalive_connections=0)  # a server that stops waits for those some seconds
        return self._ends.enter_context(httpx.Client(base_url=url, trust_env=False, limits=limits))

    def load(self, method: str = "POST", path: str = "/", **options: Any) -> Load:
        """Many requests that are never sent twice, by a client with *options*. Each instance gets its share, however slow."""
        return Load(self.client(balancer="round_robin", **options), rate=50, method=method, path=path)

    def later(self, call: Callable[[], httpx.Response]) -> Future[httpx.Response]:
        return self._threads.submit(call)


@contextmanager
def stage(etcd: EtcdCluster, url: str, processes: Processes, folder: Path) -> Iterator[Stage]:
    """On a hub of its own, so that no caller of an earlier test is waited for."""
    with fresh_hub(), ExitStack() as ends:
        yield Stage(etcd, url, processes, folder, ends)
