"""A busy scene for looking at the page: three services, most of it well, some of it not."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from .states import a_service, a_state, an_event, an_instance

__all__ = ["scene"]


def scene(t: int, *, now: int = 1_800_000_000) -> dict[str, Any]:
    """As it stands *t* seconds after *now*."""
    rng = Random(7)
    points = [_point(now + t - 119 + back, back + t, rng) for back in range(120)]
    quiet = [[at, round(7 + 2 * math.sin(at / 9), 2), 0.0, 0.0, 0.0018, 0.0049] for at, *_ in points]
    experiment = a_service(
        requests=182_340 + 84 * t,
        retries=431,
        in_flight=11,
        failed=3,
        reasons={"no_instances": 3},
        statuses={"1xx": 0, "2xx": 181_204, "3xx": 310, "4xx": 702, "5xx": 124},
        received=48_211_904,
        sent=1_904_203_771,
        latency={"p50": 0.0034, "p99": 0.0287},
        recent={"seconds": 60, "requests": 5040, "errors": 31, "failed": 0, "buckets": []},
        history=points,
        instances=[
            _instance(1, 24 * t, "1.4.2", "eu-1a", 4, 0.00381),
            _instance(2, 25 * t, "1.4.2", "eu-1b", 3, 0.00407),
            _instance(3, 23 * t, "1.5.0", "eu-1a", 3, 0.00352, weight=100.0, known_for=95.0 + t),
            _instance(4, 12 * t, "1.5.0", "eu-1b", 1, 0.00398, weight=48.0, known_for=14.0 + t),
            _instance(
                5, 0, "1.4.2", "eu-1c", 0, 1.2, failures=37, success_rate=0.41, ejected_for=max(0.0, 17.4 - t),
                reason="consecutive", failures_in_a_row=5,
            ),
            _instance(6, 0, "1.4.1", "eu-1a", 1, 0.0041, standing="draining", state="draining"),
        ],
    )  # fmt: skip
    ledger = a_service(
        "ledger", phase="suspect", age=34.0 + t, revision=4698, tunnels=9, in_flight=9, requests=91_204 + 7 * t, retries=2,
        latency={"p50": 0.0018, "p99": 0.0049}, history=quiet,
        recent={"seconds": 60, "requests": 420, "errors": 0, "failed": 0, "buckets": []},
        statuses={"1xx": 0, "2xx": 91_204, "3xx": 0, "4xx": 0, "5xx": 0}, reasons={},
        instances=[
            _instance(7, 4 * t, "12.1", "eu-1a", 5, 0.00172),
            _instance(8, 3 * t, "12.1", "eu-1b", 4, 0.00188, standing="vanished"),
        ],
    )  # fmt: skip
    search = a_service(
        "search", is_known=False, phase="empty", age=None, revision=0, balancer="", instances=[], requests=4, retries=0,
        in_flight=0, failed=4, reasons={"discovery_timeout": 4}, statuses={"1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 4},
        problem="nothing is known of service 'search' after 12 s; the registry did not answer: connection refused. Is its "
        "address right ('disco doctor' tells), and does it run?",
        latency={"p50": None, "p99": None}, history=[[point[0], 0.0, 0.0, 0.0, None, None] for point in points],
        recent={"seconds": 60, "requests": 0, "errors": 0, "failed": 0, "buckets": []},
    )  # fmt: skip
    events = [
        an_event("10.0.0.15:23107 (0000005f) ejected for 30.0 s (consecutive)", kind="ejected", at="2026-01-31T12:02:41.120Z"),
        an_event("not tried again (unavailable): too many retries of late", kind="budget", times=14,
                 at="2026-01-31T12:02:40.020Z"),
        an_event("suspect: the registry's watch broke; going on with what is known", kind="phase", service="ledger",
                 at="2026-01-31T12:02:21.000Z"),
        an_event("new 0000004f (6 known)", at="2026-01-31T12:02:01.500Z"),
        an_event("changed 0000006f (5 known)", at="2026-01-31T12:02:01.480Z"),
        an_event("the sidecar listens", kind="start", service=None, at="2026-01-31T10:00:00.000Z"),
    ]  # fmt: skip
    ways = [
        {"kind": "bind", "address": "127.0.0.1:7500", "service": None},
        {"kind": "bind", "address": "[::1]:7500", "service": None},
        {"kind": "listen", "address": "127.0.0.1:8081", "service": "experiment"},
        {"kind": "tcp", "address": "127.0.0.1:5433", "service": "ledger"},
        {"kind": "admin", "address": "127.0.0.1:7501", "service": None},
    ]
    return a_state(
        experiment, ledger, search, events=events, ways=ways, connections=38, connections_total=12_904,
        requests=273_548 + 91 * t, refused={"bad_request": 12, "cross_site": 1}, uptime=266_520.0 + t,
    )  # fmt: skip


def _point(at: int, phase: int, rng: Random) -> list[Any]:
    rate = 84 + 14 * math.sin(phase / 17) + rng.uniform(-7, 7)
    is_bad = 82 <= phase <= 94
    errors = rng.uniform(6, 16) if is_bad else 0.0
    p99 = 0.021 + 0.004 * math.sin(phase / 6) + rng.uniform(0, 0.004) + (0.12 if is_bad else 0.0)
    return [
        at,
        round(rate, 2),
        round(errors, 2),
        0.0,
        round(0.0032 + rng.uniform(0, 0.0006), 6),
        round(p99, 6),
    ]


def _instance(
    number: int, made: int, version: str, zone: str, in_flight: int, latency: float, **fields: Any
) -> dict[str, Any]:
    return an_instance(
        f"{number:07x}f-{number:04d}-boot",
        **{
            "address": f"10.0.0.{10 + number}:{20000 + 621 * number}",
            "version": version, "zone": zone, "hostname": f"web-{number}", "in_flight": in_flight, "latency": latency,
            "requests": 41_000 + 613 * number + made, "failures": number, "success_rate": 1.0 if number % 2 else 0.9987,
            "known_for": 266_000.0 - 4000 * number, **fields,
        },
    )  # fmt: skip
