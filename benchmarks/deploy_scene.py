"""One run: a way, callers with an open-loop load, and deploys at fixed moments. All in new processes, gone afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple

from discoclient.dev import EtcdCluster

from .children import Child
from .deploy_figures import Call, Run, read_calls
from .deploy_load import CONNECTIONS
from .deploy_ways import CAREFUL_PAUSE, Deploy, DiscoWay, NginxWay, SidecarWay, Way

__all__ = ["WAYS", "Load", "Plan", "measure", "under_load"]

WAYS: dict[str, Callable[[EtcdCluster, Path], Way]] = {
    "kill": NginxWay,
    "term": lambda etcd, folder: NginxWay(etcd, folder, pause=CAREFUL_PAUSE),
    "disco": DiscoWay,
    "sidecar": SidecarWay,
}
"""By name. A further way needs an entry here, and one in `deploy_tables.SIDES`."""


class Plan(NamedTuple):
    deploys: int
    lead: float
    """Seconds of load before the first deploy."""
    period: float
    """Seconds from the start of one deploy to that of the next, at least; the same moments for all ways."""
    rate: float
    """Requests a second, of all callers together."""

    @property
    def seconds(self) -> float:
        return self.lead + self.deploys * self.period


class Load:
    """The callers: one that keeps its connections, and one that makes a new one for each request. Between them the rate."""

    def __init__(self, target: str, rate: float, seconds: float, seed: str) -> None:
        self._stack = ExitStack()
        self._told: dict[str, Future[Any]] = {}
        self.began = 0.0
        try:
            # the threads end when the children do, so these have to be ended first
            self._pool = self._stack.enter_context(ThreadPoolExecutor(len(CONNECTIONS)))
            self._children = {
                each: self._stack.enter_context(
                    Child("deploy_load", target, each, rate / len(CONNECTIONS), seconds, f"{seed}/{each}")
                )
                for each in CONNECTIONS
            }
            for child in self._children.values():
                child.wait_ready()
        except BaseException:
            self._stack.close()
            raise

    def begin(self) -> None:
        self.began = monotonic()
        self._told = {each: self._pool.submit(child.collect) for each, child in self._children.items()}

    def finish(self) -> list[Call]:
        """Wait for the last request, and return all of them."""
        calls = [call for each, told in self._told.items() for call in read_calls(each, told.result())]
        return sorted(calls, key=lambda call: call.at)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def under_load(target: str, rate: float, seconds: float, seed: str) -> Iterator[Load]:
    """A `Load` that is ready, and has not begun."""
    load = Load(target, rate, seconds, seed)
    try:
        yield load
    finally:
        load.close()


def measure(way: str, plan: Plan, seed: str) -> Run:
    """One way from nothing to nothing."""
    with (
        TemporaryDirectory(prefix="disco-deploy-") as folder,
        EtcdCluster(nodes=1) as etcd,
        WAYS[way](etcd, Path(folder)) as scene,
        under_load(scene.target, plan.rate, plan.seconds, seed) as load,
    ):
        load.begin()
        deploys: list[Deploy] = []
        for number in range(plan.deploys):
            time.sleep(max(0.0, load.began + plan.lead + number * plan.period - monotonic()))
            deploys.append(scene.deploy(f"v{number + 2}"))
        calls = load.finish()
        executed = Counter(Path(folder, "ledger").read_text().splitlines())
    return Run(calls, deploys, executed)
