"""What the server gets to see of a request's first lines; and what must never be sent."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from .conftest import Duel
from .engines import OURS, THEIRS, Side, Way
from .observing import Ask, ask, is_right, told
from .origin import origin
from .plays import ok

METHODS = ["GET", "get", "PURGE", "M-SEARCH", "X!#$%&'*+-.^_`|~1", "CONNECT", "BREW", "A" * 100]
BAD_METHODS = [
    "",
    "GE T",
    "GET\r\nX: y",
    "G\x00T",
    "G\nT",
    "G(T",
    "GET ",
    " GET",
    "G\tT",
    "M\u00e4",
    "a/b",
    "a:b",
    '"GET"',
]
TARGETS = {
    "plain": "/a/case",
    "a query": "/case?x=y&z=%20",
    "an empty query": "/case?",
    "spaces": "/a b/case",
    "an umlaut": "/\u00e4/case",
    "escapes": "/%2F%2e%00/case",
    "two slashes": "//a//case",
    "dots": "/a/../b/./case",
    "semicolon": "/a;b=c/case",
    "a fragment": "/case#part",
    "brackets": "/[x]{y}|z/case",
    "long": "/" + "x" * 8000 + "/case",
    "nothing": "",
}
HEADERS: dict[str, Any] = {
    "casing and order": [("X-One", "1"), ("x-two", "2"), ("X-THREE", "3"), ("x-one", "4")],
    "the same twice": [("X", "1"), ("X", "2")],
    "empty": {"X": ""},
    "spaces": {"X": "a  b"},
    "latin-1": {"X": "caf\u00e9".encode("latin-1")},
    "utf-8": {"X": "\u20ac".encode()},
    "long": {"X": "v" * 50_000},
    "many": [(f"X-{number}", str(number)) for number in range(300)],
    "Connection: close": {"Connection": "close"},
    "TE": {"TE": "trailers", "Connection": "TE"},
    "Accept-Encoding": {"Accept-Encoding": "identity"},
    "User-Agent": {"user-agent": "mine"},
    "Cookie": {"cookie": "a=b; c=d"},
    "Authorization": {"AUTHORIZATION": "Bearer x"},
    "token names": {"!#$%&'*+-.^_`|~": "y"},
    "Upgrade": {"Connection": "Upgrade", "Upgrade": "websocket"},
    "Host": {"Host": "elsewhere"},
}
BAD_HEADERS: dict[str, Any] = {
    "CR LF in a value": {"X": "a\r\nX-Smuggled: yes"},
    "CR in a value": {"X": "a\rb"},
    "LF in a value": {"X": "a\nb"},
    "NUL in a value": {"X": "a\x00b"},
    "CR LF at the end": {"X": "a\r\n"},
    "CR LF and a request": {"X": "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"},
    "CR LF in a name": {"X\r\nY": "z"},
    "LF in a name": {"X\nY": "z"},
    "a colon in a name": {"X:Y": "z"},
    "a space in a name": {"X Y": "z"},
    "a space behind a name": {"X ": "z"},
    "a NUL in a name": {"X\x00": "z"},
    "an empty name": {"": "z"},
    "a high byte in a name": {b"X\xe9": "z"},
    "a folded value": {"X": "a\r\n b"},
    "CR LF in Host": {"Host": "a\r\nX: y"},
    "a leading space": {"X": " a"},
    "a trailing tab": {"X": "a\t"},
    "a vertical tab": {"X": "a\x0bb"},
    "a DEL": {"X": "a\x7fb"},
    "an escape": {"X": "a\x1bb"},
}
CONFLICTS: dict[str, Any] = {
    "a bad length": {"Content-Length": "x"},
    "a negative length": {"Content-Length": "-1"},
    "a length with a plus": {"Content-Length": "+3"},
    "two lengths": [("Content-Length", "3"), ("Content-Length", "4")],
    "the same length twice": [("Content-Length", "3"), ("Content-Length", "3")],
    "a list of lengths": {"Content-Length": "3, 3"},
    "a length and chunked": [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
    "chunked": {"Transfer-Encoding": "chunked"},
    "Chunked": {"Transfer-Encoding": "Chunked"},
    "gzip, chunked": {"Transfer-Encoding": "gzip, chunked"},
    "identity": {"Transfer-Encoding": "identity"},
    "chunked twice": [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_sent_as_it_is(duel: Duel, method: str) -> None:
    duel(f"method {method}", ok(b""), Ask(method))


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_sent_as_httpx_sends_it(duel: Duel, name: str) -> None:
    duel(f"target: {name}", ok(), Ask(path=TARGETS[name]))


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_sent_as_they_are(duel: Duel, name: str) -> None:
    duel(f"sent: {name}", ok(), Ask(more={"headers": HEADERS[name]}))


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_a_caller_says_of_the_framing(duel: Duel, name: str) -> None:
    duel(
        f"sent: {name}", ok(), Ask("POST", content=lambda is_sync: b"abc", more={"headers": CONFLICTS[name]})
    )


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_would_break_out_is_refused(way: Way, name: str) -> None:
    refused(way, Ask("POST", content=lambda is_sync: b"body", more={"headers": BAD_HEADERS[name]}))


@pytest.mark.parametrize("method", BAD_METHODS)
def test_a_method_that_would_break_out_is_refused(way: Way, method: str) -> None:
    refused(way, Ask(method))


@pytest.mark.parametrize(
    "target", [b"/a b", b"/a\r\nX: y", b"/a\nb", b"/a\x00b", b"", b"/\xff", b"/a\tb", b"/a\x7fb", b"/a\rb"]
)
def test_a_target_that_would_break_out_is_refused(way: Way, target: bytes) -> None:
    refused(way, Ask(more={"extensions": {"target": target}}))


REFUSALS = ("InvalidURL", "LocalProtocolError", "UnicodeEncodeError", "ValueError")


def refused(way: Way, what: Ask) -> None:
    """As httpx does. What is refused is an error of the caller's, nothing of it is sent, and the client goes on."""

    async def seen(side: Side) -> tuple[str, list[bytes], bool]:
        async with side.client(way, server.port) as client:
            server.forget()
            answer = await ask(client, what)
            if not answer.error:  # httpx lets some through; then they have to arrive as httpx sends them
                return "", [request.split(b"\r\n")[0] for request in server.requests], True
            assert not any(request for request in server.requests), (side, server.requests)
            is_next_right = is_right(await ask(client, Ask(path="/after")))
            assert not any(heard.rest for heard in server.connections), (side, "a part of it was sent")
            return answer.error, [], is_next_right

    with origin({"case": ok()}) as server:
        ours = way.run(lambda: seen(OURS))
    with origin({"case": ok()}) as server:
        theirs = way.run(lambda: seen(THEIRS))
    if (
        ours[0] not in REFUSALS
    ):  # that is well whatever httpx does: it has a TypeError for some, and sends others
        assert ours == theirs
    assert ours[2], "the client does not go on"


def test_the_negative_control_a_header_on_a_raw_socket_does_break_out(way: Way) -> None:
    """So that `refused` is known to see it: what was sent in one request arrives as two."""
    with origin() as server, socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nX: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")

        async def case() -> None:
            await way.until(lambda: len(server.requests) == 2)

        way.run(case)


def test_default_headers_of_a_client_come_first_and_in_order(way: Way) -> None:
    async def seen(side: Side) -> list[bytes]:
        async with side.client(
            way, server.port, headers={"X-Mine": "1", "accept": "x/y"}, cookies={"a": "b"}
        ) as client:
            await ask(client, Ask(more={"headers": {"X-Last": "2"}, "params": {"q": "r s"}}))
            return [told(request) for request in server.requests]

    with origin() as server:
        ours = way.run(lambda: seen(OURS))
    with origin() as server:
        assert ours == way.run(lambda: seen(THEIRS))
