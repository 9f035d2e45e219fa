"""Responses: every framing, 1xx, none where there is none, streams, and instances that break the rules."""

from __future__ import annotations

import threading

import pytest

from .origin import Exchange, reply
from .stage import Stage
from .wire import Client, get, post

MEGABYTE = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"


def test_a_body_in_chunks_comes_back_whole_with_its_trailers(stage: Stage) -> None:
    stage.origin.on(
        "/c", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    answer = stage.ask(get("/experiment/c"))
    assert answer.body == b"abcdef"
    assert answer.trailers in ((("X-Sum", "1"),), ())


def test_a_body_that_ends_with_the_connection_comes_back_whole(stage: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(OK + b"\r\n" + b"abcd" * 50_000)
        exchange.close()

    stage.origin.on("/until-close", answer)
    with stage.client() as client:
        got = client.send(get("/experiment/until-close")).reply()
        assert got.body == b"abcd" * 50_000
        if got.all("transfer-encoding"):
            assert client.send(get("/experiment/x")).reply().status == 200, "chunked, so the connection stays"


def test_an_http_1_0_client_gets_no_chunks(stage: Stage) -> None:
    stage.origin.on("/c10", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
    with stage.client() as client:
        client.send(b"GET /experiment/c10 HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (
            client.rest().partition(b"\r\n\r\n") if client.has_data(timeout=5.0) else (b"", b"", b"")
        )
        assert b"chunked" not in head.lower()
        assert body == b"abcd"


def test_an_http_1_0_instance_is_understood(stage: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nabcd")
        exchange.close()

    stage.origin.on("/i10", answer)
    answered = stage.ask(get("/experiment/i10"))
    assert (answered.version, answered.body) == ("HTTP/1.1", b"abcd")


@pytest.mark.parametrize("framing", ["Content-Length: 12345", "Transfer-Encoding: chunked"])
def test_the_answer_to_a_head_has_no_body_and_keeps_its_framing(stage: Stage, framing: str) -> None:
    stage.origin.on("/head", OK + framing.encode() + b"\r\n\r\n")
    with stage.client() as client:
        request = b"HEAD /experiment/head HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = client.send(request + get("/experiment/x")).reply("HEAD")
        assert answer.status == 200
        if framing.startswith("Content-Length"):
            assert answer.get("content-length") == "12345"
        assert client.reply().body == b"ok"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("fields", [b"", b"Content-Length: 10\r\n", b"ETag: x\r\n"])
def test_204_and_304_have_no_body(stage: Stage, status: int, fields: bytes) -> None:
    stage.origin.on("/none", b"HTTP/1.1 %d None\r\n%b\r\n" % (status, fields))
    with stage.client() as client:
        assert client.send(get("/experiment/none") + get("/experiment/x")).reply().status == status
        assert client.reply().body == b"ok"


def test_interim_answers_come_through_before_the_final_one(stage: Stage) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
    stage.origin.on("/hints", hints + b"HTTP/1.1 102 Processing\r\n\r\n" + reply(200, b"done"))
    with stage.client() as client:
        answers = [client.send(get("/experiment/hints")).reply()]
        while answers[-1].status < 200:
            answers.append(client.reply())
        assert (answers[-1].status, answers[-1].body) == (200, b"done")
        assert [answer.status for answer in answers[:-1]] in ([103, 102], [103], [])
        assert client.send(get("/experiment/x")).reply().status == 200


def test_an_http_1_0_client_gets_no_interim_answers(stage: Stage) -> None:
    stage.origin.on("/hints10", b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply(200, b"done"))
    with stage.client() as client:
        client.send(b"GET /experiment/hints10 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert client.reply().status == 200


def test_an_answer_is_streamed_and_not_collected_first(stage: Stage) -> None:
    go_on = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        assert go_on.wait(5.0)
        exchange.send(b"0\r\n\r\n")

    stage.origin.on("/drip", answer)
    with stage.client() as client:
        client.send(get("/experiment/drip")).head()
        assert client.until(b"abcd").endswith(b"abcd")
        go_on.set()
        assert client.until(b"0\r\n\r\n")


def _stream(size: int, sent: list[int], ended: threading.Event) -> object:
    def answer(exchange: Exchange) -> None:
        block = b"x" * MEGABYTE
        try:
            exchange.send(OK + f"Content-Length: {size}\r\n\r\n".encode())
            while sent[0] < size:
                exchange.send(block)
                sent[0] += len(block)
        finally:
            ended.set()

    return answer


def test_a_client_that_reads_slowly_holds_the_instance_back(stage: Stage) -> None:
    size, sent, ended = 64 * MEGABYTE, [0], threading.Event()
    stage.origin.on("/slow-client", _stream(size, sent, ended))  # type: ignore[arg-type]
    before = stage.sidecar.memory()
    with stage.client(timeout=30.0, receive_buffer=64 * 1024) as client:
        client.send(get("/experiment/slow-client")).head()
        client.exactly(MEGABYTE)
        assert not ended.wait(0.5), "the instance was not held back"
        assert sent[0] < 40 * MEGABYTE
        assert stage.sidecar.memory() - before < 16 * MEGABYTE
        left = size - MEGABYTE
        while left > 0:
            left -= len(client.exactly(min(left, MEGABYTE)))
        assert ended.wait(5.0)
    assert stage.sidecar.memory() - before < 16 * MEGABYTE


BROKEN = {
    "CL and TE": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "a length with a sign": OK + b"Content-Length: +4\r\n\r\nabcd",
    "a length that is no number": OK + b"Content-Length: four\r\n\r\nabcd",
    "an unknown coding": OK + b"Transfer-Encoding: cow\r\n\r\nabcd",
    "a fold": OK + b"X: y\r\n z\r\nContent-Length: 4\r\n\r\nabcd",
    "a NUL": OK + b"X: y\0z\r\nContent-Length: 4\r\n\r\nabcd",
    "a bare CR": OK + b"X: y\rz\r\nContent-Length: 4\r\n\r\nabcd",
    "a space before the colon": OK + b"X : y\r\nContent-Length: 4\r\n\r\nabcd",
    "a line without a colon": OK + b"nonsense\r\nContent-Length: 4\r\n\r\nabcd",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n",
    "noise": bytes(range(256)),
    "nothing but a line": b"HTTP/1.1 200 OK\r\n",
    "an endless head": OK + b"X: y\r\n" * 100_000,
    "an upgrade nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_becomes_a_502(stage: Stage, name: str) -> None:
    """Passed on, it would be the client that is split: so it is not passed on."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(BROKEN[name])
        exchange.close()

    stage.origin.on("/broken", answer)
    answered = stage.ask(post("/experiment/broken", b"abcd"))
    assert answered.status == 502
    assert answered.get("x-disco-error")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a length that is not kept", OK + b"Content-Length: 400\r\n\r\nabcd"),
        ("chunks that do not end", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"),
        ("a chunk size that is none", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nxyz\r\n"),
        (
            "a chunk that is longer than its size",
            OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcdefgh\r\n0\r\n\r\n",
        ),
    ],
)
def test_a_body_that_breaks_off_looks_broken_to_the_client_too(stage: Stage, name: str, raw: bytes) -> None:
    """It has begun, so there is no 502: it must not look like a whole one."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(raw)
        exchange.close()

    stage.origin.on("/breaks-off", answer)
    with stage.client() as client:
        client.send(post("/experiment/breaks-off", b"abcd"))
        try:
            answered = client.reply()
        except (ConnectionError, ValueError, AssertionError):
            return
        assert answered.status == 502, f"{name} came as a whole answer: {answered}"


def test_bytes_behind_an_answer_never_reach_the_next_client(stage: Stage) -> None:
    """An instance that says more than it announced: its answer is passed on or refused, its connection is not used again."""
    stage.origin.on("/more", reply(200, b"ok") + reply(200, b"poison"))
    for _ in range(5):
        with stage.client() as client:
            answer = client.send(get("/experiment/more")).reply()
            assert (answer.status, answer.body == b"ok") in ((200, True), (502, False))
            assert client.send(get("/experiment/x")).reply().body == b"ok"
            assert not client.has_data()


def test_an_instance_that_speaks_unasked_does_not_answer_the_next_request(stage: Stage) -> None:
    answered, spoke = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(reply(200, b"ok"))
        assert answered.wait(5.0)
        exchange.send(reply(200, b"unasked"))
        spoke.set()

    stage.origin.on("/unasked", answer)
    with stage.client() as client:
        assert client.send(get("/experiment/unasked")).reply().body == b"ok"
        answered.set()
        assert spoke.wait(5.0)
        for number in range(3):
            assert client.send(get(f"/experiment/after/{number}")).reply().body == b"ok"


def test_head_and_get_share_a_connection_without_mixing(stage: Stage) -> None:
    with Client(stage.sidecar.address) as client:
        for _ in range(20):
            answer = client.send(b"HEAD /experiment/x HTTP/1.1\r\nHost: localhost\r\n\r\n").reply("HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert client.send(get("/experiment/x")).reply().body == b"ok"
