"""More than one answer: what comes behind a response belongs to nobody, and never answers another request."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from .comparing import differences, is_stricter
from .engines import OURS, THEIRS, Way
from .observing import Answer, Ask, ask, both, is_right, observe
from .origin import origin
from .plays import Act, chunked, response, whole
from .stricter import How

SECOND = response(b"an answer that nobody asked for", b"X-Stray: yes")
FIRST = {
    "a length": response(b"first"),
    "chunks": response(b"", b"Transfer-Encoding: chunked", length=False) + chunked(b"first"),
    "length 0": response(b""),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "says close": response(b"first", b"Connection: close"),
}
EXCESS = {
    "a response": SECOND,
    "two responses": SECOND * 2,
    "half a response": SECOND[:40],
    "a byte": b"H",
    "a CRLF": b"\r\n",
    "garbage": b"\x00garbage",
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "408": response(b"", status=b"408 Request Timeout"),
}


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in parts"])
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize("excess", EXCESS)
def test_what_comes_behind_a_response_answers_nothing(
    way: Way, excess: str, apart: bool, is_whole: bool
) -> None:
    for name, first in FIRST.items():
        acts = [first, EXCESS[excess]] if apart else [first + EXCESS[excess]]
        what = Ask(is_whole=is_whole)
        with origin({"case": whole(*acts)}) as server:
            ours, theirs = both(way, server, what)
        case = f"{excess} behind {name}"
        assert is_right(ours.after), f"{case}: the next request got {ours.after}"
        # httpx itself serves some of these as the next answer: then ours has to be stricter
        if found := differences(ours, theirs):
            assert is_stricter(ours, theirs) not in (None, How.KEEPS), f"{case}:\n" + "\n".join(found)


def test_the_body_that_head_must_not_have_answers_nothing(way: Way) -> None:
    for raw in (
        response(b"a body"),
        response(SECOND),
        response(b"", b"Transfer-Encoding: chunked", length=False) + SECOND,
    ):
        with origin({"case": whole(raw)}) as server:
            ours = way.run(lambda: observe(OURS, way, server, Ask("HEAD")))
        assert (ours.answer.error, ours.answer.body) in [("", b""), ("RemoteProtocolError", b"")]
        assert is_right(ours.after), ours.after


def test_what_comes_between_two_requests_answers_nothing(way: Way) -> None:
    """The excess is there before the next request is made, long after the first one was over."""

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            for _ in range(5):
                answer = await ask(client, Ask())
                assert (answer.error, answer.body) == ("", b"first")
                await way.until(lambda: server.is_settled)
                await way.pause(0.005)
                assert is_right(await ask(client, Ask(path="/after")))

    with origin({"case": whole(response(b"first"), SECOND)}) as server:
        way.run(case)


def test_many_at_once_each_get_their_own_answer_from_a_server_that_says_too_much(way: Way) -> None:
    """What comes with the answer, that is: what comes after the next request was sent can't be told from its answer."""
    names = [f"n{number}" for number in range(40)]

    async def case() -> None:
        async with OURS.client(way, server.port) as client:

            async def one(name: str) -> list[Answer]:
                return [await ask(client, Ask(path=f"/{name}")) for _ in range(3)]

            for name, answers in zip(names, await way.together(*[partial(one, name) for name in names])):
                assert [answer.body for answer in answers] == [name.encode()] * 3, answers

    with origin({name: whole(response(name.encode()) + SECOND) for name in names}) as server:
        way.run(case)


@pytest.mark.parametrize(
    "said",
    [SECOND, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"garbage"],
)
def test_what_a_server_says_before_it_is_asked(way: Way, said: bytes) -> None:
    """A fresh connection on which an answer waits already. It answers this request or none, and never the next one."""
    with origin({"case": whole(response(b"mine"))}, greetings=[whole(said)]) as server:
        ours = way.run(lambda: observe(OURS, way, server, Ask()))
    with origin({"case": whole(response(b"mine"))}, greetings=[whole(said)]) as server:
        theirs = way.run(lambda: observe(THEIRS, way, server, Ask()))
    assert is_right(ours.after), ours.after
    if found := differences(replace(ours, after=theirs.after, is_same=False), replace(theirs, is_same=False)):
        is_taken = said.endswith(
            ours.answer.body
        )  # it came before we asked, and was seen after: nobody can tell
        is_refused = ours.answer.error in ("ConnectError", "RemoteProtocolError", "ReadError")
        assert is_taken or is_refused, "\n".join(found)


@pytest.mark.parametrize("end", [Act.SHUT, Act.RESET])
def test_a_server_that_closes_what_it_accepts(way: Way, end: Act) -> None:
    with origin(greetings=[whole(end)]) as server:
        ours = way.run(lambda: observe(OURS, way, server, Ask()))
    assert ours.answer.error in ("ConnectError", "RemoteProtocolError", "ReadError", "WriteError"), (
        ours.answer
    )
    assert is_right(ours.after)
