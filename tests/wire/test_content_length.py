"""What ``Content-Length`` may say, and what it may not."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .plays import Act, response, whole

BODY = b"twelve bytes"

LENGTHS = {
    "right": b"Content-Length: 12\r\n",
    "0 and no body": b"Content-Length: 0\r\n",
    "00012": b"Content-Length: 00012\r\n",
    "twice the same": b"Content-Length: 12\r\nContent-Length: 12\r\n",
    "a list of the same": b"Content-Length: 12, 12\r\n",
    "a list without spaces": b"Content-Length: 12,12\r\n",
    "a list of three, apart": b"Content-Length: 12, 12\r\nContent-Length: 12\r\n",
    "conflicting": b"Content-Length: 12\r\nContent-Length: 11\r\n",
    "conflicting, the other way": b"Content-Length: 11\r\nContent-Length: 12\r\n",
    "a list that conflicts": b"Content-Length: 12, 11\r\n",
    "a list with nothing in it": b"Content-Length: ,\r\n",
    "a list with an empty end": b"Content-Length: 12,\r\n",
    "negative": b"Content-Length: -12\r\n",
    "minus nothing": b"Content-Length: -0\r\n",
    "with a plus": b"Content-Length: +12\r\n",
    "too long by 1": b"Content-Length: 13\r\n",
    "too short by 1": b"Content-Length: 11\r\n",
    "0 with a body": b"Content-Length: 0\r\nX: y\r\n",
    "2 ** 31": b"Content-Length: 2147483648\r\n",
    "2 ** 32 + 12": b"Content-Length: 4294967308\r\n",
    "2 ** 63": b"Content-Length: 9223372036854775808\r\n",
    "2 ** 64 + 12": b"Content-Length: 18446744073709551628\r\n",
    "20 digits": b"Content-Length: 99999999999999999999\r\n",
    "21 digits": b"Content-Length: 100000000000000000000\r\n",
    "zeros of 30 digits": b"Content-Length: " + b"0" * 28 + b"12\r\n",
    "hexadecimal": b"Content-Length: 0xc\r\n",
    "c": b"Content-Length: c\r\n",
    "a fraction": b"Content-Length: 12.0\r\n",
    "an exponent": b"Content-Length: 1e1\r\n",
    "an underscore": b"Content-Length: 1_2\r\n",
    "inner space": b"Content-Length: 1 2\r\n",
    "inner tab": b"Content-Length: 1\t2\r\n",
    "spaces around": b"Content-Length:   12   \r\n",
    "tabs around": b"Content-Length:\t12\t\r\n",
    "no space": b"Content-Length:12\r\n",
    "empty": b"Content-Length:\r\n",
    "only spaces": b"Content-Length:   \r\n",
    "other digits": "Content-Length: \u0661\u0662\r\n".encode(),
    "latin-1 digits": b"Content-Length: 1\xb2\r\n",
    "a quoted number": b'Content-Length: "12"\r\n',
    "in capitals": b"CONTENT-LENGTH: 12\r\n",
    "in small letters": b"content-length: 12\r\n",
    "an underscore in the name": b"Content_Length: 11\r\n",
    "a NUL behind": b"Content-Length: 12\x00\r\n",
    "a vertical tab before": b"Content-Length: \x0b12\r\n",
    "a parameter": b"Content-Length: 12;x=y\r\n",
}


STAYS = [
    "right",
    "0 and no body",
    "00012",
    "twice the same",
    "a list of the same",
    "spaces around",
    "tabs around",
]
STAYS += ["no space", "in capitals", "in small letters"]


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length(duel: Duel, name: str) -> None:
    duel(f"length: {name}", whole(_head(name) + _body(name), Act.SHUT))


@pytest.mark.parametrize("name", STAYS)
def test_a_length_on_a_connection_that_stays(duel: Duel, name: str) -> None:
    ours = duel(f"length: {name}, stays", whole(_head(name) + _body(name)))
    assert ours.answer.error or ours.answer.body == _body(name)


@pytest.mark.parametrize("size", [1, 1000, 65_535, 65_536, 65_537, 300_000])
def test_bodies_of_many_sizes_are_whole(duel: Duel, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    duel(f"length {size}", whole(response(body[:size])))


def _head(name: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + LENGTHS[name] + b"\r\n"


def _body(name: str) -> bytes:
    return b"" if name == "0 and no body" else BODY
