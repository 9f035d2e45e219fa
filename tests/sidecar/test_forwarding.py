"""Which headers reach an instance, and which come back: what a client claims is not believed."""

from __future__ import annotations

import pytest

from discoclient.registry.static import fixed_instance

from .origin import reply
from .stage import Stage
from .wire import ask, get, post


def test_an_end_to_end_header_is_passed_on_as_it_came(stage: Stage) -> None:
    request = stage.seen(get("/experiment/x", "Accept: a/b", "x-CaMeL: y  z", "Cookie: a=b; c=d", "X-Empty:"))
    assert request.get("accept") == "a/b"
    assert request.get("x-camel") == "y  z"
    assert request.get("cookie") == "a=b; c=d"
    assert request.all("x-empty") == [""]


def test_repeated_headers_stay_in_their_order(stage: Stage) -> None:
    request = stage.seen(get("/experiment/x", "X-A: 1", "X-B: 2", "X-A: 3", "Accept: p", "Accept: q"))
    assert request.all("x-a") == ["1", "3"] or request.all("x-a") == ["1, 3"]
    assert ", ".join(request.all("accept")) == "p, q"


def test_latin_1_and_tabs_in_a_value_stay_as_they_are(stage: Stage) -> None:
    request = stage.seen(get("/experiment/x", "X-Odd: \xe4\t\xff"))
    assert b": \xe4\t\xff\r\n" in request.raw


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Proxy-Authorization",
        "Proxy-Authenticate",
    ],
)
def test_a_hop_by_hop_header_stays_here(stage: Stage, name: str) -> None:
    value = {"Upgrade": "h2c", "Connection": "X-Nothing"}.get(name, "something")
    request = stage.seen(get("/experiment/x", f"{name}: {value}"))
    assert value not in request.all(name)


@pytest.mark.parametrize("how", ["X-Secret", "close, x-secret", "X-SECRET , keep-alive", "\tX-Secret\t"])
def test_a_header_that_connection_names_stays_here(stage: Stage, how: str) -> None:
    request = stage.seen(get("/experiment/x", "X-Secret: 1", f"Connection: {how}", "X-Public: 2"))
    assert "x-secret" not in request.names
    assert request.get("x-public") == "2"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "X-Forwarded-For",
        "X-Real-IP",
        "X-Forwarded-Proto",
        "Forwarded",
        "Via",
        "Content-Length",
    ],
)
def test_connection_cannot_name_away_what_the_sidecar_itself_says(stage: Stage, name: str) -> None:
    """CVE-2025-48865 and its kin: the client's list is applied first, and then ours are added."""
    before = len(stage.origin.requests)
    answer = stage.ask(post("/experiment/x", b"abcd", f"Connection: close, {name}"))
    assert answer.status in (200, 400)
    for request in stage.origin.requests[before:]:
        assert name.lower() in request.names
        assert request.body == b"abcd"


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Real-IP", "Forwarded", "Via",
        "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Ssl",
    ],
)  # fmt: skip
def test_what_a_client_claims_about_its_way_here_is_not_believed(stage: Stage, name: str) -> None:
    lie = "for=6.6.6.6" if name == "Forwarded" else "6.6.6.6"
    request = stage.seen(get("/experiment/x", f"{name}: {lie}", f"{name.lower()}: {lie}"))
    assert "6.6.6.6" not in request.raw.decode("latin-1")
    assert len(request.all(name)) <= 1


def test_the_way_here_is_said_right(stage: Stage) -> None:
    request = stage.seen(get("/experiment/x", host="localhost:7500"))
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-real-ip") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "localhost:7500"
    assert request.get("x-forwarded-prefix") == "/experiment"
    assert "for=127.0.0.1" in request.get("forwarded").replace('"', "").lower()
    assert request.get("via").startswith("1.1 ")


def test_the_way_here_is_said_right_for_ipv6(stage: Stage) -> None:
    assert ask(("::1", stage.sidecar.service_port), get("/way6", host="[::1]")).status == 200
    request = stage.origin.only("/way6")
    assert request.get("x-forwarded-for") == "::1"
    assert '"[::1' in request.get("forwarded").lower()


def test_the_way_here_over_a_unix_socket_claims_no_address(stage: Stage) -> None:
    assert (
        ask(stage.sidecar.unix, get("/way-unix", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6")).status
        == 200
    )
    assert b"6.6.6.6" not in stage.origin.only("/way-unix").raw


@pytest.mark.parametrize(
    "name", ["X_Forwarded_For", "X-Forwarded_For", "Content_Length", "Transfer_Encoding", "_", "X_Real_IP"]
)
def test_a_name_with_an_underscore_is_dropped(stage: Stage, name: str) -> None:
    """WSGI and CGI would read it as the one with dashes (CVE-2025-64484)."""
    request = stage.seen(get("/experiment/x", f"{name}: 5"))
    assert name.lower() not in request.names
    assert not any("_" in name for name in request.names)


@pytest.mark.parametrize(
    "name", ["X-Disco-Expect", "X-Disco-Instance", "X-Disco-Secret", "x-disco-attempts", "X-DISCO-Foo"]
)
def test_what_a_client_says_in_our_name_is_dropped(stage: Stage, name: str) -> None:
    request = stage.seen(get("/experiment/x", f"{name}: forged"))
    assert b"forged" not in request.raw


def test_the_instance_is_told_whom_we_mean(stage: Stage) -> None:
    instance = fixed_instance("experiment", scheme="http", host="127.0.0.1", port=stage.origin.port)
    assert stage.seen(get("/experiment/x")).get("x-disco-expect") in ("", f"experiment/{instance.id}")


def test_a_deadline_is_passed_on_and_has_grown_no_longer(stage: Stage) -> None:
    request = stage.seen(get("/experiment/x", "X-Disco-Deadline: 3000"))
    assert 1000 < int(request.get("x-disco-deadline")) <= 3000


@pytest.mark.parametrize("value", ["soon", "-5", "1e3", "9" * 40, "0x10"])
def test_a_deadline_that_is_none_breaks_nothing(stage: Stage, value: str) -> None:
    answer = stage.ask(get("/experiment/x", f"X-Disco-Deadline: {value}"))
    assert answer.status in (200, 400)


def test_the_sidecar_rewrites_the_framing_itself(stage: Stage) -> None:
    chunked = (
        b"POST /experiment/rewritten HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"0004;ext=1\r\nabcd\r\n0\r\n\r\n"
    )
    assert stage.ask(chunked).status == 200
    request = stage.origin.only("/rewritten")
    assert request.body == b"abcd"
    assert b"ext=1" not in request.raw
    assert len(request.all("content-length")) + len(request.all("transfer-encoding")) == 1


def test_a_response_comes_back_with_who_gave_it(stage: Stage) -> None:
    instance = fixed_instance("experiment", scheme="http", host="127.0.0.1", port=stage.origin.port)
    answer = stage.ask(get("/experiment/x"))
    assert answer.get("x-disco-instance") == instance.id
    assert answer.get("x-disco-attempts") == "1"


def test_a_responses_own_headers_come_back_as_they_were(stage: Stage) -> None:
    stage.origin.on(
        "/own",
        reply(200, b"ok", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Odd: \xe4", "Server: it", 'ETag: W/"x"'),
    )
    answer = stage.ask(get("/experiment/own"))
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert (answer.get("x-odd"), answer.get("server"), answer.get("etag")) == ("\xe4", "it", 'W/"x"')


def test_a_responses_hop_by_hop_headers_stay_there(stage: Stage) -> None:
    fields = [
        "Connection: X-Inner, keep-alive",
        "X-Inner: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "Trailer: X",
    ]
    stage.origin.on("/hop", reply(200, b"ok", *fields))
    answer = stage.ask(get("/experiment/hop"))
    names = {name.lower() for name, _ in answer.headers}
    assert not names & {"x-inner", "proxy-authenticate", "trailer"}
    assert "timeout=5" not in answer.all("keep-alive")


def test_an_instance_cannot_speak_in_the_sidecars_name(stage: Stage) -> None:
    stage.origin.on("/forged", reply(200, b"ok", "X-Disco-Attempts: 99", "X-Disco-Error: no-instances"))
    answer = stage.ask(get("/experiment/forged"))
    assert answer.get("x-disco-attempts") == "1"
    assert not answer.all("x-disco-error")


def test_an_instances_close_does_not_close_the_client(stage: Stage) -> None:
    stage.origin.on("/closing", reply(200, b"ok", "Connection: close"))
    with stage.client() as client:
        answer = client.send(get("/experiment/closing")).reply()
        assert not answer.says_close
        assert client.send(get("/experiment/x")).reply().status == 200
