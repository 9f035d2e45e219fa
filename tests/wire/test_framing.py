"""Where a body ends when there are several words on it or none, and whether the connection stays."""

from __future__ import annotations

import itertools

import pytest

from .conftest import Duel
from .plays import Act, chunked, response, whole

BOTH = {
    "the length first": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "chunked first": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "a wrong length": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "a bad length": b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    "length 0": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "identity": b"Content-Length: 4\r\nTransfer-Encoding: identity\r\n",
    "gzip": b"Content-Length: 4\r\nTransfer-Encoding: gzip\r\n",
}

CONNECTION = [
    b"close",
    b"Close",
    b"CLOSE",
    b"keep-alive",
    b"Keep-Alive",
    b"KEEP-ALIVE",
    b"close, keep-alive",
    b"",
]
CONNECTION += [
    b"keep-alive, close",
    b"close,close",
    b" close ",
    b"x, close",
    b"x,\tclose",
    b"closed",
    b"upgrade",
]
CONNECTION += [
    b"Upgrade, close",
    b"keep-alive, x",
    b"x\r\nConnection: close",
    b"keep-alive\r\nConnection: close",
    b",close",
]
CONNECTION += [b"close;x", b'"close"']


@pytest.mark.parametrize("end", ["", "SHUT"])
@pytest.mark.parametrize("name", BOTH)
def test_a_length_and_a_transfer_coding(duel: Duel, name: str, end: str) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + BOTH[name] + b"\r\n"
    acts: list[bytes | Act] = [
        head + chunked(b"abcd"),
        *([Act.SHUT] if end or name in ("identity", "gzip") else []),
    ]
    duel(f"both: {name} {end}".strip(), whole(*acts))


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("end", [Act.SHUT, Act.RESET, Act.CLOSE])
@pytest.mark.parametrize("body", [b"", b"until the end", b"x" * 100_000])
def test_a_body_that_ends_with_the_connection(duel: Duel, body: bytes, end: Act, version: bytes) -> None:
    if end is Act.RESET and len(body) > 1000:
        pytest.skip("how much of it arrives before the reset is the kernel's affair")
    play = whole(response(version=version, length=False), *([body] if body else []), end)
    if end is Act.RESET:
        play = whole(response(body, version=version, length=False), end)
    duel(f"until the end: {version.decode()}, {len(body)}, {end.name}", play)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("value", CONNECTION)
def test_whether_the_connection_stays(duel: Duel, value: bytes, version: bytes) -> None:
    case = f"{version.decode()}, Connection: {value.decode()!r}"
    duel(case, whole(response(b"x", b"Connection: " + value, version=version)))


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("name", [b"connection", b"CONNECTION", b"Proxy-Connection", b"Keep-Alive"])
def test_which_header_says_whether_it_stays(duel: Duel, name: bytes, version: bytes) -> None:
    case = f"{version.decode()}, {name.decode()}: close"
    duel(case, whole(response(b"x", name + b": close", version=version)))


def test_http_1_0_does_not_stay_by_itself(duel: Duel) -> None:
    assert not duel("HTTP/1.0", whole(response(b"x", version=b"HTTP/1.0"))).is_same


@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_with_chunks(duel: Duel, connection: bytes) -> None:
    head = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + connection + b"\r\n"
    duel(f"HTTP/1.0 chunked {connection.decode().strip()}".strip(), whole(head + chunked(b"abcd"), Act.SHUT))


@pytest.mark.parametrize(
    ("framing", "says"), [*itertools.product(["chunked", "length"], ["close", "keep-alive"])]
)
def test_the_servers_word_is_believed_in_every_framing(duel: Duel, framing: str, says: str) -> None:
    connection = f"Connection: {says}".encode()
    if framing == "length":
        raw = response(b"abcd", connection)
    else:
        raw = response(b"", connection, b"Transfer-Encoding: chunked", length=False) + chunked(b"abcd")
    assert duel(f"{framing}, {says}", whole(raw)).is_same == (says == "keep-alive")


def test_a_connection_that_ends_behind_a_whole_response_is_not_used_again(duel: Duel) -> None:
    assert not duel("ends behind a whole response", whole(response(b"x"), Act.SHUT)).is_same
    assert not duel("reset behind a whole response", whole(response(b"x"), Act.RESET)).is_same
