"""A service on uvicorn registers when it listens, and stops listening when nobody calls any more."""

from __future__ import annotations

import inspect
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from discoclient import ConfigError
from discoclient.dev import EtcdCluster
from discoclient.serving.tenure import OPTIONS
from discoclient.uvicorn import Server
from tests.serving.programs.on_uvicorn import App
from tests.serving.stage import PROGRAMS, Stage, stage
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes, PythonProcess
from tests.support.tls import Authority


@pytest.fixture
def scene(etcd: EtcdCluster, registry_url: str, processes: Processes, tmp_path: Path) -> Iterator[Stage]:
    with stage(etcd, registry_url, processes, tmp_path) as scene:
        yield scene


def serve(
    scene: Stage, hook: str = "server", *, env: dict[str, str] | None = None, **options: Any
) -> PythonProcess:
    options = {"quiet": 0.2, **options}
    return scene.python(PROGRAMS / "on_uvicorn.py", hook, json.dumps(options), **(env or {}))


def address(process: PythonProcess) -> str:
    """The URL at which it listens."""
    found = eventually(lambda: re.search(r"running on (http://\S+)", process.errors), timeout=20)
    return found[1]


def test_it_registers_once_it_listens(scene: Stage) -> None:
    process = serve(scene, env={"SLOW": "1"}, host="0.0.0.0", registered_host="127.0.0.2", weight=50)
    process.wait_for_line("starting", timeout=30)
    assert scene.keys() == {}
    scene.open()
    record = scene.newcomer()
    assert scene.client().get("/").text == "ok"
    assert (record["host"], record["weight"], record["pid"]) == ("127.0.0.2", 50, process.pid)
    assert (record["scheme"], record["http_keepalive"]) == ("http", 5)


def test_the_lifespans_startup_is_too_early(scene: Stage) -> None:
    serve(scene, "lifespan", env={"SLOW": "1"}).wait_for_line("starting", timeout=30)
    scene.newcomer()
    with pytest.raises(httpx.ConnectError):
        scene.client().get("/")


def test_it_answers_until_its_callers_have_left(scene: Stage) -> None:
    stays = scene.stand_by()
    process = serve(scene)
    record = scene.newcomer(stays)
    unaware = scene.unaware(record)
    with scene.load() as load:
        eventually(lambda: load.instances[record["id"]] >= 5, timeout=20)
        held = scene.later(lambda: unaware.get("/hold"))
        process.wait_for_line("holding", timeout=30)
        process.signal(signal.SIGTERM)
        scene.until(record["id"], "draining")
        late = unaware.get("/")
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert late.headers["x-disco-instance"] == record["id"]
        scene.open()
        assert held.result().status_code == 200
        assert process.wait(timeout=30) == -signal.SIGTERM
        assert scene.keys().keys() == {stays}
        answered = load.successes
        eventually(lambda: load.successes > answered)
    load.assert_none_failed()
    assert "Traceback" not in process.errors


def test_the_lifespans_shutdown_is_too_late(scene: Stage) -> None:
    stays = scene.stand_by()
    process = serve(scene, "lifespan")
    record = scene.newcomer(stays)
    unaware = scene.unaware(record)
    with scene.load() as load:
        eventually(lambda: load.instances[record["id"]] >= 5, timeout=20)
        held = scene.later(lambda: unaware.get("/hold"))
        process.wait_for_line("holding", timeout=30)
        process.signal(signal.SIGTERM)
        eventually(lambda: load.failures, timeout=20, what="a call to a closed door")
        assert scene.states()[record["id"]] == "ready"
        scene.open()
        held.result()


def test_a_second_signal_ends_the_wait_and_a_third_one_everything(scene: Stage) -> None:
    process = serve(scene)
    record = scene.newcomer()
    unaware = scene.unaware(record)
    held = scene.later(lambda: unaware.get("/hold"))
    process.wait_for_line("holding", timeout=30)
    process.signal(signal.SIGINT)
    scene.until(record["id"], "draining")
    process.signal(signal.SIGINT)
    scene.until(record["id"], None)
    assert not held.done()  # what is in flight has its time, with and without a registration
    process.signal(signal.SIGINT)
    process.wait(timeout=30)
    assert held.exception() or held.result().status_code == 500


def test_it_ends_when_it_is_asked_to_retire(scene: Stage) -> None:
    process = serve(scene)
    record = scene.newcomer()
    scene.ask_to_retire(record["id"])
    assert process.wait(timeout=30) == 0
    assert "Asked to retire: a test" in process.errors
    assert scene.keys() == {}


def test_it_drains_also_when_the_limit_of_requests_ends_it(scene: Stage) -> None:
    process = serve(scene, limit_max_requests=1)
    scene.newcomer()
    assert scene.client().get("/").status_code == 200
    assert process.wait(timeout=30) == 0
    assert "Drained" in process.errors
    assert process.errors.count("Maximum request limit") == 1
    assert scene.keys() == {}


def test_it_serves_without_a_registry(scene: Stage) -> None:
    process = serve(scene, registry="etcd://127.0.0.1:1", timeout=0.1)
    assert httpx.get(address(process)).status_code == 200
    eventually(lambda: process.errors.count("Could not register") >= 2, timeout=20)


def test_it_ends_at_once_while_it_waits_for_a_registry(scene: Stage) -> None:
    process = serve(scene, registry="etcd://127.0.0.1:1", timeout=60)
    address(process)
    process.signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_what_speaks_tls_is_registered_as_such(scene: Stage, tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("experiment")
    serve(scene, ssl_certfile=str(files.cert), ssl_keyfile=str(files.key))
    record = scene.newcomer()
    assert (record["scheme"], record["host"]) == ("https", "127.0.0.1")


def test_under_disco_run_it_takes_the_port_and_the_name_that_it_is_given(scene: Stage) -> None:
    given = {"DISCO_SERVICE": "experiment", "DISCO_INSTANCE": "chosen-by-disco-run", "PORT": str(free_port())}
    process = serve(scene, env=given)
    url = address(process)
    assert url == f"http://127.0.0.1:{given['PORT']}"
    assert httpx.get(url).headers["x-disco-instance"] == "chosen-by-disco-run"
    wrong = {"X-Disco-Expect": "experiment/somebody-else"}
    assert httpx.get(url, headers=wrong).status_code == 421
    assert scene.keys() == {}
    process.signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("config", "options", "complaint"),
    [
        ({"workers": 2}, {}, "workers="),
        ({"uds": "/tmp/socket"}, {}, "Unix socket"),
        ({}, {"weight": -1}, "weight must be"),
        ({}, {"registry": "static://experiment=127.0.0.1:80"}, "fixed"),
    ],
    ids=["workers", "unix socket", "weight", "static"],
)
def test_what_can_not_be_registered_is_said_at_once(
    config: dict[str, Any], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Server(uvicorn.Config(App(), **config), "experiment", **options)


def test_an_option_that_nobody_knows_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="wait"):
        Server(uvicorn.Config(App()), "experiment", wait=5)


def test_no_option_of_uvicorns_is_taken_for_one_of_the_registration() -> None:
    assert set(inspect.signature(uvicorn.Config).parameters) & OPTIONS == {"host"}
