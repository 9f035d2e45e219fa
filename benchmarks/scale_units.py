"""What one of each costs three members: a renewal, a check of freshness, a write, an event out. `docs/scale.md` adds up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from discoclient.dev import EtcdCluster
from discoclient.dev.grpc_proxy import read_metrics
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd.registry import EtcdRegistry

from .bare_etcd import BareEtcd, prefix_of, record
from .children import Child
from .figures import Row, Section
from .scale_meter import Meter, resident, stand

__all__ = ["measure"]

_SERVICE, _LARGE = "experiment", "large"
_AT_ONCE = 16


def measure(*, quick: bool) -> Section:
    calls, streams, keys = (50, 20, 500) if quick else (4_000, 500, 10_000)
    with EtcdCluster(nodes=3) as etcd:
        registry = etcd.registry_url
        stand(registry, [_SERVICE], 3)
        before = _memory(etcd)
        stand(registry, [_LARGE], keys)
        per_key = 1000 * (_memory(etcd) - before) / keys / 3
        rows = asyncio.run(_calls(etcd, calls, keys))
        rows.append(Row("a key with an instance, memory of each member", "ours", "kB", (per_key,)))
        rows += asyncio.run(_leases(etcd, keys))
        rows += _events(etcd, streams, 0.3 if quick else 5.0)
    return Section(
        "What one of each costs etcd, three members together",
        rows,
        [
            (
                f"CPU of the three, {calls:,} calls of each kind with {_AT_ONCE} at once, without what they spend anyhow; "
                f"members without fsync, on this machine, where they also share its cores. {streams} watches for the events."
            ),
            "Memory as resident; Go gives it back late, so it is an upper bound.",
        ],
    )


def _memory(etcd: EtcdCluster) -> float:
    return resident(*(member.pid for member in etcd.members if member.pid is not None))


async def _calls(etcd: EtcdCluster, calls: int, keys: int) -> list[Row]:
    registry = EtcdRegistry(RegistryAddress.parse(etcd.registry_url), rng=Random(1))
    lease = await registry.grant(3600)
    prefix = prefix_of(_SERVICE)
    key, value = record("written", 1)

    async def cost(name: str, unit: str, count: int, call: Callable[[], Awaitable[object]]) -> Row:
        left = count

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await call()

        await call()
        meter = Meter.of(etcd)
        await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
        return Row(f"{name}, CPU", "ours", unit, (1e6 * meter.seconds() / count,))

    try:
        return [
            await cost("a lease renewed", "us", calls, lease.renew),
            await cost(
                "a check of freshness, 3 instances", "us", calls, lambda: registry.probe(prefix, after=1)
            ),
            await cost(
                f"a check of freshness, {keys:,} instances",
                "us",
                max(10, calls // 100),
                lambda: registry.probe(prefix_of(_LARGE), after=1),
            ),
            await cost("a list, 3 instances", "us", calls, lambda: registry.list(prefix)),
            await cost(
                f"a list, {keys:,} instances",
                "us",
                max(5, calls // 400),
                lambda: registry.list(prefix_of(_LARGE)),
            ),
            await cost(
                "a write (an instance, a presence)",
                "us",
                calls,
                lambda: registry.put(key, value, lease=lease, expected=None),
            ),
        ]
    finally:
        await lease.revoke()
        await registry.aclose()


async def _leases(etcd: EtcdCluster, count: int) -> list[Row]:
    before = _memory(etcd)
    async with BareEtcd(etcd.registry_url) as bare:
        for _ in range(0, count, _AT_ONCE):
            await asyncio.gather(*(bare.lease() for _ in range(_AT_ONCE)))
    return [
        Row(
            "a lease, memory of each member",
            "ours",
            "kB",
            (max(0.0, 1000 * (_memory(etcd) - before) / count / 3),),
        )
    ]


def _events(etcd: EtcdCluster, streams: int, seconds: float) -> list[Row]:
    ports = [member.client_port for member in etcd.members]
    rate = 100
    found: dict[int, tuple[float, float]] = {}
    before = _memory(etcd)
    after = before
    quiet = Meter.of(etcd)
    time.sleep(seconds)
    idle = quiet.read() / 100
    for count in (0, streams):
        with (
            Child("scale_streams", "noted", count, *ports) as watching,
            Child("scale_churn", etcd.registry_url, "noted", 10, rate) as churn,
        ):
            watching.wait_ready()
            churn.wait_ready()
            time.sleep(min(0.5, seconds))
            after = _memory(etcd)
            meter, sent = Meter.of(etcd), _sent(ports)
            time.sleep(seconds)
            took = time.monotonic() - meter.began
            found[count] = (meter.seconds() / took - idle, (_sent(ports) - sent) / took)
            churn.collect()
            watching.collect()
    cpu, wire = found[streams][0] - found[0][0], found[streams][1] - found[0][1]
    events = streams * rate
    return [
        Row(
            "a change, without anybody who watches, CPU",
            "reference",
            "us",
            (max(0.0, 1e6 * found[0][0] / rate),),
        ),
        Row("an event out, CPU", "ours", "us", (1e6 * cpu / events,)),
        Row("an event out, bytes", "ours", "bytes", (wire / events,)),
        Row(
            "a watch on a connection of its own, memory of the members",
            "ours",
            "kB",
            (1000 * (after - before) / streams,),
        ),
    ]


def _sent(ports: list[int]) -> float:
    name = "etcd_network_client_grpc_sent_bytes_total"
    return sum(read_metrics(port, name)[name] for port in ports)
