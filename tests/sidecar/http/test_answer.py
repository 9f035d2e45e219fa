"""Answers of instances: what is passed on of them, and that one that was seen before is read as if it were new."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from disco_sidecar.http.answer import MOST_BYTES, MOST_FIELDS, AnswerReader, BadResponse, opening_of

OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, is_head: bool = False, may_switch: bool = False, by: int = 1 << 30) -> AnswerReader:
    reader = AnswerReader()
    reader.expect(is_head=is_head, may_switch=may_switch)
    for at in range(0, len(data), by):
        reader.feed(data[at : at + by])
    return reader


@pytest.mark.parametrize("by", [1, 2, 7, 1 << 30])
@pytest.mark.parametrize(
    ("data", "opening", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", OK + b"Content-Length: 5\r\n", b"hello"),
        (OK + b"content-length:5 \r\nA: b\r\n\r\nhello", OK + b"A: b\r\nContent-Length: 5\r\n", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OK, b"hello"),
        (OK + b"Transfer-Encoding: Chunked \r\n\r\n0\r\n\r\n", OK, b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", OK + b"Content-Length: 0\r\n", b""),
        (b"HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 299 \r\nContent-Length: 0\r\n", b""),
        (
            b"HTTP/1.0 200 Fine\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n",
            b"",
        ),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 204 No Content\r\n", b""),
        (
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
            b"",
        ),
        (
            OK
            + b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: x\r\nUpgrade: h2c\r\nProxy-Connection: a\r\n"
            b"X-Disco-Instance: web-1\r\nX-Disco-Attempts: 3\r\nX-Disco-Error: no\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n",
            OK + b"X-Empty: \r\nContent-Length: 0\r\n",
            b"",
        ),
    ],
)
def test_what_is_passed_on(data: bytes, opening: bytes, body: bytes, by: int) -> None:
    reader = read(data, by=by)
    assert reader.opening == opening
    assert b"".join(reader.pieces) == body
    assert reader.is_complete


@pytest.mark.parametrize("by", [7, 1 << 30])
@pytest.mark.parametrize(
    ("fields", "is_too_much"),
    [
        (b"A: b\r\n" * MOST_FIELDS, False),
        (b"A: b\r\n" * (MOST_FIELDS + 1), True),
        (b"A: " + b"b" * (MOST_BYTES - 100) + b"\r\n", False),
        (b"A: " + b"b" * MOST_BYTES + b"\r\n", True),
    ],
)
def test_a_head_has_the_sidecar_s_own_limits(fields: bytes, is_too_much: bool, by: int) -> None:
    """What else is no answer, and how one is framed, is the reader's own: `tests.transport.test_reader`."""
    data = OK + fields + b"\r\n"
    if is_too_much:
        with pytest.raises(BadResponse):
            read(data, by=by)
    else:
        assert read(data, by=by).status == 200


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-x\r\n", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_what_can_not_be_understood_is_no_answer(data: bytes) -> None:
    with pytest.raises(BadResponse):
        read(data)


def test_interim_answers_come_before_the_one_that_counts() -> None:
    reader = read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        + OK
        + b"Content-Length: 0\r\n\r\n"
    )
    assert [opening_of(head) + b"\r\n" for head in reader.interim] == [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    ]
    assert (reader.status, reader.is_complete) == (200, True)


def test_a_change_of_protocol_hands_the_rest_over() -> None:
    data = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nrest"
    reader = read(data, may_switch=True)
    assert (reader.is_switched, reader.upgrade, reader.rest) == (True, b"x", b"rest")


def test_trailers_are_passed_on_but_for_ours() -> None:
    reader = read(
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nX-Disco-Instance: w\r\n\r\n"
    )
    assert reader.passed_trailers == [b"A: b\r\n"]


HEADS = [
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"Content-Length: 5\r\nX-Disco-Instance: web-1\r\n\r\nworld",
    OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
]
_SHOWN = (
    "status",
    "opening",
    "length",
    "is_chunked",
    "is_persistent",
    "instance",
    "retry_after",
    "is_complete",
)


def shown(reader: AnswerReader) -> dict[str, object]:
    facts = {name: getattr(reader, name) for name in _SHOWN}
    facts["interim"] = [opening_of(head) for head in reader.interim]
    return facts | {
        "body": b"".join(reader.pieces),
        "trailers": reader.passed_trailers if reader.is_chunked else [],
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_head_that_is_known_is_read_as_if_it_were_new(seed: int) -> None:
    rng = Random(seed)
    reader = AnswerReader()
    for _ in range(60):
        data, is_head = rng.choice(HEADS), rng.random() < 0.2
        if is_head:
            data = (
                data[: data.rindex(b"\r\n\r\n") + 4]
                if b"chunked" not in data
                else data[: data.index(b"\r\n\r\n") + 4]
            )
        fresh = AnswerReader()
        cut = rng.choice([len(data), rng.randrange(1, len(data) + 1)])
        for each in (reader, fresh):
            each.expect(is_head=is_head)
            each.feed(data[:cut])
            if data[cut:]:
                each.feed(data[cut:])
        assert shown(reader) == shown(fresh), (data, cut)


def test_every_pair_of_answers_is_read_as_if_each_were_alone() -> None:
    for one, two in product(HEADS, HEADS):
        reader = AnswerReader()
        for data in (one, two, one):
            reader.expect(is_head=False)
            reader.feed(data)
            assert shown(reader) == shown(read(data))
