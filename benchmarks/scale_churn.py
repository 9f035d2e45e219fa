"""Churn: registrations, drains, departures and changed weights, so many a second, for as long as somebody listens.

``python -m benchmarks.scale_churn REGISTRY SERVICE INSTANCES RATE`` says ``{"ready": true}``, makes changes until its input
ends, and prints ``[revision, sent, returned]`` of each, in seconds of `monotonic`. The service has INSTANCES before and after.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from time import monotonic

from .bare_etcd import BareEtcd, record

__all__ = ["Step", "changed", "steps"]

Step = tuple[str, bytes | None]
"""A key, and what is put there; ``None``: it is deleted."""


def steps(service: str, instances: int) -> Iterator[Step]:
    """For ever: one comes, another one's weight changes, the oldest drains, and leaves."""
    oldest, newest = 0, instances
    while True:
        yield record(service, newest)
        middle = oldest + 1 + (newest * 7919) % max(1, instances - 1)
        yield changed(record(service, middle), weight=50 + newest % 50)
        yield changed(record(service, oldest), state="draining")
        yield record(service, oldest)[0], None
        oldest, newest = oldest + 1, newest + 1


def changed(entry: tuple[str, bytes], **fields: object) -> Step:
    key, value = entry
    return key, json.dumps(json.loads(value) | fields).encode()


async def churn(registry: str, service: str, instances: int, rate: float) -> list[tuple[int, float, float]]:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    made = []
    async with BareEtcd(registry) as etcd:
        lease = await etcd.lease()
        print(json.dumps({"ready": True}), flush=True)
        due = monotonic()
        for key, value in steps(service, instances):
            while (wait := due - monotonic()) > 0 and not over.is_set():
                await asyncio.sleep(wait)
            if over.is_set():
                break
            sent = monotonic()
            revision = await (etcd.delete(key) if value is None else etcd.put(key, value, lease))
            made.append((revision, sent, monotonic()))
            due += 1 / rate
    return made


def main() -> None:
    registry, service, instances, rate = sys.argv[1:]
    print(json.dumps(asyncio.run(churn(registry, service, int(instances), float(rate)))), flush=True)


if __name__ == "__main__":
    main()
