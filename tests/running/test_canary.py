"""A version on trial: what its callers saw of it decides, and the others are not touched meanwhile."""

from __future__ import annotations

from discoclient import DiscoClient
from tests.running.deploying import HOST, V1, controls, load
from tests.running.keys import Keys
from tests.running.stage import SLOW, Stage
from tests.support.eventually import eventually
from tests.support.load import Load

TRIAL = (*HOST, "--version", "2", "--replace", "--bake", "0", "--weight", "50")


def test_a_version_that_its_callers_see_fail_is_given_up_and_changes_nothing(
    stage: Stage, keys: Keys, caller: DiscoClient
) -> None:
    """Its health checks are content all the while. What the same requests do to version 1 is not its fault."""
    v1 = stage.ready(*V1)
    v2 = stage.ready(*TRIAL, "--promote-after", "60s", "--abort-if", "error_rate > 0.5")
    assert v2.record["observed"] is True
    with Load(caller, rate=60, path="/?status=500"):
        assert v2.wait(timeout=SLOW) == 3
    assert "failed its trial" in v2.process.errors.splitlines()[-1]
    assert keys.states(v2.id) == ["ready", "draining", "gone"]
    assert controls(keys) == []
    assert v1.state == "ready"
    assert v1.is_serving


def test_a_version_that_serves_its_callers_well_gets_its_full_share_and_takes_over(
    stage: Stage, keys: Keys, caller: DiscoClient
) -> None:
    v1 = stage.ready(*V1)
    with load(caller, "GET", "POST") as requests:
        v2 = stage.ready(*TRIAL, "--promote-after", "1s")
        assert v2.record["weight"] == 50
        eventually(lambda: sum(each.instances[v2.id] for each in requests) >= 20, timeout=SLOW)
        assert v1.wait(timeout=SLOW) == 0
        eventually(lambda: v2.record["weight"] == 100, timeout=SLOW)
    assert "observed" not in v2.record
    assert v2.process.is_running


def test_too_few_requests_decide_nothing(stage: Stage, keys: Keys) -> None:
    v1 = stage.ready(*V1)
    v2 = stage.ready(*TRIAL, "--promote-after", "0.3")
    eventually(lambda: "not decided yet: its callers tell of 0 requests" in v2.process.errors, timeout=SLOW)
    assert v2.record["weight"] == 50
    assert (v1.state, v2.state) == ("ready", "ready")
    assert controls(keys) == []


def test_what_ends_a_trial_needs_a_trial(stage: Stage) -> None:
    run = stage.run("--abort-if", "error_rate > 0.1")
    assert run.wait() == 2
    assert "--promote-after" in run.process.errors
