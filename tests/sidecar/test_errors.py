"""Errors that people can act on: what went wrong, for which service, what was known, and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from .origin import Exchange
from .stage import Sidecar, Stage, fixed
from .wire import Client, Reply, ask, get, post


def assert_refusal(reply: Reply, *words: str) -> None:
    """It names its reason in a header and in a short body, and says how the body is to be read."""
    assert reply.get("x-disco-error"), reply
    kind = reply.get("content-type").split(";")[0]
    assert kind in ("application/json", "application/problem+json", "text/plain"), reply
    assert reply.body
    assert len(reply.body) < 2000
    text = reply.body.decode()
    if kind != "text/plain":
        json.loads(text)
    for word in words:
        assert word in text, text
    assert "Traceback" not in text


def test_a_service_nobody_has_is_a_503_that_names_it(stage: Stage) -> None:
    reply = stage.ask(get("/nobody-has-it/x"))
    assert reply.status == 503
    assert float(reply.get("retry-after")) > 0
    assert_refusal(reply, "nobody-has-it")


def test_instances_that_refuse_are_a_502_that_says_what_was_tried(stage: Stage) -> None:
    reply = stage.ask(get("/dead/x"))
    assert reply.status == 502
    assert_refusal(reply, "dead", str(stage.dead_port), "refused")
    assert int(reply.get("x-disco-attempts")) >= 1


def test_an_instance_that_breaks_off_is_a_502(stage: Stage) -> None:
    stage.origin.on("/breaks", Exchange.reset)
    reply = stage.ask(post("/experiment/breaks", b"abcd"))
    assert reply.status == 502
    assert_refusal(reply, "experiment")


def test_an_error_keeps_the_clients_connection_where_that_is_safe(stage: Stage) -> None:
    with stage.client() as client:
        for _ in range(3):
            reply = client.send(get("/dead/x")).reply()
            assert reply.status == 502
            assert not reply.says_close
        assert client.send(get("/experiment/x")).reply().status == 200


def test_an_error_after_a_body_leaves_no_desync(stage: Stage) -> None:
    """The body behind a refused head must not be read as the next request."""
    with stage.client() as client:
        client.send(post("/dead/x", get("/experiment/inside"), method="PUT"))
        reply = client.reply()
        assert reply.status == 502
        if not reply.says_close:
            assert client.send(get("/experiment/x")).reply().status == 200
    assert not stage.origin.find("/inside")


def test_an_error_to_a_head_has_no_body(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"HEAD /nobody/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.reply("HEAD").status == 503
        assert not client.has_data(timeout=0.1) or client.rest() == b""


def test_an_error_says_nothing_that_a_browser_would_run(stage: Stage) -> None:
    for target in ("/<script>alert(1)</script>/x", "/nobody/<script>", "/%3Cscript%3E/x"):
        reply = stage.ask(get(target))
        assert "html" not in reply.get("content-type")


def test_a_name_that_is_too_long_is_not_echoed_at_length(stage: Stage) -> None:
    assert len(stage.ask(get("/" + "a" * 5000 + "/x")).body) < 2000


def test_connect_is_refused_with_405(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"CONNECT experiment:80 HTTP/1.1\r\nHost: experiment:80\r\n\r\nSSH-2.0-x\r\n")
        reply = client.reply()
        assert reply.status == 405
        assert client.is_closed()


@pytest.mark.parametrize("method", ["TRACE", "TRACK"])
def test_trace_shows_nobody_what_the_sidecar_added(stage: Stage, method: str) -> None:
    assert stage.ask(f"{method} /experiment/x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).status in (
        200,
        400,
        405,
        501,
    )


@pytest.fixture(scope="module")
def impatient() -> Iterator[Stage]:
    """A sidecar that waits for half a second."""
    with Stage(settings={"read_timeout": 0.5}) as stage:
        yield stage


def test_an_instance_that_does_not_answer_in_time_is_a_504(impatient: Stage) -> None:
    held = impatient.hold("/slow")
    began = time.monotonic()
    reply = impatient.ask(post("/experiment/slow", b"abcd"))
    assert reply.status == 504
    assert time.monotonic() - began < 2.5
    assert_refusal(reply, "experiment")
    assert held.gone.wait(1.0), "the instance is told"


def test_an_instance_that_falls_silent_in_its_answer_breaks_it_off(impatient: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcd")
        exchange.wait_gone(10.0)

    impatient.origin.on("/silent", answer)
    with impatient.client() as client:
        client.send(get("/experiment/silent"))
        assert client.rest().endswith(b"abcd")


def test_a_deadline_of_the_client_is_honoured(impatient: Stage) -> None:
    impatient.hold("/late")
    began = time.monotonic()
    reply = impatient.ask(get("/experiment/late", "X-Disco-Deadline: 150"))
    assert reply.status == 504
    assert time.monotonic() - began < 0.45 + 1.0
    assert not [
        each for each in impatient.origin.find("/late") if int(each.get("x-disco-deadline") or "0") > 150
    ]


def test_a_deadline_that_is_over_reaches_nobody(impatient: Stage) -> None:
    with impatient.nothing_forwarded():
        assert impatient.ask(get("/experiment/x", "X-Disco-Deadline: 0")).status == 504


def test_a_long_silence_of_a_tunnel_is_none_of_the_read_timeouts_business(impatient: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        while data := exchange.take_some():
            exchange.send(data)

    impatient.origin.on("/quiet", answer)
    with impatient.client() as client:
        client.send(get("/experiment/quiet", "Upgrade: echo", "Connection: upgrade")).head()
        assert not client.has_data(timeout=1.2), "the tunnel was ended"
        assert client.send(b"ping").exactly(4) == b"ping"


def test_errors_are_counted_and_the_log_has_no_traceback() -> None:
    with Sidecar(fixed(experiment=[1])) as sidecar:
        for target in ("/experiment/x", "/nobody/x", "/", "//", "/\0"):
            ask(sidecar.address, get(target))
        with Client(sidecar.address) as client:
            client.send(bytes(range(256)) * 300).rest()
        assert b"disco" in sidecar.page("/metrics").body
    assert "Traceback" not in sidecar.process.errors
