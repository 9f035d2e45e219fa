"""Bodies of requests: every framing, `Expect`, trailers, early answers, and big streams that stay out of memory."""

from __future__ import annotations

import select
import threading

import pytest

from .origin import Exchange, reply
from .stage import Stage
from .wire import get, post

MEGABYTE = 1 << 20


def chunked(target: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return (
        head
        + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 65_537, 300_000])
def test_a_body_of_known_length_arrives_whole(stage: Stage, size: int) -> None:
    body = bytes(number * 7 % 256 for number in range(size))
    assert stage.ask(post(f"/experiment/length/{size}", body)).status == 200
    request = stage.origin.only(f"/length/{size}")
    assert request.body == body
    assert request.get("content-length") == str(size)


@pytest.mark.parametrize("size", [1, 1000, 65_536, 300_000])
def test_a_body_in_chunks_arrives_whole(stage: Stage, size: int) -> None:
    body = bytes(number * 7 % 256 for number in range(size))
    pieces = [body[at : at + 7919] for at in range(0, size, 7919)]
    assert stage.ask(chunked(f"/experiment/chunked/{size}", *pieces)).status == 200
    assert stage.origin.only(f"/chunked/{size}").body == body


def test_a_request_without_a_body_gets_no_framing(stage: Stage) -> None:
    assert not stage.seen(get("/experiment/bare")).names & {"content-length", "transfer-encoding"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "GET"])
def test_any_method_may_have_a_body(stage: Stage, method: str) -> None:
    assert stage.seen(post("/experiment/any", b"abcd", method=method)).body == b"abcd"


def test_trailers_arrive_behind_the_body(stage: Stage) -> None:
    assert (
        stage.ask(chunked("/experiment/trailers", b"abcd", trailers=b"X-Sum: 1\r\nX-More: 2\r\n")).status
        == 200
    )
    request = stage.origin.only("/trailers")
    assert request.body == b"abcd"
    assert request.trailers in ((("X-Sum", "1"), ("X-More", "2")), ()), (
        "as they were, or dropped as RFC 9110, 6.5.1, allows"
    )


@pytest.mark.parametrize(
    "trailer",
    [
        "Content-Length: 4", "Transfer-Encoding: chunked", "Host: ledger", "Connection: close", "Trailer: X", "TE: trailers",
        "Content-Encoding: gzip", "Content-Type: a/b", "Content-Range: bytes 0-1/2", "Authorization: Basic eA==", "Cookie: a=b",
        "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Disco-Expect: a/b",
        "Expect: 100-continue",
        "X_Forwarded_For: 6.6.6.6", "Via: 1.1 x", "Upgrade: websocket",
    ],
)  # fmt: skip
def test_a_trailer_that_would_change_what_the_head_said_is_not_passed_on(stage: Stage, trailer: str) -> None:
    before = len(stage.origin.requests)
    answer = stage.ask(chunked("/experiment/forbidden", b"abcd", trailers=trailer.encode() + b"\r\n"))
    assert answer.status in (200, 400)
    name = trailer.partition(":")[0].lower()
    for request in stage.origin.requests[before:]:
        assert name not in {key.lower() for key, _ in request.trailers}


def test_expect_100_continue_waits_for_the_instances_word(stage: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        assert exchange.request.get("expect") == "100-continue"
        assert exchange.request.raw.endswith(b"\r\n\r\n")
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.read_body()
        exchange.send(reply(201))

    stage.origin.on("/expect", answer)
    with stage.client() as client:
        client.send(
            b"POST /experiment/expect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.reply().status == 100
        assert stage.origin.only("/expect").body == b""
        assert client.send(b"abcd").reply().status == 201
        assert stage.origin.only("/expect").body == b"abcd"
        assert client.send(get("/experiment/x")).reply().status == 200


def test_expect_100_continue_that_is_refused_sends_no_body_and_leaves_no_desync(stage: Stage) -> None:
    stage.origin.on("/refused", lambda exchange: exchange.send(reply(417)))
    head = b"POST /experiment/refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n"
    with stage.client() as client:
        answer = client.send(head).reply()
        assert answer.status == 417
        # The client may send the body or not: what comes next must not be taken for the other.
        if answer.says_close:
            assert client.is_closed()
    assert stage.ask(get("/experiment/x")).status == 200


def test_a_client_that_expects_100_and_hears_nothing_may_send_all_the_same(stage: Stage) -> None:
    with stage.client() as client:
        client.send(post("/experiment/impatient", b"abcd", "Expect: 100-continue"))
        assert client.final().status == 200
    assert stage.origin.only("/impatient").body == b"abcd"


def test_an_unknown_expectation_is_refused_or_passed_on(stage: Stage) -> None:
    assert stage.ask(post("/experiment/x", b"abcd", "Expect: the-unexpected")).status in (200, 417)


@pytest.mark.parametrize("says_close", [True, False])
def test_an_answer_that_comes_before_the_body_has_gone_through_is_passed_on(
    stage: Stage, says_close: bool
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(reply(413, b"too much", *(["Connection: close"] if says_close else [])))
        if says_close:
            exchange.close()
        else:
            exchange.wait_gone(5.0)

    stage.origin.on(f"/early/{says_close}", answer)
    with stage.client() as client:
        client.send(
            f"POST /experiment/early/{says_close} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n".encode()
        )
        client.send(b"x" * 1000)
        answered = client.reply()
        assert (answered.status, answered.body) == (413, b"too much")
    assert stage.ask(get("/experiment/x")).status == 200


def test_a_body_is_streamed_and_not_collected_first(stage: Stage) -> None:
    got_first = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.take_line()
        got_first.set()
        exchange.wait_gone(5.0)

    stage.origin.on("/streamed", answer)
    with stage.client() as client:
        client.send(
            b"POST /experiment/streamed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
        )
        assert got_first.wait(5.0)


def test_a_big_body_goes_through_without_being_kept(stage: Stage) -> None:
    """48 MB: with a body in memory the process would grow by as much."""
    size, counted = 48 * MEGABYTE, [0]

    def answer(exchange: Exchange) -> None:
        while counted[0] < size:
            counted[0] += len(exchange.take_some())
        exchange.send(reply())

    stage.origin.on("/big", answer)
    before = stage.sidecar.memory()
    with stage.client(timeout=30.0) as client:
        client.send(
            f"POST /experiment/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        block = b"x" * MEGABYTE
        for _ in range(48):
            client.send(block)
        assert client.reply().status == 200
    assert counted == [size]
    assert stage.sidecar.memory() - before < 16 * MEGABYTE


def test_an_instance_that_reads_slowly_holds_the_client_back(stage: Stage) -> None:
    """The client cannot send more than buffers hold while the instance reads nothing, and the process does not grow."""
    reached, go_on = threading.Event(), threading.Event()
    size = 64 * MEGABYTE

    def answer(exchange: Exchange) -> None:
        reached.set()
        go_on.wait(30.0)
        left = size
        while left > 0:
            left -= len(exchange.take_some())
        exchange.send(reply())

    stage.origin.on("/slow-reader", answer)
    before = stage.sidecar.memory()
    with stage.client(timeout=30.0) as client:
        client.send(
            f"PUT /experiment/slow-reader HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        client.send(b"x")
        assert reached.wait(5.0)
        client.socket.setblocking(False)
        sent = _send_until_blocked(client.socket, size - 1)
        assert sent < 40 * MEGABYTE, "nobody held the client back"
        assert stage.sidecar.memory() - before < 16 * MEGABYTE
        client.socket.settimeout(30.0)
        go_on.set()
        left = size - 1 - sent
        while left > 0:
            count = min(left, MEGABYTE)
            client.send(b"x" * count)
            left -= count
        assert client.reply().status == 200


def _send_until_blocked(socket: object, most: int) -> int:
    sent, block = 0, memoryview(b"x" * MEGABYTE)
    while sent < most and select.select([], [socket], [], 0.3)[1]:
        try:
            sent += socket.send(block[: most - sent])  # type: ignore[attr-defined]
        except BlockingIOError:
            continue
    return sent


def test_uploads_side_by_side_on_connections_that_have_to_be_opened_all_go_through(stage: Stage) -> None:
    """What comes while the connection to the instance is being opened is held back, and let go again."""
    size, count = 8 * MEGABYTE, 6

    def answer(exchange: Exchange) -> None:
        left = size
        while left > 0:
            left -= len(exchange.take_some())
        exchange.send(reply(200, b"ok", "Connection: close"))
        exchange.close()

    stage.origin.on("/side-by-side", answer)
    statuses: list[object] = []

    def upload() -> None:
        try:
            request = (
                f"PUT /experiment/side-by-side HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            )
            with stage.client(timeout=8.0) as client:
                client.send(request.encode() + b"x" * size)
                statuses.append(client.reply().status)
        except OSError as error:
            statuses.append(error)

    uploads = [threading.Thread(target=upload) for _ in range(count)]
    for each in uploads:
        each.start()
    for each in uploads:
        each.join()
    assert statuses == [200] * count


def test_a_length_that_is_not_kept_is_no_whole_request(stage: Stage) -> None:
    reached, given_up = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        reached.set()
        try:
            exchange.read_body()
        except EOFError:
            given_up.set()
            raise

    stage.origin.on("/short", answer)
    with stage.client() as client:
        client.send(
            b"POST /experiment/short HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\nabcd"
        )
        assert reached.wait(5.0)
        client.half_close()
        assert not client.rest().startswith(b"HTTP/1.1 2")
    assert given_up.wait(2.0)
    assert not stage.origin.only("/short").is_whole
