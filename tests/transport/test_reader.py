"""The reader of responses: every framing, wherever the bytes are split, and what it refuses."""

from __future__ import annotations

import pytest

from discoclient.transport.http1.reader import (
    LONG,
    MOST_BYTES,
    MOST_DIGITS,
    MOST_INTERIM,
    BadResponse,
    ResponseReader,
)
from tests.transport.framings import FRAMINGS, HELLO, OK, Framed, read

framings = pytest.mark.parametrize("framed", FRAMINGS.values(), ids=FRAMINGS.keys())


def check(reader: ResponseReader, framed: Framed) -> None:
    assert reader.status == framed.status
    assert b"".join(reader.pieces) == framed.body
    assert (reader.length, reader.is_chunked) == (framed.length, framed.is_chunked)
    if not framed.ends:
        assert not reader.is_complete
        assert reader.feed_eof()
    assert reader.is_complete
    assert reader.is_persistent is framed.goes_on


# ---- every framing


@framings
def test_a_response_is_read_wherever_it_is_split(framed: Framed) -> None:
    data = framed.data[:500]  # a long body behind its head is not split at every byte
    for at in range(1, len(data)):
        check(read(data[:at], framed.data[at:], is_head=framed.is_head), framed)


@framings
def test_a_response_is_read_in_small_pieces(framed: Framed) -> None:
    for by in (1, 2, 3, 7, 64, 1 << 30):
        check(read(framed.data, is_head=framed.is_head, by=by), framed)


@framings
def test_nothing_is_complete_before_its_last_byte(framed: Framed) -> None:
    """The negative control of the tests above."""
    for at in {*range(min(len(framed.data), 500)), len(framed.data) - 1}:
        assert not read(framed.data[:at], is_head=framed.is_head).is_complete


@framings
def test_the_end_of_the_connection_ends_only_what_nothing_else_ends(framed: Framed) -> None:
    if framed.ends:
        for at in range(min(len(framed.data), 500)):
            reader = read(framed.data[:at], is_head=framed.is_head)
            assert not reader.feed_eof()
            assert not reader.is_complete
    else:
        reader = read(framed.data)
        assert reader.feed_eof()
        assert not reader.feed_eof(), "once"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without sending a response"),
        (b"HTTP/1.1 2", "in the middle of a response's head"),
        (HELLO[:-2], r"received 3 bytes, expected 5"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "incomplete chunked read"),
    ],
)
def test_what_is_missing_is_said_in_words(data: bytes, words: str) -> None:
    assert words in read(data).what_is_missing()


def test_a_long_piece_of_a_body_is_not_copied() -> None:
    data = OK + b"Content-Length: %d\r\n\r\n" % (LONG + 1) + b"x" * (LONG + 1)
    reader = read(data)
    reader.expect(is_head=False)
    reader.feed(data)  # the head is known by now
    (piece,) = reader.pieces
    assert isinstance(piece, memoryview)
    assert piece.obj is data


# ---- another request on the connection, or not


@pytest.mark.parametrize("by", [1, 1 << 30])
@pytest.mark.parametrize(
    ("data", "is_head"),
    [
        (HELLO + b"!", False),
        (HELLO + HELLO, False),
        (OK + b"Content-Length: 5\r\n\r\nhello", True),
        (OK + b"Content-Length: 0\r\nConnection: close\r\n\r\njunk", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HELLO, False),
        (b"HTTP/1.1 204 No\r\n\r\n" + HELLO, False),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello", False),
    ],
)
def test_excess_ends_the_connection_and_is_no_part_of_the_body(data: bytes, is_head: bool, by: int) -> None:
    reader = ResponseReader()
    reader.expect(is_head=is_head)
    for at in range(0, len(data), by):
        if not reader.is_complete or by > 1:  # whoever gets a byte more looks whether it waits for one
            reader.feed(data[at : at + by])
    assert reader.is_complete
    if by > 1:
        assert not reader.is_persistent
    body = b"".join(reader.pieces)
    assert body in (b"", b"hello")
    assert (body == b"hello") is (data.startswith(HELLO) and not is_head)


def test_excess_is_seen_behind_a_head_that_is_known_and_in_a_piece_of_its_own() -> None:
    reader = ResponseReader()
    for parts in ([HELLO + b"!"], [HELLO[:-1], b"o!"]):
        reader.expect(is_head=False)
        reader.feed(HELLO)
        assert reader.is_persistent
        reader.expect(is_head=False)
        for part in parts:
            reader.feed(part)
        assert (b"".join(reader.pieces), reader.is_complete, reader.is_persistent) == (b"hello", True, False)


@pytest.mark.parametrize(
    ("options", "goes_on"),
    [
        (b"", True),
        (b"Connection: keep-alive\r\n", True),
        (b"Connection: close\r\n", False),
        (b"Connection: keep-alive\r\nConnection: CLOSE\r\n", False),
        (b"Connection: keep-alive , close\r\n", False),
        (b"Connection: close-to-me\r\n", True),
    ],
)
def test_who_says_close_means_it(options: bytes, goes_on: bool) -> None:
    assert read(OK + options + b"Content-Length: 0\r\n\r\n").is_persistent is goes_on


# ---- what is refused


@pytest.mark.parametrize("by", [1, 3, 1 << 30])
@pytest.mark.parametrize(
    "data",
    [
        b"220 ESMTP\r\n",
        b"SSH-2.0-x\r\n",
        b"\r\n" + HELLO,
        b" " + HELLO,
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        OK + b"A : b\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\x00\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\x01\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 1_0\r\n\r\nhello",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: " + b"0" * MOST_DIGITS + b"5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: " + b"b" * MOST_BYTES + b"\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"b" * MOST_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" * (MOST_INTERIM + 1),
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)  # fmt: skip
def test_what_can_not_be_understood_is_no_response(data: bytes, by: int) -> None:
    with pytest.raises(BadResponse):
        read(data, by=by if len(data) < MOST_BYTES else max(by, 1000))


def test_so_many_interim_responses_are_taken_and_no_more() -> None:
    """The negative control of the one that is refused."""
    reader = read(b"HTTP/1.1 103 Early\r\n\r\n" * MOST_INTERIM + HELLO)
    assert (reader.status, len(reader.interim)) == (200, MOST_INTERIM)


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 200 ", OK + b"A: ", OK + b"A", b"HTTP/1.1 103 Early\r\nA: "]
)
def test_a_head_without_an_end_is_no_response(beginning: bytes) -> None:
    reader = read(beginning)
    with pytest.raises(BadResponse, match="too large"):
        for _ in range(MOST_BYTES // 1000 + 1):
            reader.feed(b"x" * 1000)


def test_a_head_has_so_many_fields_if_that_is_asked_for() -> None:
    for most, is_refused in ((3, False), (2, True)):
        reader = ResponseReader(most_fields=most)
        data = OK + b"A: b\r\nA: b\r\nContent-Length: 0\r\n\r\n"
        if is_refused:
            with pytest.raises(BadResponse, match="too many"):
                reader.feed(data)
        else:
            reader.feed(data)
            assert reader.is_complete


# ---- interim responses, trailers, another protocol


@pytest.mark.parametrize("by", [1, 5, 1 << 30])
def test_interim_responses_come_before_the_one_that_counts(by: int) -> None:
    reader = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + HELLO, by=by)
    assert [(head.status, head.reason, head.fields) for head in reader.interim] == [
        (100, b"Continue", ()),
        (103, b"Early Hints", ((b"Link", b"a"),)),
    ]
    assert (reader.status, reader.head.fields) == (200, ((b"Content-Length", b"5"),))


@pytest.mark.parametrize("by", [1, 1 << 30])
def test_trailers_are_kept_and_do_not_frame(by: int) -> None:
    reader = read(FRAMINGS["chunks and trailers"].data, by=by)
    assert reader.trailers == [(b"A", b"b"), (b"Connection", b"close")]
    assert reader.length is None
    assert reader.is_persistent
    assert reader.head.fields == ((b"Transfer-Encoding", b"chunked"),)


def test_trailers_are_gone_with_the_next_response() -> None:
    reader = read(FRAMINGS["chunks and trailers"].data)
    for _ in range(2):  # unknown, and known
        reader.expect(is_head=False)
        reader.feed(HELLO)
        assert reader.trailers == []


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_change_of_protocol_that_was_asked_for_hands_the_rest_over(interim: bytes) -> None:
    data = interim + b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 rest"
    reader = read(data, may_switch=True)
    assert (reader.status, reader.is_switched, reader.is_complete) == (101, True, True)
    assert reader.rest == b"HTTP/1.1 rest"
    assert not reader.pieces
