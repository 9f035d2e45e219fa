"""Content codings, right and broken: decoded by httpx, from the bytes that we hand it."""

from __future__ import annotations

import gzip
import zlib

import pytest

from .conftest import Duel
from .plays import Act, bytewise, chunked, response, whole

TEXT = b"some text that is worth packing " * 50
_RAW = zlib.compressobj(wbits=-15)
DEFLATED = _RAW.compress(TEXT) + _RAW.flush()
GZIPPED = gzip.compress(TEXT, mtime=0)

CODED = {
    "gzip": (b"gzip", GZIPPED),
    "x-gzip": (b"x-gzip", GZIPPED),
    "GZIP": (b"GZIP", GZIPPED),
    "zlib": (b"deflate", zlib.compress(TEXT)),
    "raw deflate": (b"deflate", DEFLATED),
    "identity": (b"identity", TEXT),
    "two": (b"gzip, deflate", zlib.compress(GZIPPED)),
    "an unknown one": (b"rot13", TEXT),
    "br": (b"br", b"\x0b\x02\x80hello\x03"),
    "zstd": (b"zstd", b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello"),
    "an empty name": (b"", TEXT),
    "gzip of nothing": (b"gzip", gzip.compress(b"", mtime=0)),
    "gzip, and no bytes": (b"gzip", b""),
    "two members": (b"gzip", GZIPPED + gzip.compress(b"more", mtime=0)),
    "broken gzip": (b"gzip", b"no gzip at all"),
    "half a gzip": (b"gzip", GZIPPED[: len(GZIPPED) // 2]),
    "a wrong checksum": (b"gzip", GZIPPED[:-8] + b"\0\0\0\0" + GZIPPED[-4:]),
    "broken deflate": (b"deflate", b"\xff\xff no deflate"),
    "half a deflate": (b"deflate", zlib.compress(TEXT)[:-20]),
    "gzip, and something behind": (b"gzip", GZIPPED + b"behind"),
}


@pytest.mark.parametrize("name", CODED)
def test_a_coding_with_a_length(duel: Duel, name: str) -> None:
    coding, body = CODED[name]
    duel(f"coded: {name}", whole(response(body, b"Content-Encoding: " + coding)))


@pytest.mark.parametrize("name", ["gzip", "zlib", "raw deflate", "two", "broken gzip", "half a gzip"])
def test_a_coding_in_chunks_of_three(duel: Duel, name: str) -> None:
    coding, body = CODED[name]
    head = response(b"", b"Transfer-Encoding: chunked", b"Content-Encoding: " + coding, length=False)
    pieces = chunked(*(body[place : place + 3] for place in range(0, len(body), 3)))
    duel(f"coded in chunks: {name}", whole(head + pieces))


def test_a_coding_a_byte_at_a_time(duel: Duel) -> None:
    duel(
        "coded, bytewise",
        whole(*bytewise(response(gzip.compress(b"short", mtime=0), b"Content-Encoding: gzip"))),
    )


@pytest.mark.parametrize("name", ["gzip", "half a gzip"])
def test_a_coding_that_ends_with_the_connection(duel: Duel, name: str) -> None:
    coding, body = CODED[name]
    duel(
        f"coded, until the end: {name}",
        whole(response(body, b"Content-Encoding: " + coding, length=False), Act.SHUT),
    )


def test_a_coding_that_is_cut(duel: Duel) -> None:
    raw = response(GZIPPED, b"Content-Encoding: gzip")
    duel("coded, and cut", whole(raw[:-10], Act.SHUT))


def test_a_coding_on_an_answer_without_a_body(duel: Duel) -> None:
    duel("204 coded", whole(b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n"))
    duel(
        "304 coded",
        whole(b"HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n"),
    )
