"""Answers that come before the request is whole, and requests that wait for a word before they go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from .comparing import differences
from .engines import Way
from .observing import Ask, Observed, both, is_right
from .origin import origin
from .plays import Act, Play, early, response

SMALL = b"b" * 1000
LARGE = b"b" * 4_000_000
SAID = response(b"enough", status=b"413 Content Too Large")
SAID_CLOSE = response(b"enough", b"Connection: close", status=b"413 Content Too Large")

PLAYS = {
    "and reads on": early(SAID, Act.READ),
    "says close, and reads on": early(SAID_CLOSE, Act.READ),
    "says close, ends, and reads on": early(SAID_CLOSE, Act.SHUT),
    "ends without a word on it, and reads on": early(SAID, Act.SHUT),
    "in two parts around the reading": early(SAID[:-3], Act.READ, SAID[-3:]),
}


def play_both(way: Way, play: Play, what: Ask) -> tuple[Observed, Observed]:
    with origin({"case": play}) as server:
        return both(way, server, what)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in parts"])
@pytest.mark.parametrize("size", ["small", "large", "in pieces"])
@pytest.mark.parametrize("name", PLAYS)
def test_an_answer_before_the_body_was_read(way: Way, name: str, size: str, is_whole: bool) -> None:
    """Whether what is left of the body is still sent is a client's own affair; the answer is the caller's."""
    contents = {
        "small": lambda is_sync: SMALL,
        "large": lambda is_sync: LARGE,
        "in pieces": lambda is_sync: pieces(is_sync, 40),
    }
    what = Ask("POST", content=contents[size], is_whole=is_whole)
    ours, theirs = play_both(way, PLAYS[name], what)
    assert is_right(ours.after), ours.after
    assert ours.answer == theirs.answer, "\n".join(differences(ours, theirs))
    assert (ours.answer.status, ours.answer.body) == (413, b"enough")
    if ours.is_same:
        assert theirs.is_same or ours.heard[0] == theirs.heard[0], "reused in the middle of a request"


@pytest.mark.parametrize("name", ["a word, then a reset", "a word, then closed unread"])
def test_an_answer_and_then_a_reset_while_sending(way: Way, name: str) -> None:
    """The kernel may throw away the answer with the reset: an error of the connection, or the answer, and nothing else."""
    end = Act.RESET if name == "a word, then a reset" else Act.CLOSE
    what = Ask("POST", content=lambda is_sync: LARGE)
    for _ in range(5):
        ours, theirs = play_both(way, early(SAID_CLOSE, end), what)
        assert is_right(ours.after), ours.after
        for seen in (ours, theirs):
            is_answer = (seen.answer.error, seen.answer.status, seen.answer.body) == ("", 413, b"enough")
            assert is_answer or seen.answer.error in ("WriteError", "ReadError", "RemoteProtocolError"), (
                seen.answer
            )
        assert not ours.is_same


@pytest.mark.parametrize("end", [Act.CLOSE, Act.RESET])
def test_a_connection_that_goes_away_while_sending(way: Way, end: Act) -> None:
    for content in (lambda is_sync: LARGE, lambda is_sync: pieces(is_sync, 40)):
        ours, _ = play_both(way, early(end), Ask("POST", content=content))
        assert ours.answer.error in ("WriteError", "ReadError", "RemoteProtocolError"), ours.answer
        assert is_right(ours.after)


EXPECT = {"Expect": "100-continue"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTING = {
    "goes on": early(CONTINUE, Act.READ, response(b"thanks")),
    "says nothing before": early(Act.READ, response(b"thanks")),
    "goes on twice": early(CONTINUE * 2, Act.READ, response(b"thanks")),
    "refuses": early(response(b"no", b"Connection: close", status=b"417 Expectation Failed"), Act.SHUT),
    "refuses, and stays": early(response(b"no", status=b"417 Expectation Failed"), Act.READ),
    "answers without": early(response(b"yes"), Act.READ),
}


@pytest.mark.parametrize("name", EXPECTING)
def test_expect_100_continue(way: Way, name: str) -> None:
    what = Ask("POST", content=lambda is_sync: SMALL, more={"headers": EXPECT})
    ours, theirs = play_both(way, EXPECTING[name], what)
    assert is_right(ours.after), ours.after
    assert ours.answer == theirs.answer, "\n".join(differences(ours, theirs))
    if "refuses" not in name and name != "answers without":
        assert ours.heard == theirs.heard, "\n".join(differences(ours, theirs))


def pieces(is_sync: bool, count: int) -> Iterator[bytes] | AsyncIterator[bytes]:
    """100 kB each."""
    return iter([b"p" * 100_000] * count) if is_sync else _async_pieces(count)


async def _async_pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"p" * 100_000
