"""Packets that are no queries, or bad ones: no exception, no long answer, no answer to an answer."""

from __future__ import annotations

import struct
import time
from random import Random

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from disco_sidecar.dns.answers import reply
from disco_sidecar.dns.queries import MAX_QUERY, Query, Refusal, read_query
from tests.sidecar.dns.asking import instance

KNOWN = {"web": [instance(number) for number in range(1, 100)], "gone": None}
NAME = b"\x03web\x05disco\x00"
QUESTION = NAME + b"\x00\x01\x00\x01"
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"


def packet(
    rest: bytes = QUESTION,
    *,
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    id: int = 7,
) -> bytes:
    return struct.pack("!HHHHHH", id, flags, *counts) + rest


def replied(sent: bytes, *, stream: bool = False) -> bytes | None:
    return reply(sent, lambda service: KNOWN.get(service, ()), rng=Random(1), stream=stream)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x00" * 11, packet(flags=0x8100), packet(b"", flags=0x8000, counts=(0, 0, 0, 0))],
    ids=["nothing", "half a header", "a reply", "an empty reply"],
)
def test_what_is_no_query_gets_no_answer(sent: bytes) -> None:
    assert replied(sent) is None


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(packet(b""), id="no question"),
        pytest.param(packet(b"", counts=(0, 0, 0, 0)), id="a count of none"),
        pytest.param(packet(QUESTION * 2, counts=(2, 0, 0, 0)), id="two questions"),
        pytest.param(packet(QUESTION[:-1]), id="cut"),
        pytest.param(packet(QUESTION + b"x"), id="more than was announced"),
        pytest.param(packet(QUESTION + OPT, counts=(1, 1, 0, 0)), id="an answer in it"),
        pytest.param(packet(QUESTION + OPT, counts=(1, 0, 1, 0)), id="an authority in it"),
        pytest.param(packet(QUESTION, counts=(1, 0, 0, 65535)), id="records that are not there"),
        pytest.param(packet(QUESTION + OPT * 2, counts=(1, 0, 0, 2)), id="two OPT"),
        pytest.param(packet(QUESTION + b"\x01a" + OPT, counts=(1, 0, 0, 1)), id="OPT with a name"),
        pytest.param(
            packet(QUESTION + OPT[:-2] + b"\xff\xff", counts=(1, 0, 0, 1)), id="OPT without its data"
        ),
        pytest.param(packet(b"\x40" + b"a" * 64 + QUESTION), id="a label of 64"),
        pytest.param(packet((b"\x3f" + b"a" * 63) * 4 + QUESTION), id="a name of 256 and more"),
        pytest.param(packet(b"\xc0\x0c\x00\x01\x00\x01"), id="a pointer to itself"),
        pytest.param(packet(b"\xc0\x0d\x00\x01\x00\x01"), id="a pointer into itself"),
        pytest.param(packet(b"\xc0\xff\x00\x01\x00\x01"), id="a pointer ahead"),
        pytest.param(packet(b"\x03web\xc0\x0c\x00\x01\x00\x01"), id="a loop"),
        pytest.param(packet(b"\xc0\x00\x00\x01\x00\x01", id=0xC00C), id="a loop through the header"),
        pytest.param(packet(b"\x02\xff\xfe" + QUESTION), id="a label that is not UTF-8"),
        pytest.param(packet(QUESTION + b"\x00" * MAX_QUERY), id="too long"),
    ],
)
def test_a_query_that_cannot_be_read_gets_the_reason_in_twelve_bytes(sent: bytes) -> None:
    answer = replied(sent)
    assert answer is not None
    assert len(answer) == 12
    message = dns.message.from_wire(answer)
    assert (message.id, message.rcode()) == (struct.unpack("!H", sent[:2])[0], dns.rcode.FORMERR)
    assert message.flags & ~0xF == dns.flags.QR | dns.flags.RD


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_operations_are_not_implemented(opcode: int) -> None:
    answer = replied(packet(flags=opcode << 11))
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (len(answer), message.rcode(), message.opcode()) == (12, dns.rcode.NOTIMP, opcode)


def test_options_and_signatures_that_we_do_not_know_are_stepped_over() -> None:
    cookie = OPT[:-2] + b"\x00\x0c\x00\x0a\x00\x08" + b"c" * 8
    other = b"\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x04\xde\xad\xbe\xef"
    query = read_query(packet(QUESTION + cookie + other, counts=(1, 0, 0, 2)))
    assert isinstance(query, Query)
    assert query.edns is not None
    assert query.edns.size == 1232


def test_a_chain_of_pointers_costs_no_more_than_a_moment() -> None:
    chain = b"".join(b"\x01a" + struct.pack("!H", 0xC000 | 12 + max(0, 4 * step - 4)) for step in range(110))
    sent = packet(
        b"\x00" + b"\x00\x01\x00\x01" + b"\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x01\xb8" + chain,
        counts=(1, 0, 0, 1),
    )
    began = time.process_time()
    for _ in range(100):
        read_query(sent)
    assert time.process_time() - began < 1.0


# --- anything at all -------------------------------------------------------------------------------------------------


def check(sent: bytes) -> None:
    """Whatever was sent: no exception, and a reply that is one, to this query, and no longer than it may be."""
    for stream in (False, True):
        answer = replied(sent, stream=stream)
        if answer is None:
            assert len(sent) < 12 or sent[2] & 0x80
            continue
        message = dns.message.from_wire(answer)
        assert message.id == struct.unpack("!H", sent[:2])[0]
        assert message.flags & dns.flags.QR
        query = read_query(sent)
        if isinstance(query, Refusal):
            assert len(answer) == 12
            continue
        assert isinstance(query, Query)
        (question,) = message.question
        assert question.name.labels[:-1] == query.labels
        if not stream:
            assert len(answer) <= (512 if query.edns is None else max(512, min(1232, query.edns.size)))
        if not message.answer and not message.flags & dns.flags.TC:
            assert len(answer) <= len(sent) + 96


labels = st.one_of(
    st.sampled_from(
        [b"web", b"WEB", b"gone", b"disco", b"dIsCo", b"_tcp", b"_http", b"_web", b"web-000001", b"org"]
    ),
    st.binary(min_size=1, max_size=70),
)
names = st.lists(labels, max_size=6).map(
    lambda found: b"".join(bytes([len(label)]) + label for label in found) + b"\x00"
)
questions = st.builds(
    lambda name, rdtype, rdclass: name + struct.pack("!HH", rdtype, rdclass),
    names,
    st.one_of(st.sampled_from([1, 28, 33, 255, 6, 41, 252]), st.integers(0, 65535)),
    st.one_of(st.just(1), st.integers(0, 65535)),
)
options = st.builds(
    lambda size, ttl, data: b"\x00\x00\x29" + struct.pack("!HIH", size, ttl, len(data)) + data,
    st.integers(0, 65535),
    st.one_of(st.sampled_from([0, 0x8000]), st.integers(0, 2**32 - 1)),
    st.binary(max_size=30),
)
queries = st.builds(
    lambda id, flags, question, extra: packet(
        question + b"".join(extra), flags=flags, counts=(1, 0, 0, len(extra)), id=id
    ),
    st.integers(0, 65535),
    st.one_of(st.sampled_from([0, 0x0100]), st.integers(0, 65535)),
    questions,
    st.lists(options, max_size=2),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A query in which some bytes were changed, cut out or put in."""
    whole = bytearray(draw(queries))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(whole)))
        end = min(len(whole), at + draw(st.integers(0, 4)))
        whole[at:end] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\xc0\x0c", b"\xff\xff", b"\x00"]))
        )
    return bytes(whole)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
@example(b"\x00" * 12)
@example(b"\x00" * 600)
@example(b"\xff" * 600)
def test_random_bytes_do_no_harm(sent: bytes) -> None:
    check(sent)


@settings(max_examples=400, deadline=None)
@given(queries)
def test_any_question_gets_a_reply_of_its_own(sent: bytes) -> None:
    check(sent)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_questions_with_errors_in_them_do_no_harm(sent: bytes) -> None:
    check(sent)
