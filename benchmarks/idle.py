"""What a client costs that does nothing: threads, and CPU, with many services watched. Beside bare watches of the same ones.

Both sides are processes of their own, idle at the same time. What they spend is what Linux has counted for their threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from discoclient.dev import EtcdCluster

from .bare_etcd import BareEtcd, record
from .children import Child, cpu_seconds, thread_count
from .figures import Row, Section

__all__ = ["run"]

_SERVICES = 20
_INSTANCES = 3
_AIM_CPU = 0.5
_AIM_THREADS = 1.0


def run(*, quick: bool) -> Iterator[Section]:
    rounds, seconds = (5, 0.5) if quick else (5, 12.0)
    services = [f"service-{number}" for number in range(_SERVICES)]
    with EtcdCluster(nodes=1) as etcd:
        asyncio.run(_stand(etcd.registry_url, services))
        with (
            Child("watchers", "bare", 1, etcd.registry_url, *services) as bare,
            Child("watchers", "disco", 1, etcd.registry_url, *services) as disco,
        ):
            pids = {
                side: child.wait_ready().hello["pids"][0]
                for side, child in (("bare", bare), ("disco", disco))
            }
            time.sleep(min(2.0, seconds))  # what the start left to do is not what idling costs
            cpu: dict[str, list[float]] = {side: [] for side in pids}
            threads: dict[str, list[float]] = {side: [] for side in pids}
            for _ in range(rounds):
                before, began = {side: cpu_seconds(pid) for side, pid in pids.items()}, time.monotonic()
                time.sleep(seconds)
                elapsed = time.monotonic() - began
                for side, pid in pids.items():
                    cpu[side].append(100 * (cpu_seconds(pid) - before[side]) / elapsed)
                    threads[side].append(thread_count(pid) - 1.0)
    yield Section(
        f"Idle, {_SERVICES} services watched",
        [
            Row("bare etcd watches, CPU", "reference", "% of a core", tuple(cpu["bare"])),
            Row("DiscoClients, CPU", "ours", "% of a core", tuple(cpu["disco"]), _AIM_CPU),
            Row(
                "bare etcd watches, threads beside the main one",
                "reference",
                "threads",
                tuple(threads["bare"]),
            ),
            Row(
                "DiscoClients, threads beside the main one",
                "ours",
                "threads",
                tuple(threads["disco"]),
                _AIM_THREADS,
            ),
        ],
        [
            (
                f"{rounds} windows of {seconds:g} s; {_INSTANCES} instances for each service; no requests, no changes. "
                "etcd: one member on this machine."
            ),
            "Bare watches ask nothing. Ours ask every 10 s for each service whether the silence is true.",
        ],
    )


async def _stand(registry: str, services: list[str]) -> None:
    async with BareEtcd(registry) as etcd:
        lease = await etcd.lease()
        for service in services:
            await etcd.put_all([record(service, number) for number in range(_INSTANCES)], lease)
