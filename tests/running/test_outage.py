"""A deploy whose registry is away when it begins, or in the middle of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from discoclient import DiscoClient
from discoclient.dev import EtcdCluster
from tests.running.deploying import HOST, V1, V2, controls, load
from tests.running.keys import Keys
from tests.running.stage import HEALTH, SLOW, Stage
from tests.support.eventually import eventually
from tests.support.ports import free_port


def nodes_stage(stage: Stage, cluster: EtcdCluster) -> Keys:
    """Have the stage play on a node that may be broken."""
    stage.url = cluster.registry_url
    stage.keys = Keys(cluster, stage.url)
    return stage.keys


def test_a_deploy_without_a_registry_is_exit_code_4_and_changes_nothing(
    stage: Stage, etcd_node: EtcdCluster
) -> None:
    keys = nodes_stage(stage, etcd_node)
    v1 = stage.ready(*V1, "--ttl", "60")
    port = v1.port
    nobody = stage.run(*V2, registry=f"etcd://127.0.0.1:{free_port()}", name="nobody", patience=2.0)
    etcd_node.members[0].pause()
    frozen = stage.run(*V2, name="frozen", patience=2.0)
    for run in (nobody, frozen):
        assert run.wait() == 4, repr(run)
        assert not run.was_started or not run.is_serving
        assert run.process.errors.count("\n") == 0, "one line"
    etcd_node.members[0].resume()
    etcd_node.wait_healthy()
    eventually(lambda: v1.state == "ready", timeout=SLOW)
    assert v1.port == port
    assert controls(keys) == []
    assert v1.get().json() == {"pid": v1.pid}


def freeze(cluster: EtcdCluster) -> Callable[[], None]:
    cluster.members[0].pause()
    return cluster.members[0].resume


def kill(cluster: EtcdCluster) -> Callable[[], None]:
    cluster.members[0].kill()
    return cluster.members[0].start


@pytest.mark.parametrize("harm", [freeze, kill], ids=lambda harm: harm.__name__)
def test_a_registry_that_is_away_in_the_middle_of_a_deploy_fails_no_request(
    stage: Stage, etcd_node: EtcdCluster, harm: Callable[[EtcdCluster], Callable[[], None]]
) -> None:
    """Longer than a lease, and while the new version bakes. It ends one way or the other."""
    keys = nodes_stage(stage, etcd_node)
    short = ("--ttl", "2", *HEALTH)
    v1 = stage.ready(*V1, *short)
    with (
        DiscoClient("experiment", registry=stage.url, timeout=30.0) as client,
        load(client, "GET", "POST", rate=15) as loads,
    ):
        eventually(lambda: all(each.instances[v1.id] >= 3 for each in loads), timeout=SLOW)
        v2 = stage.run(*HOST, "--version", "2", "--replace", "--bake", "1.5", *short)
        v2.wait_for("ready")
        repair = harm(etcd_node)
        away_at = time.monotonic()
        eventually(lambda: time.monotonic() - away_at > 2.7, timeout=SLOW)
        assert v1.is_serving
        assert v1.process.is_running
        repair()
        etcd_node.wait_healthy()

        def is_over() -> bool:
            return v1.process.is_running != v2.process.is_running

        try:
            eventually(is_over, timeout=SLOW, what="one generation is left")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{keys.records()}\n{v1!r}\n{v2!r}") from None
        left, gone = (v1, v2) if v1.process.is_running else (v2, v1)
        eventually(lambda: [record["id"] for record in keys.records()] == [left.id], timeout=SLOW)
        back_at = time.monotonic()
        eventually(lambda: all(len(each.since(back_at)) >= 5 for each in loads), timeout=SLOW)
    assert gone.wait() == (0 if gone is v1 else 3), repr(gone)
    assert not gone.is_serving
    assert left.is_serving


def test_a_registry_that_is_away_when_v1_is_asked_to_go_fails_no_request(
    stage: Stage, etcd_node: EtcdCluster
) -> None:
    """v1 hears of it late, or v2 asks late: v1 serves until it has drained."""
    keys = nodes_stage(stage, etcd_node)
    v1 = stage.ready(*V1, "--ttl", "30", program=["--on-term", "die"])
    with (
        DiscoClient("experiment", registry=stage.url, timeout=30.0) as client,
        load(client, "GET", "POST", rate=15),
    ):
        client.get("/")
        v2 = stage.run(*V2, "--ttl", "30")
        eventually(lambda: keys.control(v1.id) or v1.state != "ready", timeout=SLOW)
        etcd_node.members[0].pause()
        paused_at = time.monotonic()
        eventually(lambda: time.monotonic() - paused_at > 1.0)
        etcd_node.members[0].resume()
        assert v1.wait() == 0, repr(v1)
    assert v2.process.is_running
    assert [record["id"] for record in keys.records()] == [v2.id]
