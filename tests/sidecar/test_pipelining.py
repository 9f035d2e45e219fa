"""Several requests behind each other on one connection."""

from __future__ import annotations

import contextlib
import select

import pytest

from .corpus import BAD, Bad
from .stage import Stage
from .wire import get, post

BEHIND = [
    bad
    for bad in BAD
    if bad.name.startswith(("CL ", "TE ", "bare", "fold", "two Hosts", "no Host", "CONNECT"))
]


def test_requests_behind_each_other_are_answered_in_order(stage: Stage) -> None:
    for number in range(5):
        stage.origin.on(f"/order/{number}", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
    with stage.client() as client:
        client.send(b"".join(get(f"/experiment/order/{number}") for number in range(5)))
        assert [client.reply().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_post_between_two_gets_keeps_its_body(stage: Stage) -> None:
    with stage.client() as client:
        client.send(
            get("/experiment/p/1") + post("/experiment/p/2", b"GET /experiment/evil HTTP/1.1\r\n\r\n")
        )
        client.send(get("/experiment/p/3"))
        assert [client.reply().status for _ in range(3)] == [200, 200, 200]
    assert stage.origin.only("/p/2").body == b"GET /experiment/evil HTTP/1.1\r\n\r\n"
    assert not stage.origin.find("/evil")


def test_chunks_between_two_gets_end_where_they_say(stage: Stage) -> None:
    chunked = (
        b"POST /experiment/q/2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    with stage.client() as client:
        client.send(get("/experiment/q/1") + chunked + get("/experiment/q/3"))
        assert [client.reply().status for _ in range(3)] == [200, 200, 200]
    assert stage.origin.only("/q/2").body == b"abc"
    assert stage.origin.only("/q/3").method == "GET"


def test_bytes_behind_a_body_are_another_request_and_not_forwarded_with_it(stage: Stage) -> None:
    with stage.client() as client:
        client.send(post("/experiment/r/1", b"abcd") + b"G")
        assert client.reply().status == 200
        assert stage.origin.only("/r/1").raw.endswith(b"\r\n\r\nabcd")
        client.send(get("/experiment/r/2")[1:])
        assert client.reply().status == 200


@pytest.mark.parametrize("bad", BEHIND, ids=lambda bad: bad.name)
def test_a_bad_request_behind_a_good_one_is_refused_and_not_forwarded(stage: Stage, bad: Bad) -> None:
    """Either the good one is answered first, or neither is let through: never the bad one."""
    before = len(stage.origin.requests)
    with stage.client() as client:
        client.send(get("/experiment/good") + bad.raw)
        reply = client.reply()
        if reply.status == 200:
            reply = client.reply()
        assert reply.status in bad.statuses
        if reply.status != 421:
            assert reply.says_close
            assert client.is_closed()
    assert [request.target for request in stage.origin.requests[before:]] in ([], ["/good"])


def test_what_comes_behind_a_refused_request_is_never_read_as_a_request(stage: Stage) -> None:
    with stage.nothing_forwarded(), stage.client() as client:
        client.send(BAD[0].raw + get("/experiment/behind") * 3)
        assert client.reply().status == 400
        assert client.is_closed()


def test_what_comes_behind_a_request_that_says_close_is_not_forwarded(stage: Stage) -> None:
    with stage.client() as client:
        client.send(get("/experiment/last", "Connection: close") + get("/experiment/too-late"))
        reply = client.reply()
        assert reply.status in (200, 400), "answered, or refused with what came behind it"
        assert reply.says_close
        assert client.is_closed()
    assert not stage.origin.find("/too-late")


def test_a_connection_lives_on_after_errors_that_are_not_about_its_bytes(stage: Stage) -> None:
    with stage.client() as client:
        client.send(get("/nobody-has-this-name/x"))
        reply = client.reply()
        assert reply.status == 503
        if not reply.says_close:
            assert client.send(get("/experiment/x")).reply().status == 200


def test_a_connection_takes_many_requests(stage: Stage) -> None:
    with stage.client() as client:
        for number in range(300):
            assert client.send(get(f"/experiment/many?{number}")).reply().status == 200
    assert len([request for request in stage.origin.requests if request.target.startswith("/many")]) == 300


def test_instances_see_connections_that_are_kept(stage: Stage) -> None:
    before = stage.origin.accepted
    for _ in range(50):
        assert stage.ask(get("/experiment/kept")).status == 200
    assert stage.origin.accepted - before <= 5


def test_a_flood_of_requests_whose_answers_nobody_reads_is_held_back(stage: Stage) -> None:
    """Thousands of them fit into the buffers of sockets; hundreds of thousands must not fit into memory."""
    flood = get("/experiment/flood") * 5000
    before, sent, most = stage.sidecar.memory(), 0, 64 << 20
    with stage.client(receive_buffer=4096) as client:
        client.socket.setblocking(False)
        while sent < most and select.select([], [client.socket], [], 0.5)[1]:
            with contextlib.suppress(OSError):
                sent += client.socket.send(flood)
                continue
            break
        assert sent < most, "nobody held the client back"
        assert stage.sidecar.memory() - before < 16 << 20
    assert stage.ask(get("/experiment/x")).status == 200


def test_http_1_0_closes_unless_it_asks_for_more(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"GET /experiment/old HTTP/1.0\r\nHost: localhost\r\n\r\n")
        reply = client.reply()
        assert (reply.status, reply.body) == (200, b"ok")
        assert client.is_closed()
    with stage.client() as client:
        request = b"GET /experiment/old HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
        first = client.send(request).reply()
        if first.get("connection").lower() == "keep-alive":
            assert client.send(request).reply().status == 200
        else:
            assert client.is_closed()


def test_an_empty_line_before_a_request_is_forgiven_or_refused_but_never_forwarded(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"\r\n" + get("/experiment/crlf"))
        assert client.reply().status in (200, 400)
    assert all(request.raw.startswith(b"GET /crlf ") for request in stage.origin.find("/crlf"))
