"""What the scale benchmark rests on: its churn, its streams, and how it counts bytes and growth."""

from __future__ import annotations

import socket
from itertools import islice

import pytest

from benchmarks.bare_etcd import prefix_of, record
from benchmarks.children import Child
from benchmarks.scale_churn import steps
from benchmarks.scale_meter import delays, growth
from benchmarks.scale_watch import names
from benchmarks.socket_bytes import transferred
from discoclient.dev import EtcdCluster
from discoclient.dev.grpc_proxy import read_metrics
from discoclient.model.instance import State
from discoclient.registry.codec import decode
from tests.support.eventually import eventually


def test_churn_brings_as_many_as_it_takes_and_whoever_leaves_has_drained() -> None:
    there = {
        key: decode(value, service="web", id=key.rpartition("/")[2])
        for key, value in (record("web", n) for n in range(5))
    }
    kinds = set()
    for key, value in islice(steps("web", 5), 400):
        id = key.rpartition("/")[2]
        if value is None:
            assert there.pop(key).state is State.DRAINING
            kinds.add("left")
            continue
        after = decode(value, service="web", id=id)
        kinds.add("came" if key not in there else "drains" if after.state is State.DRAINING else "weighs")
        there[key] = after
        assert 5 <= len(there) <= 6
    assert kinds == {"came", "weighs", "drains", "left"}
    assert len(there) == 5


@pytest.mark.parametrize(("power", "expected"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_growth_is_told_per_doubling(power: int, expected: float) -> None:
    sizes = (125, 250, 500, 1000)
    row = growth("x", [3.0 * size**power for size in sizes], sizes, aim=2.3)
    assert row.median == pytest.approx(expected)
    assert row.is_met is (expected <= 2.3)


def test_delays_are_of_the_changes_that_were_made_in_time_and_known() -> None:
    noted = [(10, 1.010, 0.0), (12, 1.030, 0.0)]
    made = [(9, 0.9, 0.95), (10, 1.0, 1.005), (11, 1.01, 1.02), (12, 1.02, 1.025), (13, 1.03, 1.04)]
    assert delays(noted, made, since=1.0) == pytest.approx([5.0, 10.0, 5.0])
    assert delays(noted, made, since=9.0) == pytest.approx([60.0, 5.0, 10.0, 5.0]), "rather than none"
    with pytest.raises(RuntimeError):
        delays([], made, since=1.0)


def test_one_service_has_its_own_name_and_many_have_numbers() -> None:
    assert names("web", 1) == ["web"]
    assert names("web", 3) == ["web-0", "web-1", "web-2"]


def test_what_goes_over_a_connection_is_counted_to_the_byte() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        theirs, _ = server.accept()
        with theirs:
            before = transferred()
            theirs.sendall(b"x" * 10_000)
            eventually(lambda: transferred().received - before.received == 10_000)
            eventually(lambda: transferred().sent - before.sent == 10_000)
            assert ours.recv(1) == b"x"


def test_a_simulated_caller_is_a_watch_at_etcd_and_is_sent_what_changes(etcd: EtcdCluster) -> None:
    (member,) = etcd.members
    watchers = "etcd_debugging_mvcc_watcher_total"
    before = read_metrics(member.client_port, watchers)[watchers]
    with Child("scale_streams", "simulated", 7, member.client_port) as streams:
        assert streams.wait_ready().hello == {"ready": 7}
        eventually(lambda: read_metrics(member.client_port, watchers)[watchers] == before + 7)
        for _ in range(3):  # more than HTTP/2's first window
            etcd.etcdctl("put", f"{prefix_of('simulated')}a", "x" * 100_000)
        told = streams.collect()
    assert told["bytes"] > 7 * 3 * 100_000
