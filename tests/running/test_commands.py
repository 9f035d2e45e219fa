"""``disco drain``, ``disco weight``, ``disco ls`` and ``disco deploys`` beside a ``disco run``."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from discoclient.dev import EtcdCluster
from tests.cli.conftest import Disco
from tests.running.keys import Caller, Keys
from tests.running.stage import SLOW, Stage
from tests.support.eventually import eventually
from tests.support.ports import free_port

NOBODY = "0123456789abcdef0123456789abcdef"


def test_drain_asks_an_instance_to_retire_and_it_does(stage: Stage, keys: Keys, disco: Disco) -> None:
    runs = [stage.run("--slot", slot) for slot in "12"]
    for run in runs:
        run.wait_for("ready")
    first, last = runs
    lease = keys.instances("experiment")[first.id].lease
    result = disco("--registry", stage.url, "drain", "experiment", first.id)
    assert (result.code, result.err) == (0, "")
    assert first.wait() == 0
    assert not first.is_serving
    assert keys.states(first.id) == ["ready", "draining", "gone"]
    (asked,) = (event for event in keys.history() if "/control/" in event.key and event.value is not None)
    assert asked.lease == lease
    assert asked.value is not None
    assert asked.value["v"] == 1
    assert set(asked.value["retire"]) >= {"reason", "by"}
    assert all(isinstance(asked.value["retire"][name], str) for name in ("reason", "by"))

    refused = disco("--registry", stage.url, "drain", "experiment", last.id)
    assert (refused.code, refused.out) == (1, "")
    assert "last" in refused.err
    assert "--force" in refused.err
    assert refused.err.count("\n") == 1
    assert keys.control(last.id) is None
    assert last.state == "ready"

    forced = disco("--registry", stage.url, "drain", "experiment", last.id, "--force")
    assert (forced.code, forced.err) == (0, "")
    assert last.wait() == 0


def test_instances_that_are_not_ready_do_not_count_when_the_last_one_is_to_go(
    keys: Keys, registry_url: str, disco: Disco
) -> None:
    """One that drains already, one that is unready: whoever is left is the last."""
    last, leaving, unwell = (keys.add("experiment") for _ in range(3))
    keys.drain(leaving)
    record = keys.record(unwell.id)
    assert record is not None
    lease = keys.instances("experiment")[unwell.id].lease
    value = json.dumps(record | {"state": "unready"}).encode()
    keys.put(keys.keys.instance("experiment", unwell.id), value, lease=lease)
    result = disco("--registry", registry_url, "drain", "experiment", last.id)
    assert result.code == 1
    assert "--force" in result.err
    assert keys.control(last.id) is None


@pytest.mark.parametrize("words", [["drain", "experiment", NOBODY], ["weight", "experiment", NOBODY, "5"]])
def test_an_instance_that_does_not_exist_is_exit_code_1(
    keys: Keys, registry_url: str, disco: Disco, words: list[str]
) -> None:
    keys.add("experiment")
    keys.add("ledger")
    for service in ("experiment", "ledger", "nosuch"):
        result = disco("--registry", registry_url, words[0], service, *words[2:])
        assert (result.code, result.out) == (1, "")
        assert result.err.count("\n") == 1
    assert not any("/control/" in event.key for event in keys.history())


def test_an_instance_of_another_service_is_not_found(keys: Keys, registry_url: str, disco: Disco) -> None:
    other = keys.add("ledger")
    keys.add("experiment")
    assert disco("--registry", registry_url, "drain", "experiment", other.id, "--force").code == 1
    assert keys.control(other.id, "ledger") is None


def test_weight_changes_the_instance_s_share(stage: Stage, keys: Keys, disco: Disco) -> None:
    run = stage.ready()
    before = run.record
    lease = keys.instances("experiment")[run.id].lease
    result = disco("--registry", stage.url, "weight", "experiment", run.id, "5")
    assert (result.code, result.err) == (0, "")
    eventually(lambda: run.record["weight"] == 5, timeout=SLOW)
    assert run.record == before | {"weight": 5}
    control = keys.control(run.id)
    assert control is not None
    assert control.lease == keys.instances("experiment")[run.id].lease == lease
    assert json.loads(control.value) == {"v": 1, "weight": 5}
    assert disco("--registry", stage.url, "weight", "experiment", run.id, "0").code == 0
    eventually(lambda: run.record["weight"] == 0, timeout=SLOW)
    assert run.process.is_running

    # Asked to go as well, it has not forgotten its weight.
    assert disco("--registry", stage.url, "drain", "experiment", run.id, "--force").code == 0
    assert run.wait() == 0
    assert keys.states(run.id) == ["ready", "draining", "gone"]


@pytest.mark.parametrize("weight", ["-1", "10001", "much", "nan"])
def test_a_weight_out_of_range_is_wrong_usage(
    keys: Keys, registry_url: str, disco: Disco, weight: str
) -> None:
    instance = keys.add("experiment")
    result = disco("--registry", registry_url, "weight", "experiment", instance.id, "--", weight)
    assert result.code == 2
    assert keys.control(instance.id) is None


@pytest.mark.parametrize(
    "words",
    [["drain", "experiment", NOBODY], ["weight", "experiment", NOBODY, "5"], ["deploys", "experiment"]],
    ids=lambda words: words[0],
)
def test_a_registry_that_can_not_be_reached_is_exit_code_4(disco: Disco, words: list[str]) -> None:
    result = disco("--registry", f"etcd://127.0.0.1:{free_port()}", *words)
    assert (result.code, result.out) == (4, "")
    assert result.err.count("\n") == 1


def test_ls_shows_who_runs_and_who_drains(stage: Stage, keys: Keys, disco: Disco) -> None:
    run = stage.ready("--version", "2.4.1", "--drain-timeout", "60")
    result = disco("--registry", stage.url, "ls", "experiment", "--json")
    assert result.code == 0
    (line,) = map(json.loads, result.lines)
    age = line["age"]
    assert 0 <= age < 60
    assert {name: line[name] for name in run.record} == run.record

    Caller(keys)
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    (line,) = map(json.loads, disco("--registry", stage.url, "ls", "experiment", "--json").lines)
    assert line["state"] == "draining"
    text = disco("--registry", stage.url, "ls", "experiment").out
    assert "draining" in text
    assert "2.4.1" in text


def test_deploys_shows_what_was_there_also_after_it_is_gone(stage: Stage, keys: Keys, disco: Disco) -> None:
    host = ("--hostname", "web-3")
    v1 = stage.ready(*host, "--version", "1.0-first")
    v2 = stage.run(*host, "--version", "2.0-second", "--replace", "--bake", "0.2")
    assert v1.wait() == 0
    crashed = stage.ready("--version", "3.0-third", "--slot", "2")
    crashed.send_child(signal.SIGKILL)
    assert crashed.wait() == 137

    def shown() -> list[Any]:
        result = disco("--registry", stage.url, "deploys", "experiment", "--json")
        assert (result.code, result.err) == (0, "")
        found = [json.loads(line) for line in result.lines]
        assert all(isinstance(each, dict) for each in found)
        return found

    text = json.dumps(shown())
    for run, version in ((v1, "1.0-first"), (v2, "2.0-second"), (crashed, "3.0-third")):
        assert run.id in text
        assert version in text
    assert text.index("1.0-first") < text.index("2.0-second") < text.index("3.0-third"), "the oldest first"
    plain = disco("--registry", stage.url, "deploys", "experiment")
    assert (plain.code, plain.err) == (0, "")
    for version in ("1.0-first", "2.0-second", "3.0-third"):
        assert version in plain.out
    assert "web-3" in plain.out

    v2.send(signal.SIGTERM)
    assert v2.wait() == 0
    assert keys.records() == []
    text = json.dumps(shown())
    assert "1.0-first" in text
    assert "2.0-second" in text


def test_deploys_goes_back_as_far_as_etcd_s_history(etcd_node: EtcdCluster, disco: Disco) -> None:
    """What was compacted is not there any more, which is no error; what still stands is, however old it is."""
    url = etcd_node.registry_url
    keys = Keys(etcd_node, url)
    gone, stands = keys.add("experiment"), keys.add("experiment")
    keys.revoke(keys.instances("experiment")[gone.id].lease)
    etcd_node.compact()
    after = keys.add("experiment")
    result = disco("--registry", url, "deploys", "experiment", "--json")
    assert result.code == 0
    assert all(json.loads(line) for line in result.lines)
    assert stands.id in result.out
    assert after.id in result.out
    assert gone.id not in result.out
    assert "Traceback" not in result.err


def test_deploys_of_a_service_that_nobody_has_heard_of_is_exit_code_1(
    keys: Keys, registry_url: str, disco: Disco
) -> None:
    keys.add("experiment")
    keys.add("nosuch-2")
    result = disco("--registry", registry_url, "deploys", "nosuch")
    assert (result.code, result.out) == (1, "")
    assert "nosuch" in result.err
    assert result.err.count("\n") == 1
