"""Leaving: draining while it serves, proved by what callers say, bounded whatever they do not say."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from discoclient import DiscoClient, NoInstances, connect, register
from discoclient.dev import EtcdCluster
from tests.conftest import ELECTION, HEARTBEAT
from tests.running.keys import Caller, Keys
from tests.running.stage import HEALTH, SLOW, Deploy, Stage, command
from tests.support.eventually import eventually
from tests.support.processes import Processes

LONG = "60"
"""Seconds that no test here may wait for."""
MOMENT = 10.0
"""Seconds within which something has happened for its reason and not because `LONG` was over, on a busy machine too."""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as started:
        yield started


def by_term(run: Deploy, keys: Keys) -> None:
    run.send(signal.SIGTERM)


def by_ctrl_c(run: Deploy, keys: Keys) -> None:
    # to the whole foreground group, as a terminal does
    run.process.signal(signal.SIGINT)


def by_control_key(run: Deploy, keys: Keys) -> None:
    keys.ask(run.id, {"v": 1, "retire": {"reason": "a newer one", "by": "somebody"}})


def ends_in_time(run: Deploy, began: float) -> int:
    """The exit code. An `AssertionError` if it took longer than a moment."""
    return run.wait(timeout=began + MOMENT - time.monotonic())


@pytest.mark.parametrize("ask", [by_term, by_ctrl_c, by_control_key], ids=lambda ask: ask.__name__)
def test_it_drains_while_it_serves_until_every_caller_has_turned_away(
    stage: Stage, keys: Keys, ask: Callable[[Deploy, Keys], None]
) -> None:
    """Nothing that happens meanwhile takes the draining back."""
    run = stage.ready("--drain-timeout", LONG, *HEALTH, "--health-failures", "2")
    lease = keys.instances("experiment")[run.id].lease
    informed, busy = Caller(keys, applied=10**9), Caller(keys)
    ask(run, keys)
    run.wait_for("draining")
    found = keys.instance("experiment", run.id)
    assert found is not None
    assert found.lease == lease
    revision = found.mod_revision

    busy.tell(revision - 1)
    before = run.probes
    run.touch("sick")
    keys.ask(run.id, {"v": 1, "weight": 7})
    eventually(lambda: run.probes > before + 3 or not run.process.is_running, timeout=2.0 + MOMENT)
    run.untouch("sick")
    assert run.get().json() == {"pid": run.pid}
    # The newest, should the weight have been written: that is later than what the drain asks for, or just that.
    latest = keys.instances("experiment")[run.id].mod_revision
    busy.tell(latest, {run.id: 1, "somebody-else": 3})
    assert run.get().json() == {"pid": run.pid}
    assert run.process.is_running
    assert not run.has("TERM")
    assert not run.has("INT")

    busy.tell(latest, {"somebody-else": 3})
    began = time.monotonic()
    assert ends_in_time(run, began) == 0
    assert run.has("TERM"), "it was stopped in order, by us"
    assert not run.has("INT")
    assert not run.is_serving
    assert keys.states(run.id) == ["ready", "draining", "gone"]
    assert keys.time_to_live(lease) == -1
    assert keys.control(run.id) is None, "it went with the lease"
    assert informed.id in keys.clients()


def test_a_drain_without_callers_takes_the_quiet_time(stage: Stage, keys: Keys) -> None:
    short = stage.run("--slot", "1", "--quiet", "0.1", "--drain-timeout", LONG)
    long = stage.run("--slot", "2", "--quiet", "2.5", "--drain-timeout", LONG)
    took = {}
    for run in (short, long):
        run.wait_for("ready")
    for run in (short, long):
        began = time.monotonic()
        run.send(signal.SIGTERM)
        assert ends_in_time(run, began) == 0
        took[run] = time.monotonic() - began
    assert took[short] < 2.5 <= took[long]


def test_a_caller_that_never_says_a_word_is_waited_for_until_the_drain_s_time_is_over(
    stage: Stage, keys: Keys
) -> None:
    """And one that did is not: the control."""
    Caller(keys)
    run = stage.ready("--drain-timeout", "4")
    control = stage.ready("--drain-timeout", "4", "--slot", "2", service="ledger")
    Caller(keys, applied=10**9, service="ledger")
    began = time.monotonic()
    control.send(signal.SIGTERM)
    run.send(signal.SIGTERM)
    assert ends_in_time(control, began) == 0
    assert run.process.is_running
    assert ends_in_time(run, began) == 0
    assert time.monotonic() - began >= 4.0


def test_a_caller_that_joins_during_the_drain_is_waited_for_too_and_none_longer_than_its_lease(
    stage: Stage, keys: Keys
) -> None:
    first = Caller(keys)
    run = stage.ready("--drain-timeout", LONG)
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    late = Caller(keys)
    first.leave()
    with pytest.raises(AssertionError, match="not within"):
        eventually(lambda: not run.process.is_running, timeout=1.0)
    assert run.get().status_code == 200
    late.leave()
    assert ends_in_time(run, time.monotonic()) == 0


def test_a_presence_that_makes_no_sense_holds_nobody_up_and_hides_nobody(stage: Stage, keys: Keys) -> None:
    caller = Caller(keys)
    begins = b'{"v": 1, "id": "nonsense-%d", "pid": 1, "hostname": "h", "kind": "sdk", '
    values = [
        b"not json",
        b"[]",
        b"\xff",
        b'{"v": 2, "id": "nonsense-%d", "applied": 0, "busy": {}}',
        b'{"v": 1, "id": "somebody-else", "applied": 0, "busy": {}}',
        begins + b'"applied": "7", "busy": {}}',
        begins + b'"applied": -5, "busy": {}}',
        begins + b'"applied": 0, "busy": []}',
        begins + b'"applied": 0, "busy": {"a": "b"}}',
    ]
    for number, value in enumerate(values):
        key = f"{keys.prefix}clients/experiment/nonsense-{number}"
        keys.put(key, value % number if b"%d" in value else value, lease=caller.lease)
    run = stage.ready("--drain-timeout", LONG)
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    assert run.process.is_running
    caller.tell(10**9)
    assert ends_in_time(run, time.monotonic()) == 0
    assert "Traceback" not in run.process.errors


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_an_sdk_caller_has_under_way_ends_as_it_would(
    stage: Stage, keys: Keys, caller: DiscoClient, pool: ThreadPoolExecutor, method: str
) -> None:
    """The command here dies of SIGTERM at once: only the drain protects what it works on. Without the time, it does not."""
    run, control = (
        stage.run("--slot", slot, "--drain-timeout", seconds, service=service, program=["--on-term", "die"])
        for slot, seconds, service in (("0", LONG, "experiment"), ("0", "0.3", "ledger"))
    )
    for each in (run, control):
        each.wait_for("ready")
    with DiscoClient("ledger", registry=stage.url, timeout=30.0) as other:
        requests: list[tuple[Deploy, Future[httpx.Response]]] = [
            (run, pool.submit(caller.request, method, "/?until=now")),
            (
                control,
                pool.submit(other.request, method, "/?until=now", extensions={"disco": {"retries": 0}}),
            ),
        ]
        for each, _ in requests:
            eventually(lambda: (run.has("begun"), control.has("begun")) == (True, True), timeout=SLOW)
            each.send(signal.SIGTERM)
        for each, _ in requests:
            each.wait_for("draining" if each is run else "gone")
        with pytest.raises(httpx.TransportError):
            requests[1][1].result(SLOW)
    assert not run.has("TERM")
    (presence,) = (value for value, _ in keys.clients().values())
    eventually(lambda: next(iter(keys.clients().values()))[0]["busy"] == {run.id: 1}, timeout=SLOW)
    assert presence["kind"] == "sdk"
    run.touch("now")
    began = time.monotonic()
    assert requests[0][1].result(SLOW).status_code == 200
    assert ends_in_time(run, began) == 0, "dying of our SIGTERM is a clean end"


def test_an_sdk_caller_does_not_come_back_to_what_drains(
    stage: Stage, keys: Keys, caller: DiscoClient
) -> None:
    """And lets go of its idle connections to it."""
    holder = Caller(keys)
    run = stage.ready("--drain-timeout", LONG)
    assert caller.get("/").status_code == 200
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    revision = keys.instances("experiment")[run.id].mod_revision
    eventually(
        lambda: all(
            value["applied"] >= revision for id, (value, _) in keys.clients().items() if id != holder.id
        ),
        timeout=SLOW,
    )
    before = run.requests
    with pytest.raises(NoInstances):
        caller.get("/")
    with (
        DiscoClient("experiment", registry=stage.url) as late,
        pytest.raises(NoInstances),
    ):
        late.get("/")
    assert run.requests == before
    holder.leave()
    assert ends_in_time(run, time.monotonic()) == 0


def test_a_client_that_was_closed_and_one_who_only_looks_hold_nobody_up(stage: Stage, keys: Keys) -> None:
    run = stage.ready("--drain-timeout", LONG)
    with DiscoClient("experiment", registry=stage.url) as client:
        assert client.get("/").status_code == 200
    DiscoClient("experiment", registry=stage.url).get("/")  # used once, and dropped
    with connect(stage.url) as handle:
        assert [each.id for each in handle.instances("experiment")] == [run.id]
        began = time.monotonic()
        run.send(signal.SIGTERM)
        assert ends_in_time(run, began) == 0


def test_a_command_that_does_not_stop_is_killed_after_the_stop_timeout(stage: Stage, keys: Keys) -> None:
    run = stage.ready("--stop-timeout", "0.7", program=["--on-term", "ignore"])
    began = time.monotonic()
    run.send(signal.SIGTERM)
    assert ends_in_time(run, began) == 137
    assert time.monotonic() - began >= 0.7
    assert run.has("TERM")
    assert not run.is_serving
    assert run.state == "gone"


def test_a_second_sigterm_shortens_the_drain_and_a_third_ends_it(stage: Stage, keys: Keys) -> None:
    Caller(keys)
    run = stage.ready(
        "--drain-timeout", LONG, "--stop-timeout", LONG, "--quiet", LONG, program=["--on-term", "ignore"]
    )
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    assert run.get().status_code == 200
    assert not run.has("TERM")
    run.send(signal.SIGTERM)
    eventually(lambda: run.has("TERM"), timeout=MOMENT, what="the command is asked to stop")
    began = time.monotonic()
    run.send(signal.SIGTERM)
    assert ends_in_time(run, began) == 137
    assert not run.is_serving
    assert run.state == "gone"


def test_sigterm_before_it_is_ready_ends_it_and_registers_nothing(stage: Stage, keys: Keys) -> None:
    run = stage.run("--ready-timeout", LONG, "--drain-timeout", LONG, program=["--deaf"])
    assert run.facts["pid"]
    began = time.monotonic()
    run.send(signal.SIGTERM)
    assert ends_in_time(run, began) in (0, 143)
    assert not run.is_serving
    assert run.has("TERM")
    assert keys.history() == []


def test_a_command_that_dies_while_it_drains_is_gone_at_once(stage: Stage, keys: Keys) -> None:
    Caller(keys)
    run = stage.ready("--drain-timeout", LONG, "--quiet", LONG, "--ttl", "60")
    run.send(signal.SIGTERM)
    run.wait_for("draining")
    began = time.monotonic()
    run.send_child(signal.SIGKILL)
    assert ends_in_time(run, began) == 137
    assert run.state == "gone"


@pytest.mark.parametrize(
    "value",
    [b"not json", b"[]", b'{"v": 2, "retire": {}}', b'{"v": 1, "retire": null}', b'{"v": 1, "weight": "x"}'],
)
def test_a_control_key_that_makes_no_sense_changes_nothing(
    etcd: EtcdCluster, keys: Keys, registry_url: str, value: bytes
) -> None:
    with register("experiment", 9, host="127.0.0.1", quiet=0, registry=registry_url) as registration:
        id = registration.instance.id
        before = keys.record(id)
        keys.ask(id, value)
        keys.ask(id, {"v": 1, "weight": 7})  # which is heeded, so that what came before has been seen
        eventually(lambda: (keys.record(id) or {}).get("weight") == 7, timeout=SLOW)
        assert keys.record(id) == (before or {}) | {"weight": 7}
        assert registration.state == "registered"


def test_a_registration_in_the_service_itself_obeys_its_control_key(keys: Keys, registry_url: str) -> None:
    with register("experiment", 9, host="127.0.0.1", quiet=0.1, registry=registry_url) as registration:
        id = registration.instance.id
        keys.ask(id, {"v": 1, "weight": 50})
        eventually(lambda: (keys.record(id) or {})["weight"] == 50, timeout=SLOW)
        keys.ask(id, {"v": 1, "weight": 50, "retire": {"reason": "r", "by": "b"}})
        eventually(lambda: keys.states(id)[1:2] == ["draining"], timeout=SLOW)
    assert keys.states(id) == ["ready", "draining", "gone"]


def test_a_control_key_that_stood_there_before_it_was_watched_counts(stage: Stage, keys: Keys) -> None:
    """Put while etcd's watch of it is broken or not there yet: it is found all the same."""
    run = stage.ready()
    run.send(signal.SIGSTOP)
    keys.ask(run.id, {"v": 1, "retire": {"reason": "r", "by": "b"}})
    run.send(signal.SIGCONT)
    assert run.wait() == 0


def test_a_drain_ends_also_without_a_registry(
    stage: Stage, etcd_node: EtcdCluster, registry_url: str
) -> None:
    """The command is stopped in order, and nobody waits for ever."""
    url = etcd_node.registry_url
    stage.keys = Keys(etcd_node, url)
    run = stage.ready("--drain-timeout", "1", registry=url)
    etcd_node.members[0].pause()
    began = time.monotonic()
    run.send(signal.SIGTERM)
    eventually(lambda: run.has("TERM"), timeout=15.0, what="the command is asked to stop")
    code = run.wait()
    assert time.monotonic() - began < 20.0
    assert not run.is_serving
    assert code == 0
    etcd_node.members[0].resume()


def test_where_nobody_may_look_for_callers_the_quiet_time_is_the_drain(
    processes: Processes, tmp_path: Path
) -> None:
    """A user who may write what is registered, and neither see callers nor what is asked of an instance."""
    root, user = "root:of-all", "service:may-register"
    flags = ["--bcrypt-cost=4"]
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=flags) as cluster:
        for each in (root, user):
            name = each.partition(":")[0]
            cluster.etcdctl("user", "add", each)
            cluster.etcdctl("role", "add", name)
            cluster.etcdctl("user", "grant-role", name, name)
        permission = ("--prefix=true", "service", "readwrite", "/disco/v1/services/")
        cluster.etcdctl("role", "grant-permission", *permission)
        cluster.etcdctl("auth", "enable")
        run = processes.python(
            "-m", "discoclient.cli", "run", "experiment", "--quiet", "1", "--drain-timeout", LONG,
            "--", *command(tmp_path), env={"DISCO_REGISTRY": cluster.registry_url.replace("://", f"://{user}@")},
        )  # fmt: skip

        def states() -> str:
            return cluster.etcdctl("--user", root, "get", "--prefix", "/disco/v1/services/experiment/")

        eventually(lambda: '"ready"' in states(), timeout=SLOW)
        began = time.monotonic()
        os.kill(run.pid, signal.SIGTERM)
        assert run.wait(timeout=MOMENT) == 0
        assert time.monotonic() - began >= 1.0
        assert states() == ""
