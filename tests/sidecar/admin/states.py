"""States to look at, as the sidecar would tell them, and what may be varied about them."""

from __future__ import annotations

from typing import Any

__all__ = ["BOUNDS", "HOSTILE", "an_event", "an_instance", "a_service", "a_state"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\"'&{{7*7}}"
"""What a service might call its version."""


def an_instance(id: str = "i-00000001", **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "address": "10.0.0.1:8080",
        "standing": "ready",
        "state": "ready",
        "version": "1.4.2",
        "zone": "eu-1a",
        "hostname": "web-1",
        "slot": "0",
        "weight": 100.0,
        "in_flight": 2,
        "latency": 0.0042,
        "cost": 0.0126,
        "requests": 1200,
        "failures": 3,
        "success_rate": 0.998,
        "answers": 240,
        "failures_in_a_row": 0,
        "ejected_for": None,
        "reason": None,
        "known_for": 3725.0,
        **fields,
    }


def a_service(service: str = "experiment", **fields: Any) -> dict[str, Any]:
    return {
        "service": service,
        "is_known": True,
        "problem": None,
        "phase": "live",
        "age": 1.2,
        "revision": 4711,
        "is_suspect": False,
        "is_panic": False,
        "balancer": "PeakEwma",
        "requests": 2400,
        "retries": 12,
        "in_flight": 2,
        "tunnels": 0,
        "received": 1000,
        "sent": 500_000,
        "statuses": {"1xx": 0, "2xx": 2390, "3xx": 2, "4xx": 5, "5xx": 3},
        "failed": 1,
        "reasons": {"no_instances": 1},
        "latency": {"p50": 0.0031, "p99": 0.021},
        "recent": {
            "seconds": 60.0,
            "requests": 600,
            "errors": 0,
            "failed": 0,
            "buckets": [0, 300, 250, 40, 9, 1] + [0] * 9,
        },
        "histogram": {"bounds": list(BOUNDS), "counts": [0, 1200, 1000, 160, 36, 4] + [0] * 9, "sum": 9.6},
        "counts": {"requests": 2400, "retries": 12},
        "history": [[1_800_000_000 + second, 10.0, 0.0, 0.0, 0.003, 0.02] for second in range(60)],
        "instances": [an_instance()],
        **fields,
    }


def an_event(text: str = "new i-000000 (1 known)", **fields: Any) -> dict[str, Any]:
    return {
        "at": "2026-01-31T12:00:00.000Z",
        "service": "experiment",
        "kind": "change",
        "text": text,
        "times": 1,
        **fields,
    }


def a_state(
    *services: dict[str, Any], events: list[dict[str, Any]] | None = None, **sidecar: Any
) -> dict[str, Any]:
    return {
        "sidecar": {
            "version": "0.1.0",
            "pid": 4242,
            "started_at": "2026-01-31T10:00:00.000Z",
            "uptime": 7200.0,
            "workers": 1,
            "registry": "etcd://10.0.0.5:2379,10.0.0.6:2379",
            "ways": [
                {"kind": "bind", "address": "127.0.0.1:7500", "service": None},
                {"kind": "listen", "address": "127.0.0.1:8081", "service": "experiment"},
                {"kind": "admin", "address": "127.0.0.1:7501", "service": None},
            ],
            "connections": 7,
            "connections_total": 310,
            "requests": 2400,
            "refused": {"bad_request": 2},
            "is_draining": False,
            **sidecar,
        },
        "services": list(services) or [a_service()],
        "events": [an_event()] if events is None else events,
    }
