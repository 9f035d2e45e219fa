"""The admin address: it can be looked at, and nothing else."""

from __future__ import annotations

import json

import pytest

from .corpus import BAD
from .stage import Sidecar, Stage, fixed
from .wire import Client, ask, get, post

PATHS = ["/", "/api/services", "/metrics", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
def test_it_can_be_looked_at(stage: Stage, path: str) -> None:
    reply = stage.sidecar.page(path)
    assert reply.status == 200
    assert reply.body
    assert "access-control-allow-origin" not in {name.lower() for name, _ in reply.headers}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
def test_it_cannot_be_told_anything(stage: Stage, path: str, method: str) -> None:
    reply = ask(stage.sidecar.admin, post(path, b"{}", method=method))
    assert reply.status in (405, 501)
    assert stage.sidecar.page("/healthz").status == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_head_is_like_a_get_without_a_body(stage: Stage, path: str) -> None:
    with Client(stage.sidecar.admin) as client:
        client.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.reply("HEAD").status in (200, 405)
        assert not client.has_data(timeout=0.05) or client.rest() == b""


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../etc/passwd", "/api/services/../../x", "//", "/%2e%2e/x", "/experiment/x", "/api"],
)
def test_there_is_nothing_else(stage: Stage, path: str) -> None:
    with stage.nothing_forwarded():
        assert stage.sidecar.page(path).status in (400, 404)


def test_a_service_named_admin_or_metrics_is_an_ordinary_one_by_path(stage: Stage) -> None:
    """The main address has no paths of its own that a service's name could be taken for."""
    assert stage.ask(get("/metrics/x")).status == 503
    assert stage.ask(get("/healthz/")).status == 503


def test_the_services_are_told_with_their_instances(stage: Stage) -> None:
    assert stage.ask(get("/experiment/x")).status == 200
    text = json.dumps(stage.sidecar.services())
    assert "experiment" in text
    assert str(stage.origin.port) in text


def test_it_says_nothing_of_the_environment_and_of_passwords() -> None:
    with Sidecar(fixed(experiment=[1]), env={"A_SECRET": "hunter2"}) as sidecar:
        for path in PATHS:
            assert b"hunter2" not in sidecar.page(path).body


@pytest.mark.parametrize("bad", [bad for bad in BAD if len(bad.raw) < 400][::6], ids=lambda bad: bad.name)
def test_it_survives_what_is_malformed(stage: Stage, bad: object) -> None:
    with Client(stage.sidecar.admin) as client:
        client.send(bad.raw).half_close()  # type: ignore[attr-defined]
        first = client.rest().partition(b"\r\n")[0]
        assert not first.startswith(b"HTTP/1.1 5") or first.startswith(b"HTTP/1.1 50"), first
    assert stage.sidecar.page("/healthz").status == 200


def test_the_page_loads_nothing_from_elsewhere(stage: Stage) -> None:
    page = stage.sidecar.page("/")
    assert b'src="http' not in page.body
    assert b'href="http' not in page.body
    assert b"//cdn" not in page.body


def test_the_page_updates_by_events(stage: Stage) -> None:
    text = stage.sidecar.page("/").body.decode()
    assert "EventSource" in text
    assert "experiment" in text or "/api/" in text


def test_the_metrics_count_requests(stage: Stage) -> None:
    for _ in range(3):
        stage.ask(get("/experiment/x"))
    lines = stage.sidecar.page("/metrics").body.decode().splitlines()
    assert any(
        "experiment" in line and not line.startswith("#") and not line.endswith(" 0.0") for line in lines
    )


def test_it_can_be_a_unix_socket_that_only_its_owner_opens(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        path = Path(folder) / "admin.sock"
        with Sidecar(fixed(experiment=[1]), "--admin", f"unix:{path}", wait=False) as sidecar:
            from tests.support.eventually import eventually

            def is_ready() -> bool:
                try:
                    return ask(str(path), get("/readyz")).status == 200
                except OSError:
                    assert sidecar.process.is_running, sidecar.process.errors
                    return False

            eventually(is_ready, timeout=15.0, what="the admin socket answers")
            assert path.stat().st_mode & 0o077 == 0, oct(path.stat().st_mode)
