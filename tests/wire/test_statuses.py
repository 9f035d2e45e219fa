"""Every class of status, and what may come before the final one."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .plays import Act, response, whole

FINAL = [
    200,
    201,
    203,
    206,
    226,
    299,
    300,
    301,
    304,
    307,
    399,
    400,
    401,
    404,
    407,
    408,
    417,
    421,
    426,
    429,
    451,
    499,
]
FINAL += [500, 501, 502, 503, 504, 511, 599, 600, 700, 999]

INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103 with headers": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
    "100 with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
    "103 that says close": b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n",
    "103 that says chunked": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
    "100 without a reason": b"HTTP/1.1 100\r\n\r\n",
    "199": b"HTTP/1.1 199 Whatever\r\n\r\n",
    "100 of HTTP/1.0": b"HTTP/1.0 100 Continue\r\n\r\n",
}

ODD = [
    b"099 X",
    b"000 X",
    b"99 X",
    b"1000 X",
    b"20 X",
    b"2 X",
    b"-200 X",
    b"+20 X",
    b"2x0 X",
    b" 200 X",
    b"200X",
    b"0x1",
]


@pytest.mark.parametrize("status", FINAL)
def test_a_final_status_is_told_as_it_came(duel: Duel, status: int) -> None:
    body = b"" if status == 304 else b"a body"
    duel(f"status {status}", whole(response(body, status=b"%d Whatever" % status, length=bool(body))))


@pytest.mark.parametrize("name", INTERIM)
def test_an_interim_response_is_passed_over(duel: Duel, name: str) -> None:
    ours = duel(f"interim {name}", whole(INTERIM[name] + response(b"final")))
    assert ours.answer.error or ours.answer.body == b"final"


@pytest.mark.parametrize("name", INTERIM)
def test_an_interim_response_that_comes_by_itself_is_passed_over(duel: Duel, name: str) -> None:
    duel(f"interim {name}, apart", whole(INTERIM[name], response(b"final")))


def test_many_interim_responses_are_passed_over(duel: Duel) -> None:
    duel(
        "20 interim responses",
        whole(b"".join(INTERIM.values()) + INTERIM["103 with headers"] * 20 + response(b"x")),
    )


@pytest.mark.parametrize("end", [Act.SHUT, Act.RESET])
def test_an_interim_response_alone_is_none(duel: Duel, end: Act) -> None:
    duel(f"interim alone, {end.name}", whole(INTERIM["103 with headers"], end))


@pytest.mark.parametrize("end", ["", "SHUT"])
@pytest.mark.parametrize("headers", ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"])
def test_an_upgrade_that_nobody_asked_for(duel: Duel, headers: str, end: str) -> None:
    head = f"HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n".encode()
    acts: list[bytes | Act] = [head + response(b"final"), *([Act.SHUT] if end else [])]
    duel(f"101 {'with' if headers else 'without'} headers {end}".strip(), whole(*acts))


@pytest.mark.parametrize("status", ODD)
def test_a_status_that_is_none(duel: Duel, status: bytes) -> None:
    duel(f"status {status.decode()}", whole(response(b"x", status=status), Act.SHUT))
