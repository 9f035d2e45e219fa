"""The writer of requests: a head that can be read in one way only, and a body that fills the frame which the head announces."""

from __future__ import annotations

import pytest

from discoclient.transport.http1 import writer
from discoclient.transport.http1.failures import LocalProtocolFailure
from discoclient.transport.http1.head import Field
from discoclient.transport.http1.writer import MOST_NAMES, BodyFrame, head_of

HOST = (b"Host", b"experiment")


# ---- heads


def test_a_head_is_written_as_it_was_said() -> None:
    fields = [HOST, (b"x-Cased", b"as it was"), (b"Empty", b""), (b"Twice", b"1"), (b"Twice", b"2")]
    assert head_of("GET", b"/users/1?x=%20", fields) == (
        b"GET /users/1?x=%20 HTTP/1.1\r\nHost: experiment\r\nx-Cased: as it was\r\nEmpty: \r\nTwice: 1\r\nTwice: 2\r\n\r\n"
    )
    assert head_of("OPTIONS", b"*", []) == b"OPTIONS * HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "value", [b"a\tb", b"a b", b"a: b", bytes(range(0x80, 0x100)), bytes(range(0x21, 0x7F))]
)
def test_a_value_may_have_anything_in_it_but_control_characters(value: bytes) -> None:
    assert b"A: %b\r\n" % value in head_of("GET", b"/", [HOST, (b"A", value)])


@pytest.mark.parametrize("place", ["%b", "a%b", "%bb", "a%bb"])
@pytest.mark.parametrize("bad", [*range(0x20), 0x7F])
def test_no_control_character_goes_into_a_value(bad: int, place: str) -> None:
    """A line break would be a header of somebody else's choice."""
    value = place.encode() % bytes([bad])
    if bad == 0x09 and place == "a%bb":
        return  # a tab may stand inside
    with pytest.raises(
        LocalProtocolFailure, match=r"b'A' (has a control character|begins or ends with a space)"
    ):
        head_of("GET", b"/", [HOST, (b"A", value), (b"B", b"fine")])


@pytest.mark.parametrize("value", [b"a\r\nB: c", b"a\r\n\r\nGET / HTTP/1.1", b"\r\n", b"a\n b"])
def test_no_second_header_hides_in_a_value(value: bytes) -> None:
    with pytest.raises(LocalProtocolFailure, match="control character"):
        head_of("GET", b"/", [(b"A", value)])


@pytest.mark.parametrize("value", [b" a", b"a ", b" ", b"\ta", b"a\t"])
def test_a_value_does_not_begin_or_end_with_a_space(value: bytes) -> None:
    with pytest.raises(LocalProtocolFailure, match="begins or ends with a space"):
        head_of("GET", b"/", [HOST, (b"A", value)])


@pytest.mark.parametrize("value", [b"a:  b", b"a \x85", b"a: \tb"])
def test_what_only_looks_like_such_a_space_is_sent(value: bytes) -> None:
    assert value in head_of("GET", b"/", [HOST, (b"A", value)])


@pytest.mark.parametrize(
    "name", [b"", b" A", b"A ", b"A B", b"A:", b"A:B", b"(A)", b'"', b"A\r\nB", b"\x00", b"\xc3\xa4", b"A/B"]
)
def test_a_name_is_a_token(name: bytes) -> None:
    for _ in range(2):  # what was refused once is not remembered as good
        with pytest.raises(LocalProtocolFailure):
            head_of("GET", b"/", [HOST, (name, b"b")])


@pytest.mark.parametrize(
    "target", [b"", b"/a b", b"/\r\n", b"/a\tb", b"/\x00", b"/\x7f", b"/\xc3\xa4", b" /"]
)
def test_a_target_has_no_character_that_would_end_it(target: bytes) -> None:
    with pytest.raises(LocalProtocolFailure, match="target"):
        head_of("GET", target, [HOST])


@pytest.mark.parametrize(
    "method", ["", "GET ", "G ET", "GET\r\n", "GÉT", "G:T", "GET /evil HTTP/1.1\r\nA: b"]
)
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(LocalProtocolFailure, match="method"):
        head_of(method, b"/", [HOST])


def test_any_token_is_a_method() -> None:
    assert head_of("M-SEARCH!", b"/", []).startswith(b"M-SEARCH! / ")
    assert head_of("get", b"/", []).startswith(b"get / ")


def test_names_are_remembered_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that makes up a name for each request must not fill the memory."""
    names: set[bytes] = set()
    monkeypatch.setattr(writer, "_names", names)
    for number in range(MOST_NAMES + 50):
        head_of("GET", b"/", [(b"X-%d" % number, b"")])
    assert len(names) == MOST_NAMES


# ---- bodies


def framed(fields: list[Field], *pieces: bytes) -> bytes:
    frame = BodyFrame(fields)
    return b"".join([*map(frame.wrap, pieces), frame.end()])


def length(value: bytes) -> Field:
    return (b"Content-Length", value)


CHUNKED = (b"Transfer-Encoding", b"chunked")


def test_a_body_of_a_length_goes_out_as_it_is() -> None:
    assert framed([length(b"5")], b"he", b"", b"llo") == b"hello"
    assert framed([(b"content-LENGTH", b"0005")], b"hello") == b"hello"


def test_a_chunked_body_goes_out_in_chunks_and_ends_with_an_empty_one() -> None:
    assert framed([CHUNKED], b"hello", b"x" * 26) == b"5\r\nhello\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
    assert framed([(b"transfer-encoding", b"Chunked")]) == b"0\r\n\r\n"


def test_an_empty_piece_does_not_end_a_chunked_body() -> None:
    assert framed([CHUNKED], b"a", b"", b"b") == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize("pieces", [[b"hello!"], [b"hello", b"!"], [b"h", b"ello!", b"more"]])
def test_a_body_is_not_longer_than_it_said(pieces: list[bytes]) -> None:
    """What is too much would be the next request."""
    with pytest.raises(LocalProtocolFailure, match="longer"):
        framed([length(b"5")], *pieces)


@pytest.mark.parametrize("pieces", [[], [b"hell"], [b"h", b"ell"]])
def test_a_body_is_not_shorter_than_it_said(pieces: list[bytes]) -> None:
    with pytest.raises(LocalProtocolFailure, match="shorter"):
        framed([length(b"5")], *pieces)


def test_a_body_that_was_not_announced_is_not_sent() -> None:
    with pytest.raises(LocalProtocolFailure, match="longer"):
        framed([HOST], b"x")


@pytest.mark.parametrize(
    "value", [b"", b"x", b"-1", b"+1", b"1_0", b"0x5", b"1.0", b"5 5", b"5, 6", b"5,", b"\xb2"]
)
def test_a_length_is_a_number(value: bytes) -> None:
    with pytest.raises(LocalProtocolFailure, match="length of a body"):
        BodyFrame([length(value)])


def test_two_lengths_must_be_the_same() -> None:
    with pytest.raises(LocalProtocolFailure, match="differ"):
        BodyFrame([length(b"5"), length(b"6")])


@pytest.mark.parametrize(
    "coding", [b"gzip", b"gzip, chunked", b"chunked, chunked", b"", b"identity", b"xchunked"]
)
def test_no_coding_but_chunked_can_be_sent(coding: bytes) -> None:
    with pytest.raises(LocalProtocolFailure, match="chunked, once"):
        BodyFrame([(b"Transfer-Encoding", coding)])


def test_a_coding_is_said_once() -> None:
    with pytest.raises(LocalProtocolFailure, match="chunked, once"):
        BodyFrame([CHUNKED, CHUNKED])


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([HOST, length(b"5")], [HOST, length(b"5")]),
        ([HOST, CHUNKED], [HOST, CHUNKED]),
        ([length(b"5"), HOST, CHUNKED], [HOST, CHUNKED]),
        ([HOST, CHUNKED, length(b"5"), length(b"5")], [HOST, CHUNKED]),
        ([HOST, length(b"5"), (b"content-length", b"5")], [HOST, length(b"5")]),
        ([HOST, length(b"5, 5")], [HOST, length(b"5")]),
    ],
)
def test_one_framing_is_sent(said: list[Field], sent: list[Field]) -> None:
    """Two of them are an invitation to smuggle."""
    frame = BodyFrame(said)
    assert list(frame.fields) == sent
    assert frame.is_chunked is (CHUNKED in said)


@pytest.mark.parametrize("host", [b"Host", b"host"])
def test_the_host_goes_first(host: bytes) -> None:
    """Where a caller says one of its own, httpx has it last."""
    assert list(BodyFrame([(b"A", b"b"), CHUNKED, (host, b"x")]).fields) == [
        (host, b"x"),
        (b"A", b"b"),
        CHUNKED,
    ]


@pytest.mark.parametrize(
    ("fields", "is_empty"),
    [
        ([HOST], True),
        ([length(b"0")], True),
        ([length(b"1")], False),
        ([CHUNKED], False),
        ([length(b"0"), CHUNKED], False),
    ],
)
def test_whether_a_body_is_announced(fields: list[Field], is_empty: bool) -> None:
    assert BodyFrame(fields).is_empty is is_empty


@pytest.mark.parametrize(
    ("field", "is_last", "is_expecting"),
    [
        ((b"Connection", b"keep-alive"), False, False),
        ((b"Connection", b"close"), True, False),
        ((b"CONNECTION", b"x, Close"), True, False),
        ((b"Expect", b"100-Continue"), False, True),
        ((b"Expect", b"something"), False, False),
    ],
)
def test_what_else_is_looked_for(field: Field, is_last: bool, is_expecting: bool) -> None:
    frame = BodyFrame([HOST, field])
    assert (frame.is_last, frame.is_expecting) == (is_last, is_expecting)
