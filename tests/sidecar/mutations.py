"""Requests that are nearly right, for a fuzzer: built from parts that parsers disagree about, and bent by a few bytes."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["requests", "slices"]

_METHODS = (
    [b"GET"] * 8
    + [b"POST"] * 12
    + [
        b"GET",
        b"POST",
        b"PUT",
        b"DELETE",
        b"HEAD",
        b"OPTIONS",
        b"PATCH",
        b"get",
        b"CONNECT",
        b"TRACE",
        b"",
    ]
)
_TARGETS = [b"/experiment/x"] * 25 + [
    b"/experiment/x", b"/experiment/", b"/experiment", b"/experiment/a?b=c", b"/experiment/%00", b"http://experiment/x", b"*",
    b"//x", b"/experiment/\xc3\xa4", b"/experiment/a b", b"/experiment/a#b", b"http://experiment", b"/experiment/\\",
]  # fmt: skip
_VERSIONS = [b"HTTP/1.1"] * 60 + [
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"http/1.1",
    b"HTTP/1.1 ",
    b"HTTP/0.9",
    b"",
]
_ENDS = [b"\r\n"] * 200 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\r\n ", b"\r\n\t", b" \r\n", b"\x00\r\n"]
_FIELDS = [
    b"Content-Length: 4", b"Content-Length: 0", b"Content-Length: 5", b"content-length:4", b"Content-Length: 4, 4",
    b"Content-Length: +4", b"Content-Length: 04", b"Content-Length:  4 ", b"Content-Length : 4", b"Content_Length: 4",
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding: xchunked",
    b" Transfer-Encoding: chunked",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Connection: Content-Length",
    b"Connection: Transfer-Encoding, Host", b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Host: ledger",
    b"Host: localhost", b"X: y", b"X:", b": y", b"X", b"X: \x00", b"X: \x0b", b"X: \xff", b"X\x80: y",
    b"X: a\rb", b"X: a\nb", b"",
    b"Trailer: X", b"TE: trailers", b"Content-Length: 4\r\n Content-Length: 5", b"X: " + b"a" * 9000,
]  # fmt: skip
_BODIES = [
    b"", b"abcd", b"abcdX", b"abc", b"4\r\nabcd\r\n0\r\n\r\n", b"0\r\n\r\n", b"4;a=b\r\nabcd\r\n0\r\nX: y\r\n\r\n",
    b"4 \r\nabcd\r\n0\r\n\r\n", b"0x4\r\nabcd\r\n0\r\n\r\n", b"4\nabcd\n0\n\n", b"4\r\nabcd0\r\n\r\n",
    b"00004\r\nabcd\r\n00\r\n\r\n",
    b"4\r\nabcd\r\n0\r\nContent-Length: 9\r\n\r\n", b"4\r\nabcd\r\n0\r\nX : y\r\n\r\n", b"4;\x00\r\nabcd\r\n0\r\n\r\n",
    b"4;a\rb\r\nabcd\r\n0\r\n\r\n", b"4;a\nb\r\nabcd\r\n0\r\n\r\n",
    b"4\r\nabcd\r\n0\r\n\r\nGET /experiment/two HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"abcdGET /experiment/two HTTP/1.1\r\nHost: localhost\r\n\r\n", b"ffffffffffffffff4\r\nabcd\r\n0\r\n\r\n",
    b"\r\n", b"-1\r\n",
]  # fmt: skip
_BYTES = [
    bytes([number]) for number in (0, 1, 9, 10, 11, 12, 13, 32, 44, 45, 48, 58, 59, 95, 127, 128, 160, 255)
]


# Together they make a request that is right: most examples start from one of these, so that something gets through at all.
_RIGHT = [
    ([], b""),
    ([b"Content-Length: 4"], b"abcd"),
    ([b"Transfer-Encoding: chunked"], b"4\r\nabcd\r\n0\r\n\r\n"),
    ([b"Transfer-Encoding: chunked"], b"4;a=b\r\nabcd\r\n0\r\nX: y\r\n\r\n"),
    ([b"transfer-encoding: Chunked"], b"1\r\na\r\n03\r\nbcd\r\n00\r\n\r\n"),
]
_BEHIND = [b""] * 6 + [
    b"GET /experiment/two HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /experiment/two HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    b"\r\n",
    b"X",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """The bytes of a request, or of something like one, perhaps with more behind it."""
    end = st.sampled_from(_ENDS)
    is_right = draw(st.integers(0, 2)) > 0
    first = draw(st.sampled_from(_METHODS)), draw(st.sampled_from(_TARGETS)), draw(st.sampled_from(_VERSIONS))
    lines = [b" ".join(first) + draw(end)]
    if draw(st.integers(0, 19)):
        lines.append(b"Host: localhost" + draw(end))
    fields, body = draw(st.sampled_from(_RIGHT)) if is_right else ([], draw(st.sampled_from(_BODIES)))
    fields = [*fields, *draw(st.lists(st.sampled_from(_FIELDS), max_size=1 if is_right else 3))]
    lines += [field + draw(end) for field in fields]
    raw = b"".join(lines) + draw(end) + body + draw(st.sampled_from(_BEHIND))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(raw)))
        how = draw(st.sampled_from(["put", "set", "cut"]))
        byte = draw(st.sampled_from(_BYTES))
        raw = raw[:at] + (b"" if how == "cut" else byte) + raw[at + (how != "put") :]
    return raw


def slices(raw: bytes) -> st.SearchStrategy[list[int]]:
    """Where to split *raw*, in order."""
    return st.lists(st.integers(1, max(1, len(raw) - 1)), max_size=3).map(sorted)
