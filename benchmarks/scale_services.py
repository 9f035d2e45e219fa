"""One process that calls a thousand services, as a gateway does: all asked for at once, and then idle. Beside bare watches."""

from __future__ import annotations

import time

from discoclient.dev import EtcdCluster

from .children import Child
from .figures import Row, Section
from .scale_meter import Meter, growth, resident, stand
from .scale_watch import names

__all__ = ["measure"]

_INSTANCES = 3
_AIM = 2.3


def measure(*, quick: bool) -> Section:
    sizes = (10, 20) if quick else (125, 250, 500, 1_000)
    seconds = 0.2 if quick else 12.0
    rows: list[Row] = []
    spent: list[float] = []
    idle: list[float] = []
    memory: list[float] = []
    received: list[float] = []
    at_etcd: list[float] = []
    with EtcdCluster(nodes=1) as etcd:
        registry = etcd.registry_url
        stand(registry, names("service", sizes[-1]), _INSTANCES)
        with Child("scale_watch", "disco", registry, "service-0", 1) as one:
            one.wait_ready()
            base_memory = resident(one.pid)
        with Child("scale_watch", "bare", registry, "service", sizes[-1]) as bare:
            bare.wait_ready()
            time.sleep(min(1.0, seconds))
            meter = Meter([bare.pid])
            time.sleep(min(3.0, seconds))
            rows += [
                Row(f"{sizes[-1]:,} bare watches, idle CPU", "reference", "% of a core", (meter.read(),)),
                Row(f"{sizes[-1]:,} bare watches, memory", "reference", "MB", (resident(bare.pid),)),
            ]
        for size in sizes:
            name = f"{size:,} services"
            starting = Meter.of(etcd)
            with Child("scale_watch", "disco", registry, "service", size) as disco:
                hello = disco.wait_ready().hello
                etcd_start = starting.seconds()
                time.sleep(min(2.0, seconds))  # what they have to say of what they know
                meter, etcd_meter = Meter([disco.pid]), Meter.of(etcd)
                time.sleep(seconds)
                idle.append(meter.read())
                at_etcd.append(etcd_meter.read())
                memory.append(resident(disco.pid) - base_memory)
                spent.append(hello["cpu"])
                received.append(hello["bytes"][0] / 1000)
                rows += [
                    Row(f"{name}: until all are watched", "ours", "s", (hello["seconds"],)),
                    Row(f"{name}: CPU until all are watched", "ours", "s", (spent[-1],)),
                    Row(f"{name}: etcd's CPU until all are watched", "ours", "s", (etcd_start,)),
                    Row(f"{name}: received until all are watched", "ours", "kB", (received[-1],)),
                    Row(f"{name}: memory above that of one service", "ours", "MB", (memory[-1],)),
                    Row(f"{name}: idle CPU", "ours", "% of a core", (idle[-1],)),
                    Row(f"{name}: etcd's CPU meanwhile", "ours", "% of a core", (at_etcd[-1],)),
                ]
    rows += [
        growth("CPU until all are watched", spent, sizes, aim=_AIM),
        growth("idle CPU", idle, sizes, aim=_AIM),
        growth("memory", memory, sizes, aim=_AIM),
        growth("bytes until all are watched", received, sizes, aim=_AIM),
    ]
    return Section(
        f"{sizes[0]:,} to {sizes[-1]:,} services in one process",
        rows,
        [
            (
                f"{_INSTANCES} instances each; all asked for at once; then {seconds:g} s without a change. etcd: one member. "
                "Idle is not nothing: for each service it is asked every 10 s whether the silence is true."
            ),
            "CPU counts from when everything is imported.",
        ],
    )
