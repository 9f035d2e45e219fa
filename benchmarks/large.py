"""A service of 10,000 instances: the first list, the memory, and what one change costs. Beside decoding all of it as JSON.

That a change touches only what changed is counted, and not inferred from a time: records decoded, endpoints made, and how many
instances and endpoints are other objects than before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import truediv
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

from discoclient import DiscoClient, connect
from discoclient.balancing.endpoint import Endpoint
from discoclient.control import resolver as resolver_module
from discoclient.control.hub import fresh_hub
from discoclient.control.resolver import Resolver
from discoclient.dev import EtcdCluster
from discoclient.registry.codec import decode

from .bare_etcd import BareEtcd, prefix_of, record
from .changes import Change, MakeChange, alternate, known_at
from .children import Child
from .figures import Row, Section, compare
from .watchers import Noted

__all__ = ["run"]

_SERVICE = "experiment"
_SMALL = "bare-watch"
"""What the bare watch follows: it keeps nothing, so that how many instances there are does not matter to it."""
_TIMEOUT = 60.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    instances: int
    rounds: int
    changes: int
    """In each round, on each side."""
    pause: float


def run(*, quick: bool) -> Iterator[Section]:
    plan = Plan(500, 5, 3, 0.02) if quick else Plan(10_000, 5, 20, 0.1)
    with EtcdCluster(nodes=1) as etcd:
        registry = etcd.registry_url
        values = asyncio.run(_stand(registry, plan))
        rows = [*_first_list(registry, plan, values), *_memory(registry, plan, values)]
        decoding = _rounds(plan, lambda: _time(lambda: _decode(values)))
        rows += _changes(
            registry, plan, Row(f"JSON-decoding all {plan.instances:,}", "reference", "ms", decoding)
        )
        rows += _counts(registry, plan)
    yield Section(
        f"{plan.instances:,} instances",
        rows,
        [
            (
                f"{plan.rounds} rounds; {plan.changes} changes in each, {plan.pause * 1000:g} ms apart; "
                f"{sum(map(len, values)) / len(values):.0f} bytes a record; etcd: one member on this machine, without fsync."
            ),
            "Memory is what tracemalloc counts while a client is there. A change is a put of one known instance.",
        ],
    )


async def _stand(registry: str, plan: Plan) -> list[bytes]:
    async with BareEtcd(registry) as etcd:
        lease = await etcd.lease()
        await etcd.put_all([record(_SERVICE, number) for number in range(plan.instances)], lease)
        await etcd.put_all([record(_SMALL, 0)], lease)
        return [kv.value for kv in await etcd.list(prefix_of(_SERVICE))]


# ---- the first list


def _first_list(registry: str, plan: Plan, values: Sequence[bytes]) -> Iterator[Row]:
    async def bare_list() -> None:
        async with BareEtcd(registry) as etcd:
            assert len(await etcd.list(prefix_of(_SERVICE))) == plan.instances

    def first_list() -> None:
        with _client(registry):
            pass

    sides: dict[str, Callable[[], float]] = {
        "bare": lambda: _time(lambda: asyncio.run(bare_list())),
        "decode": lambda: _time(lambda: _decode(values)),
        "disco": lambda: _time_client(registry),
    }
    first_list()  # imports
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(plan.rounds):
        for side, act in sides.items():
            taken[side].append(act())
    bare = Row("bare etcd list, nothing decoded", "reference", "ms", tuple(taken["bare"]))
    both = Row(
        "bare etcd list, and JSON-decoding",
        "reference",
        "ms",
        tuple(map(sum, zip(taken["bare"], taken["decode"], strict=True))),
    )
    ours = Row("DiscoClient, from nothing to the first view", "ours", "ms", tuple(taken["disco"]))
    yield from (bare, both, ours, compare("times bare list and JSON-decoding", truediv, ours, both, unit="x"))


@contextmanager
def _client(registry: str) -> Iterator[Resolver]:
    """A client in a process that knows nothing yet, as soon as it has a view."""
    with ExitStack() as stack:
        stack.enter_context(fresh_hub())
        client = stack.enter_context(DiscoClient(_SERVICE, registry=registry, discovery_timeout=_TIMEOUT))
        client.wait_ready()
        yield stack.enter_context(connect(registry)).resolver(_SERVICE)


def _time_client(registry: str) -> float:
    gc.collect()
    began = perf_counter()
    with _client(registry):
        return (perf_counter() - began) * 1000


def _time(act: Callable[[], object]) -> float:
    """Milliseconds."""
    gc.collect()
    began = perf_counter()
    result = act()
    taken = (perf_counter() - began) * 1000
    del result
    return taken


def _decode(values: Sequence[bytes]) -> list[Any]:
    return [json.loads(value) for value in values]


def _rounds(plan: Plan, act: Callable[[], float]) -> tuple[float, ...]:
    return tuple(act() for _ in range(plan.rounds))


# ---- memory


def _memory(registry: str, plan: Plan, values: Sequence[bytes]) -> Iterator[Row]:
    def ours() -> float:
        with _traced() as measure, _client(registry):
            return measure()

    def decoded() -> float:
        with _traced() as measure:
            kept = _decode(values)
            measured = measure()
            del kept
            return measured

    pairs = [(decoded(), ours()) for _ in range(plan.rounds)]
    its, mine = (tuple(side) for side in zip(*pairs, strict=True))
    reference = Row("the decoded JSON, memory", "reference", "MiB", its)
    client = Row("DiscoClient, memory", "ours", "MiB", mine)
    yield from (
        reference,
        client,
        compare("times the decoded JSON, memory", truediv, client, reference, unit="x"),
    )


@contextmanager
def _traced() -> Iterator[Callable[[], float]]:
    """Gives a function that says how many MiB are held now that were not held at the beginning."""
    gc.collect()
    tracemalloc.start()

    def measure() -> float:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / _MIB

    try:
        yield measure
    finally:
        tracemalloc.stop()


# ---- one change


def _changes(registry: str, plan: Plan, decoding: Row) -> Iterator[Row]:
    with (
        Child("watchers", "bare", 1, registry, _SMALL) as bare,
        Child("watchers", "disco", 1, registry, _SERVICE) as disco,
    ):
        children = {"bare": bare.wait_ready(), "disco": disco.wait_ready()}
        made = asyncio.run(
            alternate(
                registry,
                {"bare": _change_one(_SMALL, 1), "disco": _change_one(_SERVICE, plan.instances)},
                rounds=plan.rounds,
                changes=plan.changes,
                pause=plan.pause,
            )
        )
        noted: dict[str, Noted] = {side: child.collect()[0] for side, child in children.items()}

    def rows(side: str, figure: Callable[[Noted, list[Change]], float]) -> tuple[float, ...]:
        mine = [change for change in made if change.side == side]
        return tuple(
            figure(noted[side], [change for change in mine if change.round == number])
            for number in range(plan.rounds)
        )

    yield Row(
        "bare etcd watch, one change, from the put's start, p50", "reference", "ms", rows("bare", _delay)
    )
    yield Row("DiscoClient, one change, from the put's start, p50", "ours", "ms", rows("disco", _delay))
    yield Row("bare etcd watch, one change, CPU", "reference", "ms", rows("bare", _cpu))
    yield decoding
    ours = Row("DiscoClient, one change, CPU", "ours", "ms", rows("disco", _cpu))
    yield ours
    yield compare("one change's CPU, times JSON-decoding all", truediv, ours, decoding, unit="x")


def _change_one(service: str, instances: int) -> MakeChange:
    async def make(etcd: BareEtcd, lease: int, number: int) -> int:
        key, value = record(service, number * 7919 % instances, version=f"2.5.{number}")
        return await etcd.put(key, value, lease)

    return make


def _delay(noted: Noted, changes: list[Change]) -> float:
    return median(1000 * (known_at(noted, change) - change.sent) for change in changes)


def _cpu(noted: Noted, changes: list[Change]) -> float:
    """CPU of the watcher's process for one change, from the end of the first one in this round to the end of the last."""
    revisions = [change.revision for change in changes]
    spent = [cpu for revision, _, cpu in noted if revisions[0] <= revision <= revisions[-1]]
    return (spent[-1] - spent[0]) / (len(changes) - 1) * 1000


# ---- what a change touches


def _counts(registry: str, plan: Plan) -> Iterator[Row]:
    with _counted() as counter, _client(registry) as resolver:
        if (counter["decoded"], counter["endpoints"]) != (plan.instances, plan.instances):
            raise RuntimeError(
                f"the first list of {plan.instances} was counted as {dict(counter)}: the counters are wrong"
            )
        touched: dict[str, list[float]] = {}
        for number in range(plan.rounds):
            snapshot, endpoints = resolver.snapshot, resolver.endpoints
            assert snapshot is not None
            counter.clear()
            revision = asyncio.run(_put(registry, number, plan.instances))
            _await_revision(resolver, revision)
            after = resolver.snapshot
            assert after is not None
            found = {
                "records decoded": counter["decoded"],
                "endpoints made": counter["endpoints"],
                "instances that are other objects": _others(snapshot.by_id, after.by_id),
                "endpoints that are other objects": _others(endpoints, resolver.endpoints),
            }
            for name, count in found.items():
                touched.setdefault(name, []).append(float(count))
    aims = {"records decoded": 1.0, "instances that are other objects": 1.0}
    for name, counts in touched.items():
        yield Row(f"one change, {name}", "ours", f"of {plan.instances:,}", tuple(counts), aims.get(name, 0.0))


async def _put(registry: str, number: int, instances: int) -> int:
    async with BareEtcd(registry) as etcd:
        key, value = record(_SERVICE, number * 7919 % instances, version=f"3.0.{number}")
        return await etcd.put(key, value, await etcd.lease())


def _await_revision(resolver: Resolver, revision: int) -> None:
    def is_there() -> bool:
        return resolver.snapshot is not None and resolver.snapshot.revision >= revision

    if not resolver.wait(is_there, _TIMEOUT):
        raise RuntimeError("a change did not arrive")


def _others(before: Any, after: Any) -> int:
    return sum(before.get(id) is not thing for id, thing in after.items())


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Counts records that are decoded and endpoints that are made, wherever that happens."""
    counter: Counter[str] = Counter()
    make = Endpoint.__init__

    def counting_decode(*args: Any, **kwargs: Any) -> Any:
        counter["decoded"] += 1
        return decode(*args, **kwargs)

    def counting_make(self: Endpoint, *args: Any, **kwargs: Any) -> None:
        counter["endpoints"] += 1
        make(self, *args, **kwargs)

    with (
        patch.object(resolver_module, "decode", counting_decode),
        patch.object(Endpoint, "__init__", counting_make),
    ):
        yield counter
