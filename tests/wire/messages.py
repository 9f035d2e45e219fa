"""Responses made up by hypothesis: right ones, and ones that are bent by a few bytes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from .plays import Act, Play, chunked, early, split_at, whole

__all__ = ["Made", "mutated", "valid"]


@dataclass(frozen=True, slots=True)
class Made:
    """A response as it goes over the wire. ``cuts``: where it is split; ``ends``: whether the connection ends behind it."""

    raw: bytes
    cuts: tuple[int, ...] = ()
    ends: bool = True
    method: str = "GET"

    def play(self) -> Play:
        pieces = split_at(self.raw, *self.cuts) if self.raw else ()
        play = whole(*pieces, *([Act.SHUT] if self.ends else []))
        return play if self.method in ("GET", "HEAD") else early(*play.acts)


_STATUSES = [
    b"200 OK",
    b"201 Created",
    b"206 Part",
    b"301 Moved",
    b"400 Bad",
    b"404 ",
    b"429 Slow",
    b"500 Oops",
    b"599 X",
]
_BODILESS = [b"204 No Content", b"304 Not Modified"]
_NAMES = [
    b"X-One",
    b"x-two",
    b"X-THREE",
    b"Set-Cookie",
    b"set-cookie",
    b"Content-Type",
    b"ETag",
    b"Via",
    b"!#$%&'*+-.^_`|~",
]
_VALUES = [
    b"",
    b"v",
    b"a b",
    b"a,b, c",
    b"a=b; Path=/",
    b"text/plain; charset=utf-8",
    b'"quoted"',
    b"caf\xe9",
    b"x" * 300,
    b":",
]
_ENDINGS = [b"", b": close", b": keep-alive", b": Close", b": x, close", b": Keep-Alive"]
_INTERIM = [
    b"",
    b"",
    b"",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: y\r\n\r\n",
]
_BODIES = st.binary(max_size=200) | st.sampled_from(
    [b"", b"abcd", b"x" * 5000, b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n\r\n", b"0\r\n\r\n"]
)
_BYTES = [
    bytes([number])
    for number in (0, 1, 9, 10, 11, 12, 13, 32, 34, 44, 45, 48, 58, 59, 95, 127, 128, 160, 255)
]
_PARTS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"Content-Length: 4\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 ", b"HTTP/1.0 ",
    b"0\r\n\r\n", b"4\r\n",
    b"-", b"+", b"0x", b";x=y", b": ", b"Content-Encoding: gzip\r\n", b"Upgrade: x\r\n", b"100 ", b"101 ", b"204 ", b"304 ",
]  # fmt: skip


@st.composite
def valid(draw: st.DrawFn) -> Made:
    """A response that nobody can misread, in up to five pieces."""
    method = draw(st.sampled_from(["GET"] * 5 + ["HEAD", "POST"]))
    is_bodiless = draw(st.integers(0, 5)) == 0
    status = draw(st.sampled_from(_BODILESS if is_bodiless else _STATUSES))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0"]))
    lines = [version + b" " + status]
    pairs = draw(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES)), max_size=6))
    lines += [name + b": " + value for name, value in pairs]
    if ending := draw(st.sampled_from(_ENDINGS)):
        lines.append(b"Connection" + ending)
    body = draw(_BODIES)
    framing = draw(
        st.sampled_from(["length", "chunked", "end"] if version == b"HTTP/1.1" else ["length", "end"])
    )
    if is_bodiless or method == "HEAD":
        body, framing = (
            b"",
            draw(st.sampled_from(["nothing", "length"]) if not is_bodiless else st.just("nothing")),
        )
    at = draw(st.integers(1, len(lines)))
    if framing == "length":
        lines.insert(at, b"Content-Length: %d" % (len(body) if method != "HEAD" else 7))
    elif framing == "chunked":
        lines.insert(at, b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked", b"Chunked"])))
        places = draw(st.lists(st.integers(0, max(len(body) - 1, 0)), max_size=4))
        body = chunked(*(piece for piece in split_at(body, *places) if piece))
    raw = draw(st.sampled_from(_INTERIM if version == b"HTTP/1.1" else [b""])) + b"\r\n".join(
        [*lines, b"", body]
    )
    cuts = tuple(draw(st.lists(st.integers(1, len(raw)), max_size=4)))
    return Made(raw, cuts, ends=framing == "end" or draw(st.booleans()), method=method)


@st.composite
def mutated(draw: st.DrawFn) -> Made:
    """A response with one to three faults, none of which may make us lax. Behind it the connection ends."""
    made = draw(valid())
    raw = made.raw
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        at = draw(st.integers(0, len(raw)))
        to = min(len(raw), at + draw(st.sampled_from([0, 1, 1, 2, 10])))
        raw = raw[:at] + draw(st.sampled_from([b"", *_BYTES, *_PARTS])) + raw[to:]
    return Made(raw, made.cuts, ends=True, method=made.method)
