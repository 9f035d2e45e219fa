"""The tools themselves: the server does what the play says, and the judge sees what differs."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial

import pytest

from .comparing import differences, is_stricter, verdict
from .engines import THEIRS, Way
from .observing import Answer, Ask, Observed, observe, told
from .origin import origin
from .plays import AFTER, Act, chunked, early, ok, response, split_at, whole
from .reading import wait_until_read
from .stricter import How, Stricter

RIGHT = Answer("", 200, b"OK", b"HTTP/1.1", (), AFTER, len(AFTER))
SEEN = Observed(replace(RIGHT, body=b"x"), RIGHT, True, (b"GET / HTTP/1.1\r\n\r\n",))


def test_pieces_are_read_one_by_one() -> None:
    play = whole(b"one", b"two", b"three", Act.SHUT)
    with origin({"case": play}) as server, socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"GET /case HTTP/1.1\r\n\r\n")
        assert [line.recv(100) for _ in range(4)] == [b"one", b"two", b"three", b""]


def test_what_was_read_is_known_and_what_was_not_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
    ):
        far, _ = listener.accept()
        with far:
            near.sendall(b"abcd")
            assert not wait_until_read(near, timeout=0.02)
            far.recv(4)
            assert wait_until_read(near, timeout=5.0)
            far.close()
            assert not wait_until_read(near, timeout=5.0)


def test_a_reset_is_a_reset_and_an_end_is_an_end() -> None:
    with origin({"end": whole(Act.SHUT), "reset": whole(Act.RESET)}) as server:
        for name in ("end", "reset"):
            with socket.create_connection(("127.0.0.1", server.port)) as line:
                line.sendall(f"GET /{name} HTTP/1.1\r\n\r\n".encode())
                if name == "end":
                    assert line.recv(1) == b""
                else:
                    with pytest.raises(ConnectionResetError):
                        line.recv(1)


def test_requests_are_taken_down_with_their_bodies_and_connections(way: Way) -> None:
    with origin({"case": early(response(b"x"), Act.READ)}) as server:
        for _ in range(2):
            way.run(partial(observe, THEIRS, way, server, Ask("POST", content=lambda is_sync: b"body")))
            assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] in (
                [b"body", b""],
                [b"", b"body"],
            )
        assert len(server.connections) == 2


def test_what_must_differ_is_left_out_and_nothing_else() -> None:
    raw = b"GET / HTTP/1.1\r\nhost: a:1\r\nX-Disco-Expect: a/b\r\nX-One: host: x\r\n\r\nx-disco-body: 1\r\n"
    assert told(raw) == b"GET / HTTP/1.1\r\nhost: <host>\r\nX-One: host: x\r\n\r\nx-disco-body: 1\r\n"


@pytest.mark.parametrize("field", ["error", "status", "reason", "version", "headers", "body", "downloaded"])
def test_every_difference_of_an_answer_is_one(field: str) -> None:
    others = {"status": 201, "downloaded": 7, "headers": ((b"a", b"b"),), "error": "ReadError"}
    other = replace(SEEN, answer=replace(SEEN.answer, **{field: others.get(field, b"other")}))  # type: ignore[arg-type]
    assert differences(SEEN, other)
    assert verdict(SEEN, other, None)
    assert not differences(SEEN, SEEN)


def test_every_other_difference_is_one_too() -> None:
    for other in (
        replace(SEEN, is_same=False),
        replace(SEEN, heard=(b"x",)),
        replace(SEEN, after=SEEN.answer),
    ):
        assert verdict(SEEN, other, None)


def test_an_answer_to_what_follows_that_is_wrong_on_both_sides_is_wrong() -> None:
    wrong = replace(SEEN, after=SEEN.answer)
    assert verdict(wrong, wrong, None)


def test_stricter_is_stricter_and_laxer_is_not() -> None:
    refused = replace(SEEN, answer=Answer("RemoteProtocolError"), is_same=False)
    closed = replace(SEEN, is_same=False)
    desynced = replace(SEEN, after=SEEN.answer)
    assert is_stricter(refused, SEEN) is How.REFUSES
    assert is_stricter(closed, SEEN) is How.CLOSES
    assert is_stricter(closed, desynced) is How.CLOSES
    assert is_stricter(SEEN, closed) is How.KEEPS
    assert is_stricter(SEEN, refused) is None
    for laxer in (refused, closed, SEEN):
        assert is_stricter(desynced, laxer) is None
    assert verdict(refused, SEEN, Stricter(How.REFUSES, "why")) == []
    assert verdict(refused, SEEN, Stricter(How.CLOSES, "why")) != []
    assert verdict(refused, SEEN, Stricter(How.REFUSES, "why", error="ReadError")) != []


def test_what_the_plays_are_made_of_is_right() -> None:
    assert response(b"abc", b"X: y") == b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\nabc"
    assert chunked(b"abc", b"x" * 16) == b"3\r\nabc\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"
    assert split_at(b"abcdef", 2, 2, 4, 0, 6, 9) == (b"ab", b"cd", b"ef")
    assert ok(b"x").acts[0] is Act.READ
