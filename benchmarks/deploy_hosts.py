"""All hosts at once: a supervisor for each host that is simulated (``--hostname``), each with its own old version to replace.

Real hosts don't share their processors. Here they do: so the supervisors are forked from one that was started before
(`deploy_template`), and what as many bare starts of the interpreter take on this machine stands beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import truediv
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

from discoclient import RegistryHandle, connect
from discoclient.dev import EtcdCluster
from discoclient.system.process import end, spawn
from discoclient.system.waiting import wait_until

from .children import Child
from .deploy_load import SERVICE
from .deploy_scene import under_load
from .deploy_ways import TIMEOUT, disco_run
from .figures import Row, Section, compare

__all__ = ["Fleet", "HostsPlan", "deploy_hosts", "hosts_section", "start_bare"]

_STUB = Path(__file__).with_name("deploy_stub.py")
_BARE = "import discoclient.cli.app"
_AIM = 1.5


class HostsPlan(NamedTuple):
    counts: Sequence[int]
    """Of hosts that are deployed at once."""
    rounds: int
    bake: float
    quiet: float
    rate: float
    """Requests a second: callers that are there acknowledge the drains."""
    seconds: float
    """Of load, longer than the deploy will take."""


class Fleet(NamedTuple):
    """What it took to deploy all hosts at once; seconds."""

    whole: float
    """From the first start to when the last of the old versions was gone."""
    registered: float
    """From the first start to when the last of the new versions was registered."""
    replaced: float
    """For each host, from when its new version was registered to when its old one was gone: the median."""
    failed: int


def hosts_section(plan: HostsPlan) -> Section:
    bare: dict[int, list[float]] = {count: [] for count in plan.counts}
    fleets: dict[int, list[Fleet]] = {count: [] for count in plan.counts}
    for number in range(plan.rounds):
        for count in plan.counts:
            bare[count].append(start_bare(count))
            fleets[count].append(deploy_hosts(count, plan, f"round {number}"))

    def rows(name: str, value: Callable[[Fleet], float]) -> dict[int, Row]:
        return {
            count: Row(f"{_hosts(count)}: {name}", "ours", "s", tuple(map(value, taken)))
            for count, taken in fleets.items()
        }

    starts = {
        count: Row(f"{_hosts(count)}: as many bare interpreters start", "reference", "s", tuple(taken))
        for count, taken in bare.items()
    }
    registered = rows("until all new versions are registered", lambda fleet: fleet.registered)
    replaced = rows("from registered to the old one gone, each", lambda fleet: fleet.replaced)
    whole = rows("until all old versions are gone", lambda fleet: fleet.whole)
    found = [row for group in (starts, registered, replaced, whole) for row in group.values()]
    first, *others = plan.counts
    for name, group in (("from registered to gone", replaced), ("the whole deploy", whole)):
        found += [
            compare(
                f"{name}, {_hosts(count)} in terms of {_hosts(first)}",
                truediv,
                group[count],
                group[first],
                unit="times",
                aim=_AIM,
            )
            for count in others
        ]
    failed = sum(fleet.failed for taken in fleets.values() for fleet in taken)
    found.append(Row("requests that failed, in all", "ours", "requests", (failed,), aim=0.0))
    return Section("All hosts at once", found, [_about(plan)])


def start_bare(count: int) -> float:
    """Seconds until that many interpreters, started at once, have imported what ``disco run`` imports, and ended."""
    began = monotonic()
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            processes.append(spawn([sys.executable, "-c", _BARE], stderr=2))
            stack.callback(end, processes[-1], grace=0.0)
        if any(process.wait(TIMEOUT) for process in processes):
            raise RuntimeError("disco could not be imported")
    return monotonic() - began


def deploy_hosts(count: int, plan: HostsPlan, seed: str) -> Fleet:
    """*count* hosts with an old version each; then a new version on all of them at once."""
    with (
        TemporaryDirectory(prefix="disco-deploy-") as folder,
        EtcdCluster(nodes=1) as etcd,
        connect(etcd.registry_url) as registry,
        ThreadPoolExecutor(2) as pool,
        # both last, so that they end first: the threads wait for them
        Child("deploy_template", Path(folder, "said"), _supervisors(etcd, count, "v1", plan)) as old,
        Child("deploy_template", Path(folder, "said"), _supervisors(etcd, count, "v2", plan)) as new,
    ):
        for template in (old, new):
            template.wait_ready()
        ending = pool.submit(old.collect)
        if not wait_until(lambda: len(_registered(registry, "v1")) == count, timeout=TIMEOUT):
            raise RuntimeError(f"the hosts did not come up: {Path(folder, 'said').read_text()}")
        with under_load(etcd.registry_url, plan.rate, plan.seconds, seed) as load:
            load.begin()
            began = monotonic()
            pool.submit(new.collect)
            registered: dict[str, float] = {}

            def is_replaced() -> bool:
                for host in _registered(registry, "v2"):
                    registered.setdefault(host, monotonic())
                return ending.done()

            wait_until(is_replaced, timeout=TIMEOUT)
            failed = sum(call.error is not None for call in load.finish())
        if not ending.done() or len(registered) < count:
            raise RuntimeError(f"not all hosts were deployed: {Path(folder, 'said').read_text()}")
        gone = {host: moment for host, (moment, _) in ending.result().items()}
    return Fleet(
        max(gone.values()) - began,
        max(registered.values()) - began,
        median(gone[host] - registered[host] for host in gone),
        failed,
    )


def _registered(registry: RegistryHandle, version: str) -> list[str]:
    """The hosts on which that version is ready."""
    found = registry.instances(SERVICE)
    return [each.hostname or "" for each in found if each.version == version and each.state == "ready"]


def _supervisors(etcd: EtcdCluster, count: int, version: str, plan: HostsPlan) -> str:
    """For `deploy_template`: a ``disco run`` of the light service on each host."""
    stub = [sys.executable, "-I", "-S", str(_STUB), "{port}"]
    options = ("--version", version, "--bake", plan.bake, "--quiet", plan.quiet)
    hosts = [f"web-{number + 1}" for number in range(count)]
    return json.dumps(
        {host: disco_run(etcd.registry_url, stub, *options, "--hostname", host) for host in hosts}
    )


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _about(plan: HostsPlan) -> str:
    return (
        f"Rounds: {plan.rounds}. Each host is a `disco run` with a host name of its own, `--bake {plan.bake:g} --quiet "
        f"{plan.quiet:g}`, and a service that starts in 20 ms; {plan.rate:g} requests a second meanwhile. All of them share "
        "the cores of this machine, which real hosts don't: a bare interpreter imports what `disco run` imports, and ends."
    )
