"""One service that grows to 10,000 instances, and a hundred changes a second of it, beside a bare watch of the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from discoclient.dev import EtcdCluster

from .children import Child
from .figures import Row, Section, percentile
from .scale_meter import Meter, delays, growth, resident, stand

__all__ = ["measure"]

_SERVICE = "experiment"
_RATE = 100
_AIM = 2.3
"""A little more than linear: the smallest of these sizes fits better into a processor's cache than the largest."""


@dataclass(slots=True)
class Found:
    """Of one size, by side."""

    first: dict[str, float] = field(default_factory=dict)
    """Seconds of CPU until all was known, the imports not counted."""
    seconds: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)
    received: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    etcd: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    views: float = 0.0
    rate: float = 0.0
    wire: float = 0.0


def measure(*, quick: bool) -> Section:
    sizes = (50, 200) if quick else (1_250, 2_500, 5_000, 10_000)
    seconds = 0.3 if quick else 8.0
    with EtcdCluster(nodes=1) as etcd:
        registry = etcd.registry_url
        stand(registry, ["small"], 1)
        with Child("scale_watch", "disco", registry, "small", 1) as small:
            small.wait_ready()
            base_memory = resident(small.pid)
        found = {
            size: _measure(
                registry, etcd, size, seconds, ("bare", "disco") if size == sizes[-1] else ("disco",)
            )
            for size in sizes
        }
    rows: list[Row] = []
    for size, one in found.items():
        name = f"{size:,} instances"
        if "bare" in one.cpu:
            rows += [
                Row(f"{name}: bare watch, CPU", "reference", "% of a core", (one.cpu["bare"],)),
                Row(f"{name}: bare watch, resident memory", "reference", "MB", (one.memory["bare"],)),
            ]
        rows += [
            Row(f"{name}: CPU at {_RATE} changes/s", "ours", "% of a core", (one.cpu["disco"],)),
            Row(f"{name}: etcd's CPU meanwhile", "reference", "% of a core", (one.etcd,)),
            Row(f"{name}: changes", "reference", "1/s", (one.rate,)),
            Row(f"{name}: views published", "ours", "1/s", (one.views,)),
            Row(f"{name}: received from etcd meanwhile", "ours", "kB/s", (one.wire,)),
            Row(f"{name}: from a put's return to the view, p50", "ours", "ms", (one.p50,)),
            Row(f"{name}: from a put's return to the view, p99", "ours", "ms", (one.p99,)),
            Row(f"{name}: until all is known", "ours", "s", (one.seconds,)),
            Row(f"{name}: CPU until all is known", "ours", "s", (one.first["disco"],)),
            Row(f"{name}: received until all is known", "ours", "kB", (one.received,)),
            Row(f"{name}: resident memory", "ours", "MB", (one.memory["disco"],)),
        ]
    all_found = list(found.values())
    cpu = [one.cpu["disco"] for one in all_found]
    memory = [max(0.1, one.memory["disco"] - base_memory) for one in all_found]
    rows += [
        growth("CPU under churn", cpu, sizes, aim=_AIM),
        growth("CPU for each view", [one.cpu["disco"] / one.views for one in all_found], sizes, aim=_AIM),
        growth("CPU until all is known", [one.first["disco"] for one in all_found], sizes, aim=_AIM),
        growth("memory above that of one instance", memory, sizes, aim=_AIM),
        growth("bytes until all is known", [one.received for one in all_found], sizes, aim=_AIM),
    ]
    return Section(
        f"One service of {sizes[0]:,} to {sizes[-1]:,} instances",
        rows,
        [
            (
                f"{_RATE} changes a second for {seconds:g} s: as many come as go, each drains first, and a quarter are changed "
                "weights. etcd: one member. CPU until all is known counts from when everything is imported."
            ),
            (
                "A view holds all changes since the last one, and after one there is a rest of four times as long as it took; "
                "the more instances, the fewer views."
            ),
        ],
    )


def _measure(registry: str, etcd: EtcdCluster, size: int, seconds: float, sides: Sequence[str]) -> Found:
    found, service = Found(), f"size-{size}"
    stand(registry, [service], size)
    for side in sides:
        with (
            Child("scale_watch", side, registry, service, 1) as watcher,
            Child("scale_churn", registry, service, size, _RATE) as churn,
        ):
            hello = watcher.wait_ready().hello
            found.first[side] = hello["cpu"]
            found.memory[side] = resident(watcher.pid)
            churn.wait_ready()
            time.sleep(min(1.0, seconds))
            meter, etcd_meter = Meter([watcher.pid]), Meter.of(etcd)
            time.sleep(seconds)
            found.cpu[side], found.etcd = meter.read(), etcd_meter.read()
            until = time.monotonic()
            made = churn.collect()
            told = watcher.collect()
        if side == "bare":
            stand(registry, [service], size)  # what left is there again
            continue
        late = delays(told["noted"], made, since=meter.began)
        took = until - meter.began
        found.p50, found.p99 = percentile(late, 0.5), percentile(late, 0.99)
        found.rate = sum(meter.began <= sent <= until for _, sent, _ in made) / took
        found.views = sum(meter.began <= at <= until for _, at, _ in told["noted"]) / took
        found.wire = (told["bytes"][0] - hello["bytes"][0]) / (made[-1][2] - made[0][1]) / 1000
        found.received, found.seconds = hello["bytes"][0] / 1000, hello["seconds"]
    return found
