"""Headers, from plain to odd. Names, values, their order and their casing come through as they came."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .plays import Act, bytewise, response, split_at, whole

PLAIN = {
    "casing": [b"X-One: 1", b"x-two: 2", b"X-THREE: 3", b"x-FoUr: 4"],
    "cookies in order": [b"Set-Cookie: b=1", b"X: y", b"set-cookie: a=2", b"SET-COOKIE: c=3; Path=/"],
    "the same name": [b"X: 1", b"x: 2", b"X: 1"],
    "no space": [b"X:y"],
    "spaces": [b"X:    y    "],
    "tabs": [b"X:\ty\t"],
    "inner spaces": [b"X: a  b\tc"],
    "empty value": [b"X:", b"Y: ", b"Z:  "],
    "a colon in the value": [b"X: a:b: c"],
    "token names": [b"!#$%&'*+-.^_`|~09aZ: y"],
    "latin-1": [b"X: caf\xe9"],
    "utf-8": ["X: caf\u00e9 \u20ac".encode()],
    "high bytes": [b"X: " + bytes(range(0x80, 0x100))],
    "quotes": [b'X: "a\\"b"'],
    "10 kB": [b"X: " + b"v" * 10_000],
    "a long name": [b"X" * 1000 + b": y"],
    "a header that is ours": [b"X-Disco-Instance: someone", b"X-Disco-Expect: x/y"],
    "Date and Server": [b"Date: Thu, 26 Nov 2026 12:00:00 GMT", b"Server: raw"],
}

ODD = {
    "a space before the colon": b"X : y\r\n",
    "a tab before the colon": b"X\t: y\r\n",
    "a space in the name": b"X Y: z\r\n",
    "no colon": b"X\r\n",
    "no name": b": y\r\n",
    "only a colon": b":\r\n",
    "a space before the first name": b" X: y\r\n",
    "a folded value": b"X: y\r\n z\r\n",
    "a value folded by a tab": b"X: y\r\n\tz\r\n",
    "a value folded twice": b"X: y\r\n z\r\n  z\r\nY: 1\r\n",
    "an empty fold": b"X: y\r\n \r\nY: z\r\n",
    "a folded length": b"X: y\r\n Content-Length: 9\r\n",
    "a NUL in the value": b"X: a\x00b\r\n",
    "a NUL in the name": b"X\x00: y\r\n",
    "a control character": b"X: a\x01b\r\n",
    "a vertical tab": b"X: a\x0bb\r\n",
    "a form feed": b"X: a\x0cb\r\n",
    "an escape": b"X: a\x1bb\r\n",
    "a DEL": b"X: a\x7fb\r\n",
    "a bare CR in the value": b"X: a\rb\r\n",
    "a bare CR at the end of the value": b"X: a\r\r\n",
    "a bare LF in the value": b"X: a\nb\r\n",
    "bare LF": b"X: y\n",
    "bare LF twice": b"X: y\nY: z\n",
    "LF CR": b"X: y\n\r",
    "a high byte in the name": b"X\xe9: y\r\n",
    "brackets in the name": b"X[0]: y\r\n",
    "a slash in the name": b"X/Y: y\r\n",
    "an at in the name": b"@X: y\r\n",
    "quotes in the name": b'"X": y\r\n',
    "a form feed before the value": b"X:\x0cy\r\n",
    "a hidden length": b"X: y\nContent-Length: 9\r\n",
    "a hidden length behind CR": b"X: y\rContent-Length: 9\r\n",
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_header(duel: Duel, name: str) -> None:
    ours = duel(f"header: {name}", whole(response(b"x", *PLAIN[name])))
    assert ours.is_same
    assert len(ours.answer.headers) == len(PLAIN[name]) + 1


@pytest.mark.parametrize("name", ODD)
def test_an_odd_header(duel: Duel, name: str) -> None:
    raw = b"HTTP/1.1 200 OK\r\nA: b\r\n" + ODD[name] + b"Content-Length: 1\r\n\r\nx"
    duel(f"header: {name}", whole(raw, Act.SHUT))


@pytest.mark.parametrize(
    "name", ["a folded value", "bare LF", "a space before the colon", "no colon", "a NUL in the value"]
)
def test_an_odd_header_is_the_first(duel: Duel, name: str) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + ODD[name] + b"Content-Length: 1\r\n\r\nx"
    duel(f"header: {name}, the first", whole(raw, Act.SHUT))


@pytest.mark.parametrize("name", ["a folded value", "bare LF", "a bare CR in the value", "an empty fold"])
def test_an_odd_header_a_byte_at_a_time(duel: Duel, name: str) -> None:
    raw = b"HTTP/1.1 200 OK\r\nA: b\r\n" + ODD[name] + b"Content-Length: 1\r\n\r\nx"
    duel(f"header: {name}, bytewise", whole(*bytewise(raw), Act.SHUT))


@pytest.mark.parametrize("count", [100, 1000])
def test_many_headers(duel: Duel, count: int) -> None:
    headers = [b"X-%d: %d" % (number, number) for number in range(count)]
    assert len(duel(f"{count} headers", whole(response(b"x", *headers))).answer.headers) == count + 1


@pytest.mark.parametrize("size", [60_000, 90_000, 99_000, 110_000, 1_000_000])
def test_a_long_header(duel: Duel, size: int) -> None:
    duel(f"a header of {size}", whole(response(b"x", b"X: " + b"v" * size), Act.SHUT))


def test_a_head_without_an_end(duel: Duel) -> None:
    duel("a head without an end", whole(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, Act.SHUT))


@pytest.mark.parametrize(
    "name", ["casing", "cookies in order", "spaces", "latin-1", "empty value", "high bytes"]
)
def test_a_header_that_comes_in_pieces(duel: Duel, name: str) -> None:
    raw = response(b"body", *PLAIN[name])
    duel(f"header: {name}, in pieces", whole(*split_at(raw, *range(0, len(raw), 3))))


def test_no_headers_at_all(duel: Duel) -> None:
    duel("no headers", whole(b"HTTP/1.1 200 OK\r\n\r\nbody", Act.SHUT))
    duel("no headers, no body", whole(b"HTTP/1.1 200 OK\r\n\r\n", Act.SHUT))
