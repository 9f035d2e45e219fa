"""What is checked of every benchmark that ran quickly. Whether a figure is good is not judged here."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.clients_sides import is_installed
from benchmarks.sidecar_sides import find_sidecar, present
from benchmarks.trouble_proxies import find

__all__ = ["check_results"]

# The aims that are set. One that is lost on the way is one that nobody looks at any more.
AIMS = {
    "convergence": {
        ("times the bare watch, p99 from the put's return", 3.0),
        ("DiscoClient, p99 from the put's return", 50.0),
    },
    "overhead": {("what discovery adds, CPU", 15.0)},
    "pick": {
        ("peak_ewma, 3 endpoints", 3.0),
        ("peak_ewma, 100 endpoints", 3.0),
        ("peak_ewma, 10,000 endpoints", 3.0),
        ("peak_ewma, 10,000 endpoints to 3", 1.5),
        ("peak_ewma, a retry, 10,000 endpoints to 3", 1.5),
        ("least_request, 10,000 endpoints to 3", 1.5),
        ("round_robin, 10,000 endpoints to 3", 1.5),
        ("random, 10,000 endpoints to 3", 1.5),
        ("weighted_round_robin, 10,000 endpoints to 3", 1.5),
        ("rendezvous, 10,000 endpoints to 3", 1.5),
    },
    "large": {
        ("one change, records decoded", 1.0),
        ("one change, endpoints made", 0.0),
        ("one change, instances that are other objects", 1.0),
        ("one change, endpoints that are other objects", 0.0),
    },
    "idle": {("DiscoClients, CPU", 0.5), ("DiscoClients, threads beside the main one", 1.0)},
    "sharing": {
        ("one for all: watches at etcd", 1.0),
        ("etcd sends, one for all in terms of a watch each", 0.15),
        ("one for all: put to view, p99", 50.0),
    },
    "trouble": {
        ("AsyncDiscoClient, peak_ewma: failed", 0.0),
        ("AsyncDiscoClient, peak_ewma: sent for each request made", 1.2),
        ("AsyncDiscoClient, peak_ewma: to the hung one until left alone", 5.0),
        ("AsyncDiscoClient, peak_ewma: to the failing one, worst second", 1.0),
    },
    "deploy": {
        ("disco run --replace: GETs that failed", 0.0),
        ("disco run --replace: POSTs that failed", 0.0),
        ("disco run --replace: POSTs executed twice", 0.0),
        ("disco run --replace: old versions that were killed", 0.0),
        ("disco run --replace: p99, during in terms of outside", 1.5),
        ("disco run --replace, one that exits at start: failed", 0.0),
        ("disco run --replace, one that exits at start: old version touched", 0.0),
        ("from registered to gone, 2 hosts in terms of 1 host", 1.5),
        ("the whole deploy, 2 hosts in terms of 1 host", 1.5),
        ("requests that failed, in all", 0.0),
    },
    "sidecar": {
        ("requests, sidecar, HTTP in terms of nginx", 0.6),
        ("CPU, sidecar, HTTP in terms of nginx", 1.7),
        ("requests, sidecar, TCP in terms of nginx", 0.9),
        ("sidecar, HTTP, a slow reader: grown", 2.0),
        ("sidecar, TCP, a slow reader: grown", 2.0),
        ("sidecar, HTTP, a slow service: grown", 2.0),
        ("sidecar, TCP, a slow service: grown", 2.0),
        ("sidecar, HTTP: failed", 0.0),
        ("sidecar, HTTP: p99, around a change in terms of other times", 1.5),
    },
    "scale": {
        ("growth per doubling: CPU under churn", 2.3),
        ("growth per doubling: CPU for each view", 2.3),
        ("growth per doubling: CPU until all is known", 2.3),
        ("growth per doubling: memory above that of one instance", 2.3),
        ("growth per doubling: bytes until all is known", 2.3),
        ("growth per doubling: CPU until all are watched", 2.3),
        ("growth per doubling: idle CPU", 2.3),
        ("growth per doubling: memory", 2.3),
        ("growth per doubling: bytes until all are watched", 2.3),
        ("through one grpc-proxy, 100 changes/s: watches at etcd", 10.0),
    },
}
CLIENTS = {
    ("Async, 32 in flight: requests/s, AsyncDiscoClient, 64 instances / AsyncDiscoClient", 0.9),
    ("Async, 1 in flight: requests/s, AsyncDiscoClient, 64 instances / AsyncDiscoClient", 0.9),
    ("Sync, 1 thread: requests/s, DiscoClient, 64 instances / DiscoClient", 0.9),
    ("Sync, 16 threads: requests/s, DiscoClient, 64 instances / DiscoClient", 0.9),
}
CLIENTS_THROUGH_NGINX = {
    ("Async, 32 in flight: requests/s, AsyncDiscoClient / httpx through nginx", 6.0),
    ("Async, 32 in flight: p99, AsyncDiscoClient / httpx through nginx", 1 / 6),
    ("Async, 1 in flight: p50, AsyncDiscoClient / httpx through nginx", 0.45),
    ("Sync, 1 thread: requests/s, DiscoClient / httpx through nginx", 1.8),
    ("Sync, 16 threads: requests/s, DiscoClient / httpx through nginx", 1.8),
    *(
        (f"{direction} of 10 MB, {shape}: throughput, {ours} / httpx, {kind}, direct", 1.0)
        for direction in ("download", "upload")
        for shape in ("streamed", "whole")
        for ours, kind in (("DiscoClient", "sync"), ("AsyncDiscoClient", "async"))
    ),
    *(
        (f"{ours}, {direction}, streamed: memory grown", 2.0)
        for ours in ("DiscoClient", "AsyncDiscoClient")
        for direction in ("download", "upload")
    ),
}
CLIENTS_AND_THE_INSTALLED = {
    "httpx2": ("Async, 32 in flight: requests/s, AsyncDiscoClient / httpx2, direct", 2.0),
    "aiohttp": ("Async, 32 in flight: requests/s, AsyncDiscoClient / aiohttp, direct", 0.4),
}
AIMS["clients"] = CLIENTS | {aim for module, aim in CLIENTS_AND_THE_INSTALLED.items() if is_installed(module)}
if find("nginx"):
    AIMS["clients"] |= CLIENTS_THROUGH_NGINX
    AIMS["trouble"].add(("p99, ours in terms of nginx, least_conn", 0.5))
if "envoy" in present():
    AIMS["sidecar"].add(("requests, sidecar, HTTP in terms of Envoy", 1.0))
if find_sidecar():
    AIMS["deploy"] |= {
        (name.replace("--replace:", "--replace, callers of the sidecar:"), aim)
        for name, aim in AIMS["deploy"]
        if name.startswith("disco run --replace:")
    }

ROUNDS = {"clients": 1, "trouble": 1, "deploy": 1, "sidecar": 1, "sharing": 2, "scale": 1}
"""At least, where five rounds of a quick run would not be quick; a full run has three, and `scale` several sizes instead."""


def check_results(name: str, results: dict[str, Any], output: str, errors: str) -> None:
    """*results* are what ``python -m benchmarks NAME --quick`` wrote as JSON, *output* and *errors* what it printed."""
    assert errors.splitlines()[:-1] == [], "only how long it took goes to stderr"
    assert results["quick"] is True
    assert results["environment"]["cores"] > 0
    assert results["environment"]["versions"].keys() >= {"httpx", "httpcore", "grpclib"}
    assert list(results["benchmarks"]) == [name]
    sections = results["benchmarks"][name]
    for section in sections:
        if section["rows"] or find("nginx"):  # what was left out has none
            check_section(section, ROUNDS.get(name, 5))
        assert section["title"] in output
        shown = [
            row["name"].rpartition(": ")[0] if section["by_side"] else row["name"] for row in section["rows"]
        ]
        assert all(each in output for each in shown)
    found = {
        (row["name"], row["aim"]) for section in sections for row in section["rows"] if row["aim"] is not None
    }
    assert found == AIMS[name]
    globals().get(f"check_{name}", lambda sections: None)(sections)


def check_section(section: dict[str, Any], rounds: int) -> None:
    rows = section["rows"]
    assert section["notes"]
    assert len({row["name"] for row in rows}) == len(rows)
    assert {"ours", "reference"} <= {row["role"] for row in rows}, "every figure has its reference beside it"
    for row in rows:
        assert len(row["rounds"]) >= rounds
        assert all(math.isfinite(value) for value in row["rounds"])
        assert row["low"] == min(row["rounds"]) <= row["median"] <= max(row["rounds"]) == row["high"]
        assert row["unit"]
        if row["aim"] is None:
            assert row["is_met"] is None
        elif row["sense"] == "<=":
            assert row["is_met"] is (row["median"] <= row["aim"])
        else:
            assert row["is_met"] is (row["median"] >= row["aim"])


def rows_of(section: dict[str, Any]) -> dict[str, list[float]]:
    return {row["name"]: row["rounds"] for row in section["rows"]}


def check_convergence(sections: list[dict[str, Any]]) -> None:
    assert len(sections) == 2
    for section in sections:
        rows = rows_of(section)
        for side in ("bare etcd watch", "DiscoClient"):
            from_start, from_return = (
                rows[f"{side}, p99 from the put's {word}"] for word in ("start", "return")
            )
            assert min(rows[f"{side}, p50 from the put's start"]) > 0, "nothing is known before it is sent"
            assert all(late > early for late, early in zip(from_start, from_return, strict=True))


def check_clients(sections: list[dict[str, Any]]) -> None:
    """Nothing failed, and who goes through nginx has it work."""
    assert not [note for section in sections for note in section["notes"] if "failed: " in note]
    async_32 = rows_of(sections[0])
    assert min(async_32["AsyncDiscoClient, etcd: requests/s"]) > 0
    idle = async_32["httpx over nothing: servers' CPU"]
    assert set(idle) == {0.0}, "and nobody else's is counted as its own"
    assert min(async_32["httpx, direct: servers' CPU"]) > 0
    if find("nginx"):
        through, direct = (async_32[f"httpx{how}: servers' CPU"] for how in (" through nginx", ", direct"))
        assert min(through) > min(direct)


def check_overhead(sections: list[dict[str, Any]]) -> None:
    assert [section["title"].rpartition(", ")[2] for section in sections] == [
        "one thread",
        "1 in flight",
        "32 in flight",
    ]
    for section in sections:
        rows = rows_of(section)
        costs = [rows[name] for name in rows if "discovery adds" not in name]
        assert all(value > 0 for rounds in costs for value in rounds)
        ours, bare = rows["DiscoClient, CPU"], rows["the same wire without discovery, CPU"]
        assert rows["what discovery adds, CPU"] == pytest.approx(
            [mine - its for mine, its in zip(ours, bare, strict=True)]
        )


def check_large(sections: list[dict[str, Any]]) -> None:
    """Counted, so exact, also in a quick run on a busy machine."""
    rows = rows_of(sections[0])
    assert set(rows["one change, records decoded"]) == {1.0}
    assert set(rows["one change, endpoints made"]) == {0.0}
    assert set(rows["one change, instances that are other objects"]) == {1.0}
    assert set(rows["one change, endpoints that are other objects"]) == {0.0}


def check_deploy(sections: list[dict[str, Any]]) -> None:
    """What fails, who is killed and which old version is touched is counted: zero, also on a busy machine."""
    counted = [row for section in sections for row in section["rows"] if row["aim"] == 0]
    assert len(counted) == (11 if find_sidecar() else 7)
    assert all(row["is_met"] for row in counted), counted


def check_scale(sections: list[dict[str, Any]]) -> None:
    """Watches are counted, and so are bytes, also on a busy machine: twice the size is twice as many, or fewer."""
    for section in sections:
        for row in section["rows"]:
            if "watches at etcd" in row["name"] or "doubling: bytes" in row["name"]:
                assert row["is_met"] in (True, None), row
    rows = rows_of(sections[-1])
    direct, proxied = (
        rows[f"{way}, 100 changes/s: events out of etcd for each change"][0]
        for way in ("straight to the members", "through one grpc-proxy")
    )
    assert proxied < direct / 2


def check_idle(sections: list[dict[str, Any]]) -> None:
    """The number of threads is no matter of time either."""
    assert set(rows_of(sections[0])["DiscoClients, threads beside the main one"]) == {1.0}


def check_sharing(sections: list[dict[str, Any]]) -> None:
    """Watches are counted."""
    rows = rows_of(sections[0])
    assert set(rows["one for all: watches at etcd"]) == {1.0}
    assert set(rows["a watch each: watches at etcd"]) == {4.0}
