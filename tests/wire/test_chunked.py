"""Chunked bodies: right, odd, and wrong."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .plays import Act, bytewise, chunked, whole

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

RIGHT = {
    "one chunk": chunked(b"abcd"),
    "no chunk": chunked(),
    "three chunks": chunked(b"a", b"bc" * 100, b"d"),
    "a thousand chunks": chunked(*[b"x"] * 1000),
    "a large chunk": chunked(b"y" * 200_000),
    "capital size": b"A\r\n0123456789\r\n0\r\n\r\n",
    "small size": b"a\r\n0123456789\r\n0\r\n\r\n",
    "zeros before": b"0004\r\nabcd\r\n0\r\n\r\n",
    "more zeros at the end": b"4\r\nabcd\r\n0000\r\n\r\n",
    "an extension": b"4;name=value\r\nabcd\r\n0;last\r\n\r\n",
    "a quoted extension": b'4;name="va;l ue"\r\nabcd\r\n0\r\n\r\n',
    "an extension with spaces": b"4 ; name = value\r\nabcd\r\n0\r\n\r\n",
    "a bare semicolon": b"4;\r\nabcd\r\n0\r\n\r\n",
    "a long extension": b"4;" + b"x" * 2000 + b"\r\nabcd\r\n0\r\n\r\n",
    "a trailer": b"4\r\nabcd\r\n0\r\nX-Sum: 1\r\n\r\n",
    "trailers": b"4\r\nabcd\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "a trailer that frames": b"4\r\nabcd\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n",
    "a trailer that says close": b"4\r\nabcd\r\n0\r\nConnection: close\r\n\r\n",
}

WRONG = {
    "no size": b"\r\nabcd\r\n0\r\n\r\n",
    "no hexadecimal": b"g\r\nabcd\r\n0\r\n\r\n",
    "0x": b"0x4\r\nabcd\r\n0\r\n\r\n",
    "negative": b"-4\r\nabcd\r\n0\r\n\r\n",
    "with a plus": b"+4\r\nabcd\r\n0\r\n\r\n",
    "a space before": b" 4\r\nabcd\r\n0\r\n\r\n",
    "a space behind": b"4 \r\nabcd\r\n0\r\n\r\n",
    "a tab behind": b"4\t\r\nabcd\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "16 digits": b"0000000000000004\r\nabcd\r\n0\r\n\r\n",
    "20 digits": b"00000000000000000004\r\nabcd\r\n0\r\n\r\n",
    "2 ** 64 + 4": b"10000000000000004\r\nabcd\r\n0\r\n\r\n",
    "2 ** 63": b"8000000000000000\r\nabcd\r\n0\r\n\r\n",
    "too large by 1": b"5\r\nabcd\r\n0\r\n\r\n",
    "too small by 1": b"3\r\nabcd\r\n0\r\n\r\n",
    "bare LF behind the size": b"4\nabcd\r\n0\r\n\r\n",
    "bare CR behind the size": b"4\rabcd\r\n0\r\n\r\n",
    "CR CR LF behind the size": b"4\r\r\nabcd\r\n0\r\n\r\n",
    "bare LF behind the data": b"4\r\nabcd\n0\r\n\r\n",
    "bare CR behind the data": b"4\r\nabcd\r0\r\n\r\n",
    "nothing behind the data": b"4\r\nabcd0\r\n\r\n",
    "something behind the data": b"4\r\nabcdXY0\r\n\r\n",
    "LF CR behind the data": b"4\r\nabcd\n\r0\r\n\r\n",
    "bare LFs everywhere": b"4\nabcd\n0\n\n",
    "bare LF at the end": b"4\r\nabcd\r\n0\r\n\n",
    "NUL in an extension": b"4;\x00\r\nabcd\r\n0\r\n\r\n",
    "bare CR in an extension": b"4;a\rb\r\nabcd\r\n0\r\n\r\n",
    "bare LF in an extension": b"4;a\nb\r\nabcd\r\n0\r\n\r\n",
    "an open quote": b'4;a="\r\nabcd\r\n0\r\n\r\n',
    "a trailer without a colon": b"4\r\nabcd\r\n0\r\nX\r\n\r\n",
    "a trailer with a space": b"4\r\nabcd\r\n0\r\nX : y\r\n\r\n",
    "a trailer with a NUL": b"4\r\nabcd\r\n0\r\nX: \x00\r\n\r\n",
    "a folded trailer": b"4\r\nabcd\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a trailer without an end": b"4\r\nabcd\r\n0\r\nX: y\r\n",
    "no last chunk": b"4\r\nabcd\r\n",
    "no end": b"4\r\nabcd\r\n0\r\n",
    "half a chunk": b"4\r\nab",
    "half a size": b"4",
    "nothing": b"",
    "no chunks at all": b"abcd",
}

CODINGS = [
    b"Chunked",
    b"CHUNKED",
    b"chunked ",
    b"\tchunked",
    b"identity",
    b"gzip",
    b"gzip, chunked",
    b"chunked, gzip",
]
CODINGS += [
    b"chunked, chunked",
    b"chunked,",
    b", chunked",
    b"chunked;x=y",
    b"xchunked",
    b"chunkedx",
    b"\x0bchunked",
    b"",
]
CODINGS += [
    b"identity, chunked",
    b"chunked, identity",
    b'"chunked"',
    b"chunked\r\nTransfer-Encoding: chunked",
]
CODINGS += [
    b"chunked\r\nTransfer-Encoding: gzip",
    b"gzip\r\nTransfer-Encoding: chunked",
    b"chunked\x00",
    b"chun\r\n ked",
]


@pytest.mark.parametrize("name", RIGHT)
def test_a_chunked_body(duel: Duel, name: str) -> None:
    duel(f"chunked: {name}", whole(HEAD + RIGHT[name]))


@pytest.mark.parametrize("name", ["one chunk", "capital size", "an extension", "trailers"])
def test_a_chunked_body_a_byte_at_a_time(duel: Duel, name: str) -> None:
    duel(f"chunked: {name}, bytewise", whole(*bytewise(HEAD + RIGHT[name])))


@pytest.mark.parametrize("name", WRONG)
def test_a_chunked_body_that_is_wrong(duel: Duel, name: str) -> None:
    duel(f"chunked: {name}", whole(HEAD + WRONG[name], Act.SHUT))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_transfer_coding(duel: Duel, coding: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    duel(f"Transfer-Encoding: {coding.decode('latin-1')!r}", whole(head + chunked(b"abcd"), Act.SHUT))
