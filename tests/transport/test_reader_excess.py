"""What comes behind a response that is complete already: whatever it is, the connection carries nothing after it."""

from __future__ import annotations

import pytest

from discoclient.transport.http1.reader import ResponseReader

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize("length", [0, 5, 40_000])
@pytest.mark.parametrize("is_taken", [True, False])
@pytest.mark.parametrize("excess", [b"\r\n", b"\n", b"x", HEAD % 0, b"\x00\r\n"])
def test_what_comes_apart_from_the_response_is_excess(length: int, is_taken: bool, excess: bytes) -> None:
    """The second response has the head of the first, which is remembered, and a long body is not copied."""
    reader = ResponseReader()
    for is_last in (False, True):
        reader.expect(is_head=False)
        reader.feed(HEAD % length + b"b" * length)
        assert reader.is_complete
        assert reader.is_persistent, "the negative control"
        if is_taken:
            reader.pieces = []
        if is_last:
            reader.feed(excess)
            assert not bool(reader.is_persistent)  # the checker believes that it is what it was above
            assert b"".join(reader.pieces) == (b"" if is_taken else b"b" * length)
