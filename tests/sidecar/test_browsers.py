"""A web page in the user's browser is not a client: DNS rebinding and cross-site requests get nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stage import Stage
from .wire import ask, get, post


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7500", "localhost.evil.example", "disco.localhost.evil.example"]
)
def test_a_rebound_name_is_421_on_every_address(stage: Stage, host: str) -> None:
    with stage.nothing_forwarded():
        for address in (stage.sidecar.address, stage.sidecar.listening):
            reply = ask(address, get("/experiment/x", host=host))
            assert reply.status == 421
            assert reply.get("x-disco-error")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7500", "127.0.0.1", "127.0.0.1:9", "[::1]", "experiment.disco.localhost"]
)
def test_control_a_local_name_gets_through(stage: Stage, host: str) -> None:
    assert ask(stage.sidecar.listening, get("/x", host=host)).status == 200


@pytest.mark.parametrize(
    "field",
    [
        "Origin: http://evil.example",
        "Origin: https://evil.example:7500",
        "Origin: null",
        "Origin: file://",
        "Origin: http://localhost.evil.example",
        "Sec-Fetch-Site: cross-site",
        "sec-fetch-site: Cross-Site",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_a_request_of_another_sites_page_is_refused(stage: Stage, field: str, method: str) -> None:
    with stage.nothing_forwarded():
        for address in (stage.sidecar.address, stage.sidecar.listening):
            reply = ask(address, post("/experiment/x", b"", field, method=method))
            assert reply.status == 403
            assert not reply.all("access-control-allow-origin")


def test_a_websocket_of_another_sites_page_is_refused(stage: Stage) -> None:
    """The same-origin policy does not cover websockets: here only we can."""
    with stage.nothing_forwarded():
        reply = stage.ask(
            get("/experiment/x", "Upgrade: websocket", "Connection: Upgrade", "Origin: http://evil.example")
        )
        assert reply.status == 403


@pytest.mark.parametrize(
    "field", ["Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "Accept: text/html"]
)
def test_control_what_the_user_typed_gets_through(stage: Stage, field: str) -> None:
    assert stage.ask(get("/experiment/x", field)).status == 200


def test_control_a_page_of_the_same_origin_gets_through(stage: Stage) -> None:
    host = f"experiment.disco.localhost:{stage.sidecar.port}"
    assert (
        stage.ask(get("/x", f"Origin: http://{host}", "Sec-Fetch-Site: same-origin", host=host)).status == 200
    )


def test_two_origins_are_not_better_than_one(stage: Stage) -> None:
    with stage.nothing_forwarded():
        fields = ["Origin: http://localhost", "Origin: http://evil.example"]
        assert stage.ask(get("/experiment/x", *fields)).status in (400, 403)
        fields = ["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"]
        assert stage.ask(get("/experiment/x", *fields)).status in (400, 403)


@pytest.fixture(scope="module")
def allowing() -> Iterator[Stage]:
    with Stage("--allow-host", "legacy.internal", "--allow-host", "Old.Example") as stage:
        yield stage


@pytest.mark.parametrize(
    "host", ["legacy.internal", "legacy.internal:8081", "LEGACY.internal", "old.example", "localhost"]
)
def test_allow_host_adds_the_name_a_legacy_client_comes_with(allowing: Stage, host: str) -> None:
    assert ask(allowing.sidecar.listening, get("/allowed", host=host)).status == 200
    assert allowing.origin.find("/allowed")[-1].get("host") == host


@pytest.mark.parametrize(
    "host", ["x.legacy.internal", "legacy.internal.evil.example", "evil.example", "internal"]
)
def test_allow_host_adds_no_other_name(allowing: Stage, host: str) -> None:
    with allowing.nothing_forwarded():
        assert ask(allowing.sidecar.listening, get("/x", host=host)).status == 421


@pytest.mark.parametrize("path", ["/", "/api/services", "/metrics"])
def test_the_admin_address_is_closed_to_other_sites_too(stage: Stage, path: str) -> None:
    assert ask(stage.sidecar.admin, get(path, host="evil.example")).status in (403, 421)
    assert ask(stage.sidecar.admin, get(path, "Origin: http://evil.example")).status == 403
    assert ask(stage.sidecar.admin, get(path, "Sec-Fetch-Site: cross-site")).status == 403
    assert ask(stage.sidecar.admin, get(path)).status == 200
