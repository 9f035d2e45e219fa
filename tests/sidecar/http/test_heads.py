"""The heads that we write can be read back, whatever was in the request."""

from __future__ import annotations

import h11
import pytest

from disco_sidecar.http.answer import AnswerReader
from disco_sidecar.http.heads import answer_head, forwarding, greeting, request_head, signature
from disco_sidecar.http.reading import Limits, RequestReader


def test_for_whom_a_request_is_forwarded() -> None:
    lines = forwarding("127.0.0.1", b"app.example.com", b"/web", 1).split(b"\r\n")
    assert lines == [
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Real-IP: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"Forwarded: for=127.0.0.1;host=app.example.com;proto=http",
        b"Via: 1.1 disco-sidecar",
        b"X-Forwarded-Host: app.example.com",
        b"X-Forwarded-Prefix: /web",
        b"",
    ]


@pytest.mark.parametrize(
    ("client", "host", "forwarded"),
    [
        ("::1", b"localhost", b'for="[::1]";host=localhost;proto=http'),
        ("127.0.0.1", b"localhost:7500", b'for=127.0.0.1;host="localhost:7500";proto=http'),
        ("127.0.0.1", b"[::1]:7500", b'for=127.0.0.1;host="[::1]:7500";proto=http'),
        ("127.0.0.1", b"", b"for=127.0.0.1;proto=http"),
    ],
)
def test_what_is_no_token_is_quoted(client: str, host: bytes, forwarded: bytes) -> None:
    lines = forwarding(client, host, b"", 0)
    assert b"Forwarded: " + forwarded + b"\r\n" in lines
    assert b"Via: 1.0 " in lines
    assert b"Prefix" not in lines
    assert (b"X-Forwarded-Host" in lines) is bool(host)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /web/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nA: b\r\n\r\n",
        b"POST /web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST /web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
        b"GET /web/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /web/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        b"POST /web/ HTTP/1.0\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_a_request_that_we_write_is_one_that_we_would_read(data: bytes) -> None:
    reader = RequestReader(Limits())
    reader.feed(data)
    message = reader.messages[0]
    head = request_head(
        message, target=b"/", host=b"web", forwarded=forwarding("127.0.0.1", b"a", b"/web", message.minor),
        greeting=greeting(b"web/web-1"), attempt=2, deadline=100,
    )  # fmt: skip
    again = RequestReader(Limits())
    again.feed(head + (b"0\r\n\r\n" if message.fields.is_chunked else b""))
    read = again.messages[0]
    assert (read.method, read.target, read.minor, read.is_complete) == (message.method, b"/", 1, True)
    assert read.fields.length == message.fields.length
    assert read.fields.is_chunked == message.fields.is_chunked
    assert read.wants_tunnel == message.wants_tunnel
    assert (read.fields.attempt, read.fields.deadline) == (2, 100)
    assert (read.fields.expect is not None) == (message.fields.expect is not None and message.minor == 1)
    assert b"6.6.6.6" not in head
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    assert isinstance(connection.next_event(), h11.Request)


@pytest.mark.parametrize(("is_chunked", "is_closing", "is_old", "line"), [
    (True, False, False, b"Transfer-Encoding: chunked\r\n"),
    (False, True, False, b"Connection: close\r\n"),
    (False, True, True, b"Connection: close\r\n"),
    (False, False, True, b"Connection: keep-alive\r\n"),
])  # fmt: skip
def test_an_answer_that_we_write_is_framed_once(
    is_chunked: bool, is_closing: bool, is_old: bool, line: bytes
) -> None:
    reader = AnswerReader()
    reader.expect(is_head=False)
    reader.feed(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, A\r\nA: b\r\nVia: 1.1 x\r\n\r\n"
    )
    head = answer_head(
        reader,
        is_chunked=is_chunked,
        is_closing=is_closing,
        is_old=is_old,
        signature=signature(b"web-1", 1),
    )
    assert line in head
    assert head.count(b"Transfer-Encoding") == is_chunked
    assert head.count(b"Connection:") <= 1
    assert b"A: b" not in head
    assert head.endswith(b"X-Disco-Instance: web-1\r\nX-Disco-Attempts: 1\r\n\r\n")
