"""The chunked coding, cut at every position, and beside h11 and llhttp."""

from __future__ import annotations

from itertools import combinations, pairwise

import h11
import httptools
import pytest

from disco_sidecar.http.chunks import MOST_SIZE_LINE, MOST_TRAILERS, ChunkReader
from disco_sidecar.http.fields import pass_on
from disco_sidecar.http.refusal import Refused

GOOD = [
    (b"0\r\n\r\n", b"", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    (b"5;a=b\r\nhello\r\n0;x\r\n\r\n", b"hello", b""),
    (b"A\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n", b"0123456789x", b""),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
    (b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"x", b"A: b\r\nC: d\r\n"),
]
BAD = [
    b"\r\n",
    b"x\r\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5\nhello\r\n",
    b"5\rhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5;a\rb\r\nhello\r\n",
    b"5;\x00\r\nhello\r\n",
    b"5;\x80\r\nhello\r\n",
    b"5\r\nhello!\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    b"5\r\nhellohello\r\n0\r\n\r\n",
    b"10000000000000000\r\n",
    b"0\r\nA: b\nC: d\r\n\r\n",
    b"0\r\nA: b\rC: d\r\n\r\n",
    b"5;" + b"x" * MOST_SIZE_LINE + b"\r\nhello\r\n",
    b"0\r\nA: " + b"x" * MOST_TRAILERS + b"\r\n\r\n",
]


def read(parts: list[bytes]) -> tuple[bytes, bytes, bytes | None]:
    """The body, the trailers, and what follows."""
    reader, pieces = ChunkReader(), list[bytes]()
    for number, part in enumerate(parts):
        stop = reader.feed(part, 0, pieces)
        if stop is not None:
            assert all(pieces), "an empty piece would be a last chunk"
            return b"".join(pieces), reader.trailers, b"".join([part[stop:], *parts[number + 1 :]])
    return b"".join(pieces), reader.trailers, None


@pytest.mark.parametrize(("data", "body", "trailers"), GOOD)
def test_it_is_read_alike_however_it_is_cut(data: bytes, body: bytes, trailers: bytes) -> None:
    behind = b"GET / HTTP/1.1\r\n"
    whole = data + behind
    for count in (0, 1, 2):
        for cuts in combinations(range(1, len(whole)), count):
            ends = [0, *cuts, len(whole)]
            assert read([whole[one:two] for one, two in pairwise(ends)]) == (body, trailers, behind)
    assert read([whole[at : at + 1] for at in range(len(whole))]) == (body, trailers, behind)


@pytest.mark.parametrize("at", [1, 7])
def test_it_may_begin_anywhere_in_the_data(at: int) -> None:
    pieces: list[bytes] = []
    assert ChunkReader().feed(b"?" * at + b"1\r\nx\r\n0\r\n\r\nrest", at, pieces) == at + 11
    assert pieces == [b"x"]


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_is_malformed_is_refused_however_it_is_cut(data: bytes, is_whole: bool) -> None:
    with pytest.raises(
        Refused
    ):  # which lines there may be in trailers is a question for whoever passes them on
        _, trailers, _ = read([data] if is_whole else [data[at : at + 1] for at in range(len(data))])
        pass_on(trailers)


@pytest.mark.parametrize("data", [good for good, _, _ in GOOD])
def test_h11_and_llhttp_agree_with_what_is_accepted(data: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    httptools.HttpRequestParser(object()).feed_data(head + data)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + data)
    events: list[object] = []
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        events.append(connection.next_event())
        assert events[-1] is not h11.NEED_DATA
