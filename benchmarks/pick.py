"""What a pick costs, by balancer and by number of endpoints, beside `random.choice` from the same endpoints."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import repeat
from operator import truediv
from random import Random
from time import process_time
from typing import Any

from discoclient.balancing.balancer import BALANCERS
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import build_view
from discoclient.model.instance import Instance
from discoclient.model.snapshot import Snapshot

from .figures import Row, Section, compare

__all__ = ["run"]

_SIZES = (3, 100, 10_000)
_SEED = 20
_RETRY = "peak_ewma, a retry"
_AIM_PICK = 3.0
_AIM_FLAT = 1.5
_NOW = 1000.0


def run(*, quick: bool) -> Iterator[Section]:
    rounds, picks = (5, 2_000) if quick else (9, 50_000)
    fleets = {size: _endpoints(size) for size in _SIZES}
    arms = {("random.choice", size): _choice(fleet) for size, fleet in fleets.items()}
    arms |= {(name, size): _picker(name, fleet) for name in BALANCERS for size, fleet in fleets.items()}
    arms |= {(_RETRY, size): _picker("peak_ewma", fleet, tried=1) for size, fleet in fleets.items()}
    taken: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    gc.collect()
    gc.freeze()  # the collector should not look through 10,000 endpoints while somebody is timed
    try:
        for number in range(-1, rounds):  # the first one is only to get warm
            for arm, pick in arms.items():
                times = picks // 50 if arm[0] == _RETRY else picks
                seconds = _time(pick, times)
                if number >= 0:
                    taken[arm].append(seconds / times * 1e6)
    finally:
        gc.unfreeze()
    rows: list[Row] = []
    for name in ("random.choice", *BALANCERS, _RETRY):
        by_size = [_row(name, size, taken[name, size]) for size in _SIZES]
        rows += by_size
        if name != "random.choice":
            few, many = by_size[0], by_size[-1]
            flat = f"{name}, {_SIZES[-1]:,} endpoints to {_SIZES[0]}"
            rows.append(compare(flat, truediv, many, few, unit="x", aim=_AIM_FLAT))
    yield Section(
        "Pick",
        rows,
        [
            f"{rounds} rounds of {picks:,} picks, balancers and sizes in turn; endpoints with load and latency, none ejected.",
            (
                "A pick is `View.pick`, as the flow of a call does it; `random.choice` is from a list of the same endpoints. "
                "A retry must not go where the first attempt went."
            ),
        ],
    )


def _row(name: str, size: int, rounds: list[float]) -> Row:
    aim = _AIM_PICK if name == "peak_ewma" else None
    return Row(
        f"{name}, {size:,} endpoints",
        "reference" if name == "random.choice" else "ours",
        "us/pick",
        tuple(rounds),
        aim,
    )


def _time(pick: Callable[[], Any], picks: int) -> float:
    """Seconds of CPU: a pick waits for nothing."""
    began = process_time()
    for _ in repeat(None, picks):
        pick()
    return process_time() - began


def _choice(fleet: list[Endpoint]) -> Callable[[], object]:
    rng = Random(_SEED)
    return lambda: rng.choice(fleet)


def _picker(balancer: str, fleet: list[Endpoint], *, tried: int = 0) -> Callable[[], object]:
    endpoints = {endpoint.id: endpoint for endpoint in fleet}
    snapshot = Snapshot("bench", 1, {id: endpoint.instance for id, endpoint in endpoints.items()})
    view = build_view(snapshot, endpoints, Preferences(balancer=BALANCERS[balancer]()), Random(_SEED))
    already = frozenset(endpoint.id for endpoint in fleet[:tried])
    return lambda: view.pick(_NOW, already)


def _endpoints(size: int) -> list[Endpoint]:
    """In the state of a fleet at work: each with a latency of its own, and some with requests in flight."""
    rng = Random(_SEED)
    endpoints = []
    for number in range(size):
        instance = Instance(service="bench", id=f"{number:032x}", host="127.0.0.1", port=20_000 + number)
        endpoint = Endpoint(instance, now=_NOW - 60.0)
        for _ in range(3):
            now = _NOW - rng.random()
            ticket = endpoint.start(now)
            endpoint.learn_success(ticket, rng.uniform(0.001, 0.1), now, is_warm=True, window=30.0)
            ticket.close()
        for _ in range(rng.randrange(3)):
            endpoint.start(_NOW)
        endpoints.append(endpoint)
    return endpoints
