"""The fields of a request: what is refused, what is understood, and what is passed on."""

from __future__ import annotations

from typing import Any

import pytest

from disco_sidecar.http.fields import MOST_FIELDS, pass_on, read_fields
from disco_sidecar.http.refusal import Refused

HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (b"A : b\r\n", "name is malformed"),
        (b" A: b\r\n", "folded"),
        (b"A: b\r\n c\r\n", "folded"),
        (b"A: b\r\n\tc\r\n", "folded"),
        (b"A\r\n", "name is malformed"),
        (b": b\r\n", "name is malformed"),
        (b"A(: b\r\n", "name is malformed"),
        (b"\xc3\xa4: b\r\n", "name is malformed"),
        (b"A: b\x00\r\n", "control character"),
        (b"A: b\x01\r\n", "control character"),
        (b"A: b\x7f\r\n", "control character"),
        (b"A: b\x0b\r\n", "control character"),
        (b"A: b\rc\r\n", "control character"),
        (b"A: b\nC: d\r\n", "control character"),
        (b"A: b\n\r\n", "control character"),
        (HOST + HOST, "more than one"),
        (b"Host: a\r\nhOST: a\r\n", "more than one"),
        (b"Host:\r\n", "not a host"),
        (b"Host: a b\r\n", "not a host"),
        (b"Host: a/b\r\n", "not a host"),
        (b"Host: a@b\r\n", "not a host"),
        (b"Host: a,b\r\n", "not a host"),
        (b'Host: a"b\r\n', "not a host"),
        (b"Host: a:\r\n", "not a host"),
        (b"Host: a:b\r\n", "not a host"),
        (b"Host: a:123456\r\n", "not a host"),
        (b"Host: [::1\r\n", "not a host"),
        (b"Host: [::1]x\r\n", "not a host"),
        (b"Content-Length:\r\n", "not a number"),
        (b"Content-Length: +4\r\n", "not a number"),
        (b"Content-Length: -4\r\n", "not a number"),
        (b"Content-Length: 4, 4\r\n", "not a number"),
        (b"Content-Length: 0x4\r\n", "not a number"),
        (b"Content-Length: 1_0\r\n", "not a number"),
        (b"Content-Length: 4 4\r\n", "not a number"),
        (b"Content-Length: \xb2\r\n", "not a number"),
        (b"Content-Length: 9999999999999999999\r\n", "not a number"),
        (b"Content-Length: 4\r\nContent-Length: 4\r\n", "more than one"),
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "both"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "both"),
        (b"Transfer-Encoding: xchunked\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding: chunked, chunked\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding: gzip, chunked\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding: identity\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding:\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding: chunked;q=1\r\n", "only Transfer-Encoding"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "more than one"),
        (b"Connection: host\r\n", "must not name"),
        (b"Connection: a, Content-Length\r\n", "must not name"),
        (b"Connection: a\r\nConnection: Transfer-Encoding\r\n", "must not name"),
        (b"Connection: a b\r\n", "Connection field is malformed"),
        (b"Connection: a;b\r\n", "Connection field is malformed"),
        (b"Upgrade: a\r\nUpgrade: b\r\n", "more than one"),
        (b"Expect: a\r\nExpect: b\r\n", "more than one"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(block: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        read_fields(block)
    assert caught.value.status == 400
    assert caught.value.is_final


def test_too_many_fields_are_refused() -> None:
    read_fields(b"A: b\r\n" * MOST_FIELDS)
    with pytest.raises(Refused) as caught:
        read_fields(b"A: b\r\n" * (MOST_FIELDS + 1))
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"", {"host": None, "length": None, "has_body": False, "passed": b""}),
        (b"host:localhost:80 \t\r\n", {"host": b"localhost:80"}),
        (b"Host: [::1]:80\r\n", {"host": b"[::1]:80"}),
        (b"Content-Length: 0\r\n", {"length": 0, "has_body": False}),
        (b"Content-Length: 0005\r\n", {"length": 5, "has_body": True}),
        (b"Transfer-Encoding: Chunked\r\n", {"is_chunked": True, "has_body": True, "length": None}),
        (b"Connection: Close\r\n", {"is_closing": True, "is_keeping": False}),
        (b"Connection: keep-alive\r\n", {"is_closing": False, "is_keeping": True}),
        (b"Connection: keep-alive, close\r\n", {"is_closing": True, "is_keeping": False}),
        (b"Connection: keep-alive\r\nConnection: close\r\n", {"is_closing": True}),
        (b"Connection: ,, close ,\r\n", {"is_closing": True}),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", {"is_switching": True, "upgrade": b"websocket"}),
        (b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", {"is_switching": True}),
        (b"Upgrade: websocket\r\n", {"is_switching": False}),
        (b"Connection: Upgrade\r\n", {"is_switching": False}),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", {"is_switching": False}),
        (b"Connection: Upgrade\r\nUpgrade: H2C, x\r\n", {"is_switching": False}),
        (b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", {"is_switching": False}),
        (b"Expect: 100-continue\r\n", {"expect": b"100-continue"}),
        (b"Origin: http://a\r\nSec-Fetch-Site: none\r\n", {"origin": b"http://a", "site": b"none"}),
        (
            b"X-Disco-Attempt: 2\r\nX-Disco-Deadline: 1500\r\n",
            {"attempt": 2, "deadline": 1500, "passed": b""},
        ),
        (b"X-Disco-Attempt: 0\r\nX-Disco-Deadline: 0\r\n", {"attempt": 1, "deadline": 0}),
        (b"X-Disco-Attempt: -2\r\nX-Disco-Deadline: soon\r\n", {"attempt": 1, "deadline": None}),
        (b"X-Disco-Deadline: 99999999999\r\n", {"deadline": None}),
    ],
)
def test_what_is_understood(block: bytes, fields: dict[str, Any]) -> None:
    read = read_fields(block)
    assert {name: getattr(read, name) for name in fields} == fields


@pytest.mark.parametrize("again", [1, 2])
def test_what_is_passed_on_stands_as_it_came(again: int) -> None:
    kept = (
        b"Accept: */*\r\nCOOKIE:a=b\r\nX-Empty:\r\nX-Long:  a \t b  \r\nX-High: \xff\xfe\r\n"
        b"A: 1\r\nA: 2\r\nAuthorization: x\r\n"
    )
    for _ in range(again):
        assert read_fields(HOST + kept).passed == kept


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization",
        "Proxy-Authenticate", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Expect", "Forwarded", "Via", "X-Real-IP",
        "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Anything",
        "X-Disco-Instance", "X-Disco-Expect", "X-Disco-Attempt", "X-Disco-Deadline", "X-Disco-Anything",
        "X_Forwarded_For", "X_Real_IP", "Content_Length", "A_b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("case", [str.lower, str.upper, str])
def test_what_is_between_neighbours_or_ours_is_not_passed_on(name: str, case: Any) -> None:
    value = {"Content-Length": "0", "Transfer-Encoding": "chunked", "Connection": "x"}.get(name, "1")
    read = read_fields(f"{case(name)}: {value}\r\nKept: 1\r\n".encode())
    assert read.passed == b"Kept: 1\r\n"


def test_what_connection_names_is_not_passed_on() -> None:
    block = b"A: 1\r\nConnection: a, X-Secret\r\nx-secret: 2\r\nB: 3\r\nConnection: C\r\nc: 4\r\n"
    assert read_fields(block).passed == b"B: 3\r\n"
    assert read_fields(b"A: 1\r\n").passed == b"A: 1\r\n", "it holds for that request alone"


@pytest.mark.parametrize(
    ("block", "passed"),
    [
        (b"", b""),
        (b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"),
        (b"Content-Length: 5\r\nA: 1\r\n", b"A: 1\r\n"),
        (
            b"Transfer-Encoding: chunked\r\nHost: a\r\nX-Disco-Instance: a\r\nX-Forwarded-For: b\r\nA_b: 1\r\n",
            b"",
        ),
    ],
)
def test_trailers_pass_on_what_fields_would(block: bytes, passed: bytes) -> None:
    assert pass_on(block) == passed


@pytest.mark.parametrize("block", [b"A : 1\r\n", b"A: 1\r\n b\r\n", b"A: \x00\r\n", b"A\r\n"])
def test_malformed_trailers_are_refused(block: bytes) -> None:
    with pytest.raises(Refused, match="trailer"):
        pass_on(block)
