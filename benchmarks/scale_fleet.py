"""Five hundred callers at a cluster of three: as many real processes as the cores allow, and the rest as their watches alone.

Straight to the members first, and then through ``etcd grpc-proxy``, which makes one watch of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from discoclient.dev import EtcdCluster
from discoclient.dev.grpc_proxy import GrpcProxy, read_metrics
from discoclient.system.waiting import wait_until

from .children import Child
from .figures import Role, Row, Section, percentile
from .scale_meter import Meter, delays, own_memory, resident, stand

__all__ = ["measure"]

_SERVICE = "experiment"
_WATCHERS, _EVENTS = "etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_events_total"
_SENT = "etcd_network_client_grpc_sent_bytes_total"
_AIM_WATCHES = 10.0
"""One, and those that a proxy has not merged yet: it does so when there is something to tell."""


@dataclass(frozen=True, slots=True)
class Plan:
    callers: int
    real: int
    """That run side by side and do nothing."""
    busy: int
    """That are real while a hundred changes a second are made."""
    instances: int
    rates: Sequence[int]
    """Changes a second."""
    seconds: float


def measure(*, quick: bool) -> Iterator[Section]:
    plan = Plan(20, 2, 1, 20, (100,), 0.3) if quick else Plan(500, 150, 5, 100, (20, 100), 8.0)
    with EtcdCluster(nodes=3) as etcd:
        stand(etcd.registry_url, [_SERVICE], plan.instances)
        nobody = _read(etcd, _WATCHERS)
        yield _idle(etcd, plan)

        def are_gone() -> bool:
            return _read(etcd, _WATCHERS) <= nobody

        ports = [member.client_port for member in etcd.members]
        rows: list[Row] = []
        for rate in plan.rates:
            wait_until(are_gone, timeout=20.0)
            rows += _churn(etcd, plan, rate, "straight to the members", etcd.registry_url, ports, ())
            wait_until(are_gone, timeout=20.0)
            with GrpcProxy([f"127.0.0.1:{port}" for port in ports]) as proxy:
                assert proxy.pid is not None
                rows += _churn(
                    etcd, plan, rate, "through one grpc-proxy", proxy.registry_url, [proxy.port], (proxy.pid,)
                )
    yield Section(
        f"{plan.callers:,} callers of one service, three members",
        rows,
        [
            (
                f"{plan.busy} of them are processes as `DiscoClient` makes them, the others a watch each; {plan.instances} "
                f"instances of one service, which all of them follow, for {plan.seconds:g} s. etcd: three members on this "
                "machine, which share its cores with all of this; CPU is that of the three together."
            ),
        ],
    )


def _idle(etcd: EtcdCluster, plan: Plan) -> Section:
    pids = [member.pid for member in etcd.members if member.pid is not None]
    quiet = Meter(pids)
    time.sleep(plan.seconds)
    nobody = quiet.read()
    before = resident(*pids)
    with Child("scale_watch", "disco", etcd.registry_url, _SERVICE, 1) as alone:
        alone.wait_ready()
        single = resident(alone.pid)
    began = time.monotonic()
    with Child("watchers", "disco", plan.real, etcd.registry_url, _SERVICE) as child:
        started = child.wait_ready().hello["pids"]
        seconds = time.monotonic() - began
        time.sleep(min(3.0, plan.seconds))
        meter, mine = Meter(pids), Meter(started)
        sent = _read(etcd, _SENT)
        time.sleep(plan.seconds)
        at_etcd, at_callers = meter.read() - nobody, mine.read()
        wire = (_read(etcd, _SENT) - sent) / (time.monotonic() - meter.began)
        memory = sum(map(own_memory, started)) / len(started)
        grown = resident(*pids) - before
    return Section(
        f"{plan.real} idle processes that call one service, three members",
        [
            Row("etcd without callers, CPU", "reference", "% of a core", (nobody,)),
            Row("a process started by itself, resident memory", "ours", "MB", (single,)),
            Row(
                "a process forked from one that has imported all, memory of its own", "ours", "MB", (memory,)
            ),
            Row("until all of them know the service", "ours", "s", (seconds,)),
            Row("each of them, CPU", "ours", "% of a core", (at_callers / plan.real,)),
            Row("what each costs etcd, CPU", "ours", "% of a core", (max(0.0, at_etcd) / plan.real,)),
            Row("what each costs etcd, sent", "ours", "bytes/s", (wire / plan.real,)),
            Row("what each costs etcd, memory of the three", "ours", "kB", (1000 * grown / plan.real,)),
        ],
        [
            (
                f"{plan.instances} instances. Each process has a lease that it renews every 3.3 s, its presence, and asks "
                f"every 10 s whether the silence is true. Looked at for {plan.seconds:g} s."
            )
        ],
    )


def _churn(
    etcd: EtcdCluster,
    plan: Plan,
    rate: int,
    way: str,
    url: str,
    ports: Sequence[int],
    proxies: tuple[int, ...],
) -> list[Row]:
    before, told = _read(etcd, _WATCHERS), _read(etcd, _EVENTS)
    with ExitStack() as stack:
        streams = stack.enter_context(Child("scale_streams", _SERVICE, plan.callers - plan.busy, *ports))
        callers = [
            stack.enter_context(Child("scale_watch", "disco", url, _SERVICE, 1)) for _ in range(plan.busy)
        ]
        churn = stack.enter_context(Child("scale_churn", etcd.registry_url, _SERVICE, plan.instances, rate))
        for child in (streams, *callers, churn):
            child.wait_ready()
        few = _AIM_WATCHES if proxies else plan.callers
        wait_until(lambda: _are_settled(_read(etcd, _WATCHERS) - before, few, bool(proxies)), timeout=20.0)
        meter, proxy_meter = Meter.of(etcd), Meter(proxies)
        client_meter = Meter([child.pid for child in callers])
        events, sent = _read(etcd, _EVENTS), _read(etcd, _SENT)
        watches = _read(etcd, _WATCHERS) - before
        time.sleep(plan.seconds)
        took = time.monotonic() - meter.began
        until = time.monotonic()
        cpu, proxy_cpu, client_cpu = meter.read(), proxy_meter.read(), client_meter.read()
        events, sent = (_read(etcd, _EVENTS) - events) / took, (_read(etcd, _SENT) - sent) / took
        memory = resident(*(member.pid for member in etcd.members if member.pid is not None))
        proxy_memory = resident(*proxies)
        made = churn.collect()
        time.sleep(0.2)
        for_each = (_read(etcd, _EVENTS) - told) / len(made)
        late = [
            each for child in callers for each in delays(child.collect()["noted"], made, since=meter.began)
        ]
        streams.collect()
    stand(etcd.registry_url, [_SERVICE], plan.instances)  # what left is there again
    found = sum(meter.began <= sent_at <= until for _, sent_at, _ in made) / took
    direct = not proxies
    way = f"{way}, {rate} changes/s"
    role: Role = "reference" if direct else "ours"
    rows = [
        Row(f"{way}: watches at etcd", role, "watches", (watches,), None if direct else _AIM_WATCHES),
        Row(f"{way}: etcd's CPU", role, "% of a core", (cpu,)),
        Row(f"{way}: etcd's memory", role, "MB", (memory,)),
        Row(f"{way}: changes made", "reference", "1/s", (found,)),
        Row(f"{way}: events out of etcd", role, "1/s", (events,)),
        Row(f"{way}: events out of etcd for each change", role, "events", (for_each,)),
        Row(f"{way}: sent by etcd", role, "MB/s", (sent / 1e6,)),
        Row(f"{way}: CPU of a caller", role, "% of a core", (client_cpu / plan.busy,)),
        Row(f"{way}: from a put's return to the view, p50", role, "ms", (percentile(late, 0.5),)),
        Row(f"{way}: from a put's return to the view, p99", role, "ms", (percentile(late, 0.99),)),
    ]
    if not direct:
        rows += [
            Row(f"{way}: the proxy's CPU", "ours", "% of a core", (proxy_cpu,)),
            Row(f"{way}: the proxy's memory", "ours", "MB", (proxy_memory,)),
        ]
    return rows


def _are_settled(watches: float, wanted: float, are_merged: bool) -> bool:
    """A proxy merges watches one by one, and only while something is told."""
    return 0 < watches <= wanted if are_merged else watches >= wanted


def _read(etcd: EtcdCluster, name: str) -> float:
    return sum(read_metrics(member.client_port, name)[name] for member in etcd.members)
