"""The reader remembers the head that it read last, and reads it as if it were new when it comes again."""

from __future__ import annotations

from itertools import pairwise, product
from random import Random
from typing import Any

import pytest

from discoclient.transport.http1.reader import MOST_KNOWN, BadResponse, ResponseReader
from tests.transport.framings import FRAMINGS, HELLO, OK, Framed, facts, read


def test_a_head_that_comes_again_is_the_same_object() -> None:
    """The negative control of what follows: it is really remembered."""
    reader = read(HELLO)
    head = reader.head
    reader.expect(is_head=False)
    reader.feed(HELLO.replace(b"hello", b"world"))
    assert reader.head is head
    assert b"".join(reader.pieces) == b"world"


@pytest.mark.parametrize(
    "first",
    [
        FRAMINGS["HEAD with a length"],
        FRAMINGS["304"],
        FRAMINGS["interim responses before it"],
        FRAMINGS["chunks"],
        FRAMINGS["the end of the connection"],
        Framed(OK + b"X: " + b"x" * MOST_KNOWN + b"\r\nContent-Length: 0\r\n\r\n", b"", 0),
    ],
)
def test_some_heads_are_not_remembered(first: Framed) -> None:
    """Without a body where there is a length, or too long to compare."""
    reader = read(first.data, is_head=first.is_head)
    assert reader._known is None


def test_a_head_of_a_response_to_head_does_not_make_the_next_body_vanish() -> None:
    reader = ResponseReader()
    for is_head in (True, False, True, False):
        reader.expect(is_head=is_head)
        reader.feed(HELLO[:-5])
        assert reader.is_complete is is_head
        if not is_head:
            reader.feed(b"hello")
            assert b"".join(reader.pieces) == b"hello"
            assert reader.is_complete


def test_a_head_that_only_begins_like_a_known_one_is_read_anew() -> None:
    reader = read(HELLO)
    for data in (
        OK + b"Content-Length: 50\r\n\r\n" + b"x" * 50,
        OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        reader.expect(is_head=False)
        if b"chunked" in data:
            with pytest.raises(BadResponse):
                reader.feed(data)
        else:
            reader.feed(data)
            assert facts(reader) == facts(read(data))


def cut(rng: Random, data: bytes) -> list[bytes]:
    places = sorted(
        {0, len(data), *(rng.randrange(1, len(data)) for _ in range(rng.choice([0, 0, 1, 2, 5])))}
    )
    return [data[start:stop] for start, stop in pairwise(places)]


def shown(reader: ResponseReader, parts: list[bytes]) -> dict[str, Any]:
    """What *reader* makes of *parts*, and of the end of the connection where one is missing."""
    try:
        for part in parts:
            if not reader.is_complete:
                reader.feed(part)
    except BadResponse as error:
        return {"error": str(error)}
    found = facts(reader)
    return found | {"ended": reader.feed_eof(), "complete then": reader.is_complete}


@pytest.mark.parametrize("seed", range(20))
def test_what_came_before_never_changes_how_a_response_is_read(seed: int) -> None:
    """Random sequences, split anywhere, with excess, cut short, and after responses that nobody read to their end."""
    rng = Random(seed)
    reader = ResponseReader()
    for _ in range(80):
        framed = rng.choice([*FRAMINGS.values(), FRAMINGS["a length"], FRAMINGS["close"]])
        data = framed.data + rng.choice([b"", b"", b"!", HELLO])
        data = data[: rng.choice([len(data), len(data), rng.randrange(2, len(data))])]
        is_head = framed.is_head ^ (rng.random() < 0.1)
        parts = cut(rng, data)
        fresh = ResponseReader()
        for each in (reader, fresh):
            each.expect(is_head=is_head)
        assert shown(reader, parts) == shown(fresh, parts), (is_head, parts)


def test_every_pair_of_responses_is_read_as_if_each_were_alone() -> None:
    for one, two in product(FRAMINGS.values(), FRAMINGS.values()):
        reader = ResponseReader()
        for framed in (one, two, one):
            reader.expect(is_head=framed.is_head)
            reader.feed(framed.data)
            assert facts(reader) == facts(read(framed.data, is_head=framed.is_head))
