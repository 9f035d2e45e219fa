"""A service on gunicorn registers when a worker answers, and stops its workers when nobody calls any more."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest

from discoclient import ConfigError
from discoclient.dev import EtcdCluster
from discoclient.gunicorn import registered
from tests.serving.stage import PROGRAMS, Stage, stage, tell
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess
from tests.support.tls import Authority

PRELOAD = pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])


@pytest.fixture
def scene(etcd: EtcdCluster, registry_url: str, processes: Processes, tmp_path: Path) -> Iterator[Stage]:
    with stage(etcd, registry_url, processes, tmp_path) as scene:
        yield scene


def serve(
    scene: Stage,
    *words: str,
    hook: str = "right",
    slow: str = "",
    env: dict[str, str] | None = None,
    **options: Any,
) -> PythonProcess:
    """Two workers with threads, and so with connections that are kept."""
    arguments = ["--workers=2", "--threads=4", "--graceful-timeout=20", *words]
    return scene.python(
        *("-m", "gunicorn", "-c", str(PROGRAMS / "gunicorn_conf.py"), *arguments),
        "tests.serving.programs.on_gunicorn:app",
        HOOK=hook,
        SLOW=slow,
        OPTIONS=json.dumps(options),
        **(env or {}),
    )


def address(process: PythonProcess) -> str:
    """The URL at which the master listens."""
    found = eventually(lambda: re.search(r"Listening at: (http://\S+)", process.errors), timeout=20)
    return found[1]


def ask(client: httpx.Client) -> int:
    """The pid of the worker that answers."""
    return int(client.get("/").text)


def both_workers(client: httpx.Client, instance: str | None = None) -> set[int]:
    """Their pids. Each says that it is *instance*."""
    pids = set()

    def are_known() -> bool:
        response = client.get("/")
        assert instance in (None, response.headers["x-disco-instance"])
        pids.add(int(response.text))
        return len(pids) == 2

    eventually(are_known, timeout=20)
    return pids


def hold(scene: Stage, process: PythonProcess, *others: str) -> tuple[Future[httpx.Response], int]:
    """A request that lasts, by a caller who knows the registry, and not to *others*; and the worker's pid."""
    options = {"disco": {"exclude": others}}
    held = scene.later(lambda: scene.client().get("/hold", extensions=options))
    return held, int(process.wait_for_line("holding", timeout=30).split()[1])


def test_it_registers_once_a_worker_answers(scene: Stage) -> None:
    process = serve(scene, "--bind=0.0.0.0:0", slow="yes", weight=50, env={"DISCO_HOST": "127.0.0.2"})
    process.wait_for_line("starting", timeout=30)
    port = httpx.URL(address(process)).port
    with socket.create_connection(("127.0.0.1", port)):  # the master listens long before
        assert scene.keys() == {}
    scene.open()
    record = scene.newcomer()
    assert scene.client().get("/").status_code == 200
    assert (record["host"], record["weight"], record["pid"]) == ("127.0.0.2", 50, process.pid)
    assert (record["scheme"], record["http_keepalive"]) == ("http", 7)


def test_when_ready_is_too_early(scene: Stage) -> None:
    serve(scene, hook="naive", slow="yes").wait_for_line("starting", timeout=30)
    scene.newcomer()
    with pytest.raises(httpx.ReadTimeout):
        scene.client(timeout=0.3).get("/")


def test_with_a_health_path_any_answer_is_not_enough(scene: Stage) -> None:
    process = serve(scene, health_path="/healthz")
    for _ in range(3):  # it goes on asking
        process.wait_for_line("not well yet", timeout=30)
    assert scene.keys() == {}
    scene.open()
    scene.newcomer()


def test_all_workers_are_the_one_instance(scene: Stage) -> None:
    serve(scene, "--preload")
    record = scene.newcomer()
    unaware = scene.unaware(record)
    both_workers(unaware, record["id"])
    wrong = unaware.get("/", headers={"X-Disco-Expect": "experiment/somebody-else"})
    assert wrong.status_code == 421


@PRELOAD
def test_it_answers_until_its_callers_have_left(scene: Stage, preload: bool) -> None:
    stays = scene.stand_by()
    process = serve(scene, *["--preload"] * preload)
    record = scene.newcomer(stays)
    unaware = scene.unaware(record)
    with scene.load() as load:
        eventually(lambda: load.instances[record["id"]] >= 5, timeout=20)
        held, _ = hold(scene, process, stays)
        tell(process, signal.SIGTERM)
        scene.until(record["id"], "draining")
        assert ask(unaware)
        scene.open()
        assert held.result().status_code == 200
        assert process.wait(timeout=30) == 0
        assert scene.keys().keys() == {stays}
        answered = load.successes
        eventually(lambda: load.successes > answered)
    load.assert_none_failed()
    assert "Traceback" not in process.errors


def test_on_exit_is_too_late(scene: Stage) -> None:
    stays = scene.stand_by()
    process = serve(scene, hook="naive")
    record = scene.newcomer(stays)
    with scene.load(timeout=0.5) as load:
        eventually(lambda: load.instances[record["id"]] >= 5, timeout=20)
        held, _ = hold(scene, process, stays)
        tell(process, signal.SIGTERM)
        eventually(lambda: load.failures, timeout=20, what="a call that nobody takes")
        assert scene.states()[record["id"]] == "ready"
        scene.open()
        held.result()


def kill_one_worker_while_it_drains(scene: Stage, hook: str, *, patience: float) -> None:
    """Returns once another one has taken its place."""
    process = serve(scene, hook=hook)
    record = scene.newcomer()
    unaware = scene.unaware(record)
    _, holder = hold(scene, process)
    tell(process, signal.SIGTERM)
    scene.until(record["id"], "draining")
    victim = eventually(lambda: (pid := ask(unaware)) != holder and pid, timeout=20)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: ask(unaware) not in (holder, victim), timeout=patience, what="a new worker answers")


def test_workers_are_looked_after_while_it_drains(scene: Stage) -> None:
    kill_one_worker_while_it_drains(scene, "right", patience=10)


def test_a_drain_in_the_masters_own_loop_looks_after_nobody(scene: Stage) -> None:
    with pytest.raises(AssertionError, match="a new worker answers"):
        kill_one_worker_while_it_drains(scene, "blocking", patience=1.5)


def test_a_second_signal_ends_the_wait(scene: Stage) -> None:
    process = serve(scene)
    record = scene.newcomer()
    held, _ = hold(scene, process)
    tell(process, signal.SIGTERM)
    scene.until(record["id"], "draining")
    tell(process, signal.SIGTERM)
    scene.until(record["id"], None)
    assert not held.done()
    scene.open()
    assert held.result().status_code == 200  # what is in flight is finished all the same
    assert process.wait(timeout=30) == 0


def test_it_ends_when_it_is_asked_to_retire(scene: Stage) -> None:
    process = serve(scene)
    record = scene.newcomer()
    scene.ask_to_retire(record["id"])
    assert process.wait(timeout=30) == 0
    assert "Asked to retire: a test" in process.errors
    assert scene.keys() == {}


def test_a_quick_shutdown_gives_the_lease_back(scene: Stage) -> None:
    process = serve(scene)
    scene.newcomer()
    tell(process, signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert scene.keys() == {}


def test_a_reload_keeps_the_registration_and_an_upgrade_in_place_is_refused(scene: Stage) -> None:
    process = serve(scene)
    record = scene.newcomer()
    unaware = scene.unaware(record)
    before = both_workers(unaware)
    tell(process, signal.SIGUSR2)
    eventually(lambda: "SIGUSR2 is refused" in process.errors, timeout=20)
    tell(process, signal.SIGHUP)
    eventually(lambda: ask(unaware) not in before, timeout=20)
    assert unaware.get("/").headers["x-disco-instance"] == record["id"]
    (key,) = scene.keys().values()
    assert json.loads(key.value) == record
    tell(process, signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert scene.keys() == {}


def test_it_ends_at_once_while_it_waits_for_a_registry(scene: Stage) -> None:
    process = serve(scene, registry="etcd://127.0.0.1:1", timeout=60)
    assert httpx.get(address(process), timeout=20).status_code == 200
    tell(process, signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_workers_that_speak_tls_are_asked_in_tls(scene: Stage, tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("experiment")
    serve(scene, f"--certfile={files.cert}", f"--keyfile={files.key}")
    assert scene.newcomer()["scheme"] == "https"


def test_under_disco_run_it_has_the_name_that_it_is_given(scene: Stage) -> None:
    given = {"DISCO_SERVICE": "experiment", "DISCO_INSTANCE": "chosen-by-disco-run"}
    process = serve(scene, env=given)
    answer = httpx.get(address(process), timeout=20)
    assert answer.headers["x-disco-instance"] == "chosen-by-disco-run"
    assert scene.keys() == {}
    assert "`disco run` registers experiment" in process.errors


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"health_path": "healthz"}, "begins with '/'"),
        ({"ttl": 1}, "ttl must be"),
        ({"registry": "static://experiment=127.0.0.1:80"}, "fixed"),
    ],
    ids=["health path", "ttl", "static"],
)
def test_what_can_not_be_registered_is_said_at_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        registered("experiment", **options)


def test_without_a_port_it_does_not_start(scene: Stage, tmp_path: Path) -> None:
    process = serve(scene, f"--bind=unix:{tmp_path}/socket")
    assert process.wait(timeout=30) != 0
    assert "bound to no TCP port" in process.errors
