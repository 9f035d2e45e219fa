"""What is malformed or ambiguous is refused, and not one byte of it reaches an instance, however it arrives."""

from __future__ import annotations

import pytest

from .corpus import BAD, BAD_BODIES, GOOD, Bad, Good
from .naive import NaiveProxy
from .stage import Stage
from .wire import Client, ask

BY_NAME = {bad.name: bad for bad in (*BAD, *BAD_BODIES)}
WELL_FORMED = (403, 404, 421)
"""Refused for what they ask, and not for how: where the next request begins is beyond doubt."""
SPLIT = (
    "CL and TE",
    "fold by a space",
    "bare LF after a field",
    "two Hosts",
    "CL b'+4'",
    "version b'HTTP/1.2'",
)
SPLIT_BODIES = ("chunk size b'0x4'", "data without its end", "trailer with a space before the colon")


def named(bad: Bad | Good) -> str:
    return bad.name


def assert_refused(client: Client, bad: Bad) -> None:
    reply = client.reply()
    assert reply.status in bad.statuses, reply
    assert reply.get("x-disco-error"), reply
    if reply.status not in WELL_FORMED:
        assert reply.says_close, reply
        assert client.is_closed(), "the connection stays open"


@pytest.mark.parametrize("bad", [*BAD, *BAD_BODIES], ids=named)
def test_a_bad_request_that_comes_whole_is_refused_and_not_forwarded(stage: Stage, bad: Bad) -> None:
    with stage.nothing_forwarded(), stage.client() as client:
        assert_refused(client.send(bad.raw), bad)


@pytest.mark.parametrize("bad", BAD, ids=named)
def test_a_bad_head_that_comes_byte_by_byte_is_refused_and_not_forwarded(stage: Stage, bad: Bad) -> None:
    with stage.nothing_forwarded(), Client(stage.sidecar.unix) as client:
        assert_refused(client.send_bytewise(bad.raw[:4000]), bad)


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.name in SPLIT], ids=named)
def test_a_bad_head_is_refused_wherever_it_is_split(stage: Stage, bad: Bad) -> None:
    with stage.nothing_forwarded():
        for at in range(1, len(bad.raw)):
            with Client(stage.sidecar.unix) as client:
                assert_refused(client.send_apart(bad.raw[:at], bad.raw[at:]), bad)


@pytest.mark.parametrize("bad", [bad for bad in BAD_BODIES if bad.name in SPLIT_BODIES], ids=named)
def test_a_bad_body_never_becomes_a_whole_request_wherever_it_is_split(stage: Stage, bad: Bad) -> None:
    head_end = bad.raw.index(b"\r\n\r\n") + 4
    before = len(stage.origin.requests)
    for at in range(1, len(bad.raw)):
        with Client(stage.sidecar.unix) as client:
            client.send_apart(bad.raw[:at], bad.raw[at:])
            assert not client.rest().startswith(b"HTTP/1.1 2"), f"split at {at}"
    forwarded = stage.origin.requests[before:]
    assert not any(request.is_whole for request in forwarded)
    assert len(forwarded) <= len(bad.raw) - head_end, "a head was forwarded before the rest of it was there"


@pytest.mark.parametrize("bad", BAD_BODIES, ids=named)
def test_a_bad_body_that_comes_byte_by_byte_never_becomes_a_whole_request(stage: Stage, bad: Bad) -> None:
    before = len(stage.origin.requests)
    with Client(stage.sidecar.unix) as client:
        client.send_bytewise(bad.raw[:400]).send(bad.raw[400:])
        assert not client.rest().startswith(b"HTTP/1.1 2")
    assert not any(request.is_whole for request in stage.origin.requests[before:])


@pytest.mark.parametrize("good", GOOD, ids=named)
def test_a_good_request_gets_through_whole_and_byte_by_byte(stage: Stage, good: Good) -> None:
    for is_whole in (True, False):
        before = len(stage.origin.requests)
        with Client(stage.sidecar.unix) as client:
            (client.send if is_whole else client.send_bytewise)(good.raw)
            assert client.final().status == 200
        # A request that was cut off in the test before may be noticed only now.
        received = [each for each in stage.origin.requests[before:] if each.is_whole]
        assert [(each.target, each.body) for each in received] == [("/experiment/x", good.body)], [
            each.raw for each in received
        ]


@pytest.mark.parametrize("value", ["\tchunked", "chunked\t", " chunked ", " \t chunked \t "])
def test_spaces_around_a_coding_are_allowed_or_refused_but_never_misread(stage: Stage, value: str) -> None:
    head = f"POST /experiment/spaces HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:{value}\r\n\r\n"
    before = len(stage.origin.requests)
    assert stage.ask(head.encode() + b"4\r\nabcd\r\n0\r\n\r\n").status in (200, 400)
    assert all(request.body == b"abcd" for request in stage.origin.requests[before:])


def test_a_refused_request_with_a_large_body_behind_it_still_gets_its_answer(stage: Stage) -> None:
    """Closing while data is unread makes the kernel send a RST, which takes the answer away from a client that is still
    sending."""
    request = (
        b"POST /experiment/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: +9\r\n\r\n" + b"x" * 4_000_000
    )
    with stage.nothing_forwarded(), stage.client() as client:
        client.send(request)
        assert client.reply().status == 400


def test_control_a_naive_proxy_forwards_nearly_all_of_it(stage: Stage) -> None:
    """The same corpus through a proxy that does not look: so these requests do have somewhere to go."""
    forwarded = 0
    corpus = [bad for bad in (*BAD, *BAD_BODIES) if len(bad.raw) < 4000]
    with NaiveProxy(stage.origin.port) as naive:
        for bad in corpus:
            before = stage.origin.received
            with Client(naive.address) as client:
                client.send(bad.raw).half_close()
                client.rest()
            forwarded += stage.origin.received > before
    assert forwarded > 0.95 * len(corpus)


def test_control_the_instance_does_record_a_good_request(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="bytes were forwarded"), stage.nothing_forwarded():
        assert ask(stage.sidecar.address, GOOD[0].raw).status == 200


def test_the_names_of_the_corpus_are_different() -> None:
    assert len(BY_NAME) == len(BAD) + len(BAD_BODIES)
    assert len([bad for bad in BAD if bad.name in SPLIT]) == len(SPLIT)
