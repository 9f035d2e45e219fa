"""Responses that have no body, whatever their headers say: to HEAD, 204 and 304; and 205, which is none of them."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .observing import Ask
from .plays import Act, chunked, response, whole

FRAMINGS = {
    "no length": b"",
    "length 0": b"Content-Length: 0\r\n",
    "length 5": b"Content-Length: 5\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "close": b"Connection: close\r\n",
}
BODIES = {"no body": b"", "a body": b"fives", "a chunked body": chunked(b"fives")}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"204 No Content", b"304 Not Modified"])
def test_the_answer_to_head_has_no_body(duel: Duel, framing: str, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\n" + FRAMINGS[framing] + b"\r\n"
    ours = duel(f"HEAD {status[:3].decode()}, {framing}", whole(head), Ask("HEAD"))
    assert (ours.answer.status, ours.answer.body) == (int(status[:3]), b"")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_204_and_304_have_no_body(duel: Duel, framing: str, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\n" + FRAMINGS[framing] + b"\r\n"
    duel(f"{status[:3].decode()}, {framing}", whole(head))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("framing", ["no length", "length 5", "chunked"])
def test_205_has_one_if_its_headers_say_so(duel: Duel, framing: str, body: str) -> None:
    head = b"HTTP/1.1 205 Reset Content\r\n" + FRAMINGS[framing] + b"\r\n"
    duel(f"205, {framing}, {body}", whole(head + BODIES[body], Act.SHUT))


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "DELETE", "PATCH", "PUT", "PROPFIND", "head"])
def test_the_answers_to_other_methods_have_one(duel: Duel, method: str) -> None:
    ask = Ask(method)
    duel(f"{method} with a body", whole(response(b"" if method == "head" else b"fives")), ask)


def test_the_answer_to_head_is_over_at_once_on_a_connection_that_stays(duel: Duel) -> None:
    ours = duel(
        "HEAD, a length, the connection stays",
        whole(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        Ask("HEAD"),
    )
    assert ours.is_same
