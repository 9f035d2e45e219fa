"""The services of examples/frameworks: each joins when it answers, and leaves under load without a request that fails."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient.dev import EtcdCluster
from tests.serving.stage import Stage, stage, tell
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.processes import Processes

FOLDER = Path(__file__).parents[2] / "examples" / "frameworks"
PATH = "/users/1"

PYTHON = sys.executable
UVICORN = f"-m uvicorn --app-dir {FOLDER} fastapi_service:app"
GUNICORN = f"-m gunicorn --pythonpath {FOLDER} --workers 1 --threads 4"
CONFIGURED = f"-m gunicorn --pythonpath {FOLDER} -c {FOLDER}/gunicorn.conf.py"
RUN = "-m discoclient.cli run experiment --host 127.0.0.1 --health-path /healthz --quiet 0.2"


@pytest.fixture
def scene(etcd: EtcdCluster, registry_url: str, processes: Processes, tmp_path: Path) -> Iterator[Stage]:
    with stage(etcd, registry_url, processes, tmp_path) as scene:
        yield scene


def join_and_leave(scene: Stage, *commands: str) -> None:
    """Each of *commands*, for Python, joins one that stays; all answer; then they are told to end. No request fails."""
    stays = scene.stand_by()
    processes = [scene.python(*command.split()) for command in commands]
    joined = scene.newcomers(len(commands), stays)
    for record in joined:
        assert re.fullmatch(rf"{PATH} answered by \d+\n", scene.unaware(record).get(PATH).text)
    with scene.load("GET", PATH) as load:
        eventually(lambda: all(load.instances[record["id"]] >= 3 for record in joined), timeout=20)
        for process in processes:
            tell(process, signal.SIGTERM)
        for process in processes:
            assert process.wait(timeout=30) in (0, -signal.SIGTERM), process.errors
            assert "Traceback" not in process.errors
        answered = load.instances[stays]
        eventually(lambda: load.instances[stays] > answered)
    load.assert_none_failed()
    assert scene.keys().keys() == {stays}


def test_services_that_register_themselves(scene: Stage) -> None:
    join_and_leave(
        scene,
        f"{FOLDER}/fastapi_service.py",
        f"{CONFIGURED} flask_service:app",
        f"{CONFIGURED} --preload django_service",
    )


def test_services_that_know_nothing(scene: Stage) -> None:
    join_and_leave(
        scene,
        f"{RUN} -- {PYTHON} {UVICORN} --host 127.0.0.1 --port {{port}}",
        f"{RUN} -- {PYTHON} {GUNICORN} --bind 127.0.0.1:{{port}} flask_service:app",
        f"{RUN} -- perl {FOLDER}/perl_service.pl",
    )


def test_services_that_are_handed_a_socket(scene: Stage) -> None:
    join_and_leave(
        scene,
        f"{RUN} -- {PYTHON} {UVICORN} --fd {{fd}}",
        f"{RUN} --socket -- {PYTHON} {GUNICORN} django_service",
        f"{RUN} --socket -- {PYTHON} {FOLDER}/fastapi_service.py",
    )


def test_services_that_would_register_themselves_leave_it_to_disco_run(scene: Stage) -> None:
    join_and_leave(
        scene,
        f"{RUN} -- {PYTHON} {FOLDER}/fastapi_service.py",
        f"{RUN} -- {PYTHON} {CONFIGURED} flask_service:app",
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node on this machine")
def test_a_service_in_node(scene: Stage) -> None:
    join_and_leave(scene, f"{RUN} --http-keepalive 30 -- node {FOLDER}/node_service.js")


def test_a_service_that_is_just_stopped_fails_requests(scene: Stage) -> None:
    """The negative control: registered, and ended without a drain."""
    stays, port = scene.stand_by(), free_port()
    process = scene.python(*f"-m uvicorn --app-dir {FOLDER} fastapi_service:app --port {port}".split())
    eventually(lambda: "running on" in process.errors, timeout=20)
    gone = scene.raw.add("experiment", port=port).id
    with scene.load("GET", PATH) as load:
        eventually(lambda: load.instances[gone] >= 5 and load.instances[stays], timeout=20)
        tell(process, signal.SIGTERM)
        eventually(lambda: load.failures, timeout=10)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*_service.*")), ids=lambda path: path.name)
def test_the_first_lines_say_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    head = text[: text.index("import") if path.suffix == ".py" else text.index("use strict")]
    assert "disco dev --nodes 1 --port 2379 " in head
    assert "disco run experiment --health-path /healthz " in head
    assert all(
        (FOLDER.parents[1] / name).is_file()
        for name in re.findall(r"examples/[\w/.]*\w", head)
        if "." in name
    )
    assert path.name in head or f" {path.stem}" in head


def test_every_one_is_in_the_readme() -> None:
    said = re.findall(r"\]\(frameworks/([\w.]+)\)", (FOLDER.parent / "README.md").read_text())
    assert set(said) == {path.name for path in FOLDER.iterdir() if path.is_file()}
