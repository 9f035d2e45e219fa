"""A new version takes over, or nothing has changed."""

from __future__ import annotations

import json
import signal
import time

from discoclient import AsyncDiscoClient, DiscoClient
from tests.running.deploying import HOST, LONG, V1, V2, control_of, controls, ends, load, position, put_v1
from tests.running.keys import Keys
from tests.running.stage import HEALTH, SLOW, Stage
from tests.support.eventually import eventually
from tests.support.load import AsyncLoad, Load


def test_a_new_version_takes_over_and_no_request_fails(stage: Stage, keys: Keys, caller: DiscoClient) -> None:
    """The old version dies of SIGTERM at once; sync and async, GET and POST, and slow ones that are under way.

    No quiet time either: what protects them is what the callers say.
    """
    v1 = stage.ready(*V1, "--quiet", "0", program=["--on-term", "die"])
    with (
        load(caller, "GET", "POST") as loads,
        Load(caller, rate=5, method="POST", path="/?seconds=0.3") as slow,
        AsyncLoad(
            lambda: AsyncDiscoClient("experiment", registry=stage.url), rate=15, method="POST"
        ) as other,
    ):
        eventually(lambda: all(each.instances[v1.id] >= 5 for each in loads), timeout=SLOW)
        v2 = stage.run(*V2, *HEALTH)
        assert v1.wait() == 0, repr(v1)
        gone_at = time.monotonic()
        eventually(
            lambda: all(len(each.since(gone_at)) >= 10 for each in loads), timeout=SLOW, what="more requests"
        )
    slow.assert_none_failed()
    other.assert_none_failed()
    assert not v1.is_serving
    assert v2.process.is_running
    assert v2.state == "ready"
    assert [record["version"] for record in keys.records()] == ["2"]
    assert all({sent.instance for sent in each.since(gone_at)} == {v2.id} for each in loads)

    events = keys.history()
    (asked,) = controls(keys)
    assert asked.key.endswith(v1.id)
    assert asked.value is not None
    assert asked.value["v"] == 1
    assert set(asked.value["retire"]) >= {"reason", "by"}
    assert asked.lease == next(
        event.lease for event in events if event.key == keys.keys.instance("experiment", v1.id)
    )
    in_order = [
        position(events, v2.id, "services", "ready"),
        position(events, v1.id, "control"),
        position(events, v1.id, "services", "draining"),
    ]
    assert in_order == sorted(in_order)
    assert keys.states(v1.id) == ["ready", "draining", "gone"]
    assert keys.states(v2.id) == ["ready"]
    # It reports whom it has replaced, by enough of the id to find it again.
    eventually(lambda: v1.id[:8] in v2.words, timeout=5.0, what=f"v1's id in {v2.words}")


def test_nobody_is_asked_to_go_before_the_new_one_was_well_for_the_bake(stage: Stage, keys: Keys) -> None:
    v1 = stage.ready(*V1)
    v2 = stage.run(*HOST, "--replace", "--bake", "2.5", *HEALTH)
    v2.wait_for("ready")
    registered_at = time.monotonic()
    control_of(keys, v1.id)
    assert time.monotonic() - registered_at >= 1.0  # a busy machine sees it late
    assert v1.wait() == 0


def test_only_older_ones_of_its_slot_and_host_are_asked_whatever_the_clocks_say(
    stage: Stage, keys: Keys
) -> None:
    old = put_v1(keys)
    ahead = put_v1(keys, registered_at="2199-01-01T00:00:00Z")
    others = [
        put_v1(keys, slot="1"),
        put_v1(keys, hostname="web-4"),
        put_v1(keys, service="ledger"),
        put_v1(keys, service="experiment-2"),
    ]
    v2 = stage.ready(*V2, "--slot", "0")
    for mine in (old, ahead):
        found = control_of(keys, mine.id)
        assert found.lease == keys.instances("experiment")[mine.id].lease
        value = json.loads(found.value)
        assert value["v"] == 1
        assert set(value["retire"]) >= {"reason", "by"}
        keys.revoke(found.lease)
    newer = put_v1(keys)
    eventually(lambda: len(keys.records()) == 4, timeout=SLOW)
    assert {event.key.rpartition("/")[2] for event in controls(keys)} == {old.id, ahead.id}
    for other in others:
        assert keys.control(other.id, other.service) is None
    assert keys.control(newer.id) is None
    assert v2.process.is_running
    assert v2.state == "ready"


def test_an_older_one_that_was_asked_and_comes_back_with_a_new_lease_is_not_forgotten(
    stage: Stage, keys: Keys
) -> None:
    """It stood still when it was asked, and what it was asked went with its lease: it is alive, and not replaced yet."""
    v1 = stage.ready(*V1, "--ttl", "15")
    v2 = stage.ready(*HOST, "--version", "2", "--replace", "--bake", "1.5", "--ttl", "15")
    v1.send(signal.SIGSTOP)
    control_of(keys, v1.id)
    keys.revoke(keys.instances("experiment")[v1.id].lease)
    assert v1.state == "gone"
    v1.send(signal.SIGCONT)
    assert v1.wait(timeout=15.0) == 0, v2.words
    assert [record["id"] for record in keys.records()] == [v2.id]


def test_without_replace_nobody_is_asked_to_go_and_with_it_not_of_another_slot(
    stage: Stage, keys: Keys
) -> None:
    put_v1(keys)
    runs = [stage.run(*HOST, "--bake", "0", *options) for options in ((), ("--replace", "--slot", "other"))]
    for run in runs:
        run.wait_for("ready")
    assert not ends(runs[0], within=0.7)
    assert controls(keys) == []
    for run in runs:
        assert run.process.is_running
        assert run.state == "ready"


def test_a_deploy_where_nobody_is_to_be_replaced_stays_up(stage: Stage, keys: Keys) -> None:
    run = stage.ready(*V2)
    assert not ends(run, within=1.0)
    assert controls(keys) == []
    run.send(signal.SIGTERM)
    assert run.wait() == 0


def test_a_new_version_that_is_no_good_changes_nothing(stage: Stage, keys: Keys, caller: DiscoClient) -> None:
    """It ends at the start, is never ready, dies while it bakes, or turns unhealthy: exit code 3, and v1 serves on."""
    v1 = stage.ready(*V1)
    bakes = (*HOST, *HEALTH, "--version", "2", "--replace", "--bake", LONG, "--drain-timeout", "1")
    with load(caller, "GET") as (requests,):
        exits = stage.run(*bakes, program=["--exit", "1"], name="exits")
        never = stage.run(*bakes, "--ready-timeout", "1", program=["--deaf"], name="never")
        dies = stage.run(*bakes, name="dies")
        sickens = stage.run(*bakes, "--health-failures", "2", name="sickens")
        for each in (dies, sickens):
            each.wait_for("ready")
            assert each.process.is_running
        dies.send_child(signal.SIGKILL)
        sickens.touch("sick")
        for each in (exits, never, dies, sickens):
            assert each.wait() == 3, repr(each)
            assert not each.is_serving
            assert each.state == "gone"
            assert each.process.errors
            assert "Traceback" not in each.process.errors
        gone_at = time.monotonic()
        eventually(lambda: len(requests.since(gone_at)) >= 10, timeout=SLOW)
    assert controls(keys) == []
    assert v1.process.is_running
    assert keys.states(v1.id) == ["ready"]
    assert {sent.instance for sent in requests.since(gone_at)} == {v1.id}


def test_a_deploy_that_is_called_off_changes_nothing(stage: Stage, keys: Keys) -> None:
    v1 = put_v1(keys)
    v2 = stage.ready(*HOST, "--replace", "--bake", LONG, *HEALTH)
    v2.send(signal.SIGINT)
    assert v2.wait() in (0, 3)
    assert not v2.is_serving
    assert v2.state == "gone"
    assert controls(keys) == []
    assert keys.state(v1.id) == "ready"


def test_two_deploys_at_once_in_one_slot_end_with_exactly_one_generation(
    stage: Stage, keys: Keys, caller: DiscoClient
) -> None:
    v1 = stage.ready(*V1)
    with load(caller, "GET", "POST", rate=15):
        twins = [stage.run(*V2, *HEALTH, name=name) for name in ("one", "other")]

        def one_is_left() -> bool:
            return [run.process.is_running for run in (v1, *twins)].count(True) == 1

        eventually(one_is_left, timeout=SLOW, what="one generation")
        (left,) = (run for run in (v1, *twins) if run.process.is_running)
        assert left is not v1
    assert left.state == "ready"
    assert [record["id"] for record in keys.records()] == [left.id]
    for run in (v1, *twins):
        if run is not left:
            assert run.wait() == 0, repr(run)
            assert not run.is_serving


def test_deploys_one_after_the_other_leave_one_generation(
    stage: Stage, keys: Keys, caller: DiscoClient
) -> None:
    """On a host that has no other name than its own. The next may begin while the one before still bakes."""
    runs = [stage.ready()]
    with load(caller, "GET", "POST", rate=15):
        runs += [stage.ready("--replace", "--bake", "0.3") for _ in range(3)]
        for run in runs[:-1]:
            assert run.wait() == 0, repr(run)
            assert not run.is_serving
    assert [record["id"] for record in keys.records()] == [runs[-1].id]


def test_a_v1_that_does_not_go_is_not_waited_for_beyond_all_bounds(stage: Stage, keys: Keys) -> None:
    """Nobody stands behind it who could go. v2 stays, and says so; and it leaves in order when it is asked to."""
    stuck = put_v1(keys)
    v2 = stage.ready(*V2, "--drain-timeout", "1", "--stop-timeout", "0.5", "--ttl", "2")
    control_of(keys, stuck.id)
    eventually(lambda: stuck.id[:8] in v2.words, timeout=SLOW, what=f"{stuck.id} in {v2.words}")
    assert v2.process.is_running
    v2.send(signal.SIGTERM)
    assert v2.wait() == 0
    assert not v2.is_serving
