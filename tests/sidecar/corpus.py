"""Requests that must be refused, from the literature on request smuggling and from RFC 9110 and 9112; and good ones.

Every one would reach ``experiment`` if it were let through: by path, and by the port that is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BAD", "BAD_BODIES", "GOOD", "Bad", "Good"]

SYNTAX = (400,)
UNKNOWN_CODING = (400, 501)
VERSION = (400, 505)
HOST = (400, 421)
LARGE = (400, 413, 431)


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, and the statuses that refuse it."""

    name: str
    raw: bytes
    statuses: tuple[int, ...] = SYNTAX


@dataclass(frozen=True, slots=True)
class Good:
    """A request that has to get through, and what of it has to arrive."""

    name: str
    raw: bytes
    body: bytes = b""


def _head(
    *lines: bytes, first: bytes = b"GET /experiment/x HTTP/1.1", host: bytes = b"Host: localhost"
) -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


def _posted(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return _head(*lines, first=b"POST /experiment/x HTTP/" + version) + body


_CL4, _TE = b"Content-Length: 4", b"Transfer-Encoding: chunked"
_CHUNKS = b"4\r\nabcd\r\n0\r\n\r\n"


def _framing() -> list[Bad]:
    """Two readings of where the body ends."""
    bad = [
        Bad("CL and TE", _posted(_CL4, _TE, body=b"0\r\n\r\n")),
        Bad("TE and CL", _posted(_TE, _CL4, body=_CHUNKS)),
        Bad("CL and TE in lower case", _posted(_CL4, b"transfer-encoding: chunked", body=_CHUNKS)),
        Bad("CL 0 and TE", _posted(b"Content-Length: 0", _TE, body=_CHUNKS)),
        Bad("CL and TE identity", _posted(_CL4, b"Transfer-Encoding: identity", body=b"abcd")),
        Bad("CL and a TE that is empty", _posted(_CL4, b"Transfer-Encoding:", body=b"abcd")),
        Bad("CL and TE of a GET", _head(_CL4, _TE) + _CHUNKS),
        Bad("TE behind a fold", _posted(_CL4, b"X: y", b" Transfer-Encoding: chunked", body=_CHUNKS)),
        Bad("TE behind a bare CR", _posted(_CL4, b"X: y\rTransfer-Encoding: chunked", body=_CHUNKS)),
        Bad("TE behind a bare LF", _posted(_CL4, b"X: y\nTransfer-Encoding: chunked", body=_CHUNKS)),
        Bad("TE behind a NUL", _posted(_CL4, b"X: y\0Transfer-Encoding: chunked", body=_CHUNKS)),
        Bad("TE folded", _posted(b"Transfer-Encoding:", b" chunked", body=_CHUNKS)),
        Bad("TE with a space before the colon", _posted(_CL4, b"Transfer-Encoding : chunked", body=_CHUNKS)),
        Bad("TE with a tab before the colon", _posted(_CL4, b"Transfer-Encoding\t: chunked", body=_CHUNKS)),
        Bad("TE behind a leading space", _head(first=b"POST /experiment/x HTTP/1.1", host=b" " + _TE)),
        Bad("TE of HTTP/1.0", _posted(_TE, body=_CHUNKS, version=b"1.0")),
        Bad("CL and TE of HTTP/1.0", _posted(_CL4, _TE, body=_CHUNKS, version=b"1.0")),
        Bad("CL with a space before the colon", _posted(b"Content-Length : 4", body=b"abcd")),
        Bad("CL folded", _posted(b"Content-Length:", b" 4", body=b"abcd")),
        Bad("CL twice, different", _posted(_CL4, b"Content-Length: 5", body=b"abcde")),
        Bad("CL twice, the same", _posted(_CL4, _CL4, body=b"abcd")),
        Bad("CL twice, in different spellings", _posted(_CL4, b"content-length: 4", body=b"abcd")),
        Bad("TE twice", _posted(_TE, _TE, body=_CHUNKS), UNKNOWN_CODING),
        Bad(
            "TE twice, identity first",
            _posted(b"Transfer-Encoding: identity", _TE, body=_CHUNKS),
            UNKNOWN_CODING,
        ),
        Bad(
            "TE twice, identity last",
            _posted(_TE, b"Transfer-Encoding: identity", body=_CHUNKS),
            UNKNOWN_CODING,
        ),
        Bad("TE twice, nonsense last", _posted(_TE, b"Transfer-encoding: cow", body=_CHUNKS), UNKNOWN_CODING),
    ]
    codings = [
        b"identity", b"gzip", b"cow", b"xchunked", b"chunkedx", b"chunke", b"chunked, chunked", b"chunked, identity",
        b"identity, chunked", b"gzip, chunked", b"chunked, gzip", b"chunked,", b",chunked", b"chunked;q=1",
        b"chunked chunked", b'"chunked"', b"'chunked'", b"chunked\x0b", b"\x0bchunked", b"\x0cchunked", b"chunked\x00",
        b"\x00chunked", b"\xa0chunked", b"chunked\x85", b"chun\xc4\xb8ed", b"[chunked]", b"ch\tunked", b"\x01chunked",
        b"chunked\x7f", b"\xef\xbb\xbfchunked",
    ]  # fmt: skip
    bad += [
        Bad(f"TE {coding!r}", _posted(b"Transfer-Encoding: " + coding, body=_CHUNKS), UNKNOWN_CODING)
        for coding in codings
    ]
    lengths = [
        b"", b"+4", b"-4", b"-0", b"-1", b"0x4", b"4 4", b"4,4", b"4, 4", b"4, 5", b"4,", b",4", b"4_0", b"4.0", b"4e0", b"4;",
        b"4;q=1", b'"4"', b"4\x0b", b"\x0b4", b"\x0c4", b"\x004", b"4\x00", b"4a", b"a", b"\xb2", b"\xef\xbc\x94", b"4\r",
        b"99999999999999999999", b"18446744073709551620", b"36893488147419103236", b"9" * 400, b"4\xa0",
    ]  # fmt: skip
    bad += [
        Bad(f"CL {value[:30]!r}", _posted(b"Content-Length: " + value, body=b"abcd"), (400, 413))
        for value in lengths
    ]
    return bad


def _lines() -> list[Bad]:
    """What is a line, and what is a field."""
    good = _head(b"X: y")
    bad = [
        Bad("bare LF everywhere", good.replace(b"\r\n", b"\n")),
        Bad("bare LF after the first line", good.replace(b"1.1\r\n", b"1.1\n")),
        Bad("bare LF after a field", good.replace(b"localhost\r\n", b"localhost\n")),
        Bad("bare LF after the last field", good.replace(b"y\r\n", b"y\n")),
        Bad("bare LF as the end of the head", good[:-2] + b"\n"),
        Bad("bare CR everywhere", good.replace(b"\r\n", b"\r") + b"\r\n\r\n"),
        Bad("bare CR after a field", good.replace(b"localhost\r\n", b"localhost\r")),
        Bad("CR CR LF", good.replace(b"localhost\r\n", b"localhost\r\r\n")),
        Bad("LF CR", good.replace(b"localhost\r\n", b"localhost\n\r")),
        Bad("fold by a space", _head(b"X: y", b" z")),
        Bad("fold by a tab", _head(b"X: y", b"\tz")),
        Bad("fold of the first field", _head(b" z")),
        Bad("fold of nothing", _head(b"X: y", b" ")),
        Bad(
            "a field that begins with a space",
            _head(first=b"GET /experiment/x HTTP/1.1", host=b" Host: localhost"),
        ),
        Bad("a field without a colon", _head(b"nonsense")),
        Bad("a field without a name", _head(b": y")),
        Bad("a colon alone", _head(b":")),
        Bad("space before the colon", _head(b"X : y")),
        Bad("tab before the colon", _head(b"X\t: y")),
        Bad("space in a name", _head(b"X Y: z")),
        Bad("Host with a space before the colon", _head(host=b"Host : localhost")),
        Bad("a second request line among the fields", _head(b"GET /experiment/y HTTP/1.1")),
    ]
    bad += [
        Bad(f"{byte!r} in a name", _head(b"X" + byte + b"Y: z"))
        for byte in (
            b"\0",
            b"\x01",
            b"\x0b",
            b"\x1f",
            b"\x7f",
            b"\x80",
            b"\xff",
            *(bytes([c]) for c in b'"(),/;<=>?@[\\]{}'),
        )
    ]
    bad += [
        Bad(f"{byte!r} in a value", _head(b"X: y" + byte + b"z"))
        for byte in (b"\0", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f", b"\r")
    ]
    bad += [
        Bad(f"{byte!r} at the end of a value", _head(b"X: y" + byte))
        for byte in (b"\0", b"\x0b", b"\r", b"\x7f")
    ]
    return bad


def _first_lines() -> list[Bad]:
    """The request line."""
    lines = [
        b"/experiment/x HTTP/1.1", b" GET /experiment/x HTTP/1.1", b"GET  /experiment/x HTTP/1.1",
        b"GET /experiment/x  HTTP/1.1", b"GET\t/experiment/x HTTP/1.1", b"GET /experiment/x\tHTTP/1.1",
        b"GET\x0b/experiment/x HTTP/1.1", b"GET /experiment/x\x0cHTTP/1.1", b"GET /experiment/x HTTP/1.1 ",
        b"GET /experiment/x HTTP/1.1\t", b"GET /experiment/a b HTTP/1.1", b"GET /experiment/x", b"GET",
        b"GET ", b"GET HTTP/1.1",
        b"GET  HTTP/1.1", b"GET /experiment/x ", b"G@ET /experiment/x HTTP/1.1", b"G\0ET /experiment/x HTTP/1.1",
        b"G(T /experiment/x HTTP/1.1", b"GET: /experiment/x HTTP/1.1", b'"GET" /experiment/x HTTP/1.1',
        b"G\xc3\x84T /experiment/x HTTP/1.1", b"GET /experiment/\0 HTTP/1.1", b"GET /experiment/\x01 HTTP/1.1",
        b"GET /experiment/\x7f HTTP/1.1", b"GET /experiment/\r HTTP/1.1", b"GET /experiment/\xc3\xa4 HTTP/1.1",
        b"GET /experiment/\x80 HTTP/1.1", b"GET /experiment/x#fragment HTTP/1.1", b"GET experiment/x HTTP/1.1",
        b"GET ?x HTTP/1.1", b"GET * HTTP/1.1", b"GET \\experiment\\x HTTP/1.1", b"GET #/experiment/x HTTP/1.1",
        b"\xef\xbb\xbfGET /experiment/x HTTP/1.1",
    ]  # fmt: skip
    bad = [Bad(f"line {line!r}", _head(first=line)) for line in lines]
    versions = [
        b"HTTP/1.", b"HTTP/1", b"HTTP/", b"HTTP", b"http/1.1", b"Http/1.1", b"HTTP/11", b"HTTP/1.10",
        b"HTTP/01.1", b"HTTP/1.01",
        b"HTTP/1.1x", b"HTTP/ 1.1", b"HTTP /1.1", b"HTTP/1,1", b"HTTP/+1.1", b"HTTP/-1.1", b"HTTP/1.-1", b"HTTP/0.9",
        b"HTTP/1.2", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/9.9", b"ICY/1.1", b"RTSP/1.0", b"XTTP/1.1", b"HTTP/1.1\0",
        b"HTTP/\xb9.1",
    ]  # fmt: skip
    bad += [
        Bad(f"version {version!r}", _head(first=b"GET /experiment/x " + version), VERSION)
        for version in versions
    ]
    bad += [
        Bad("HTTP/0.9", b"GET /experiment/x\r\n\r\n"),
        Bad("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
        Bad("TLS", bytes.fromhex("16030100b4010000b0030365") + b"a" * 60 + b"\r\n\r\n"),
        Bad("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        Bad("noise", bytes(range(256)) + b"\r\n\r\n"),
    ]
    return bad


def _hosts() -> list[Bad]:
    """Whom is it for?"""
    bad = [
        Bad("no Host", _head(host=b"")),
        Bad("two Hosts", _head(b"Host: ledger"), HOST),
        Bad("the same Host twice", _head(b"Host: localhost"), HOST),
        Bad("two Hosts in two spellings", _head(b"hOST: localhost"), HOST),
    ]
    values = [
        b"", b"a b", b"localhost, evil.example", b"localhost localhost", b"localhost/", b"localhost/x", b"user@localhost",
        b"http://localhost", b"localhost:abc", b"localhost:-1", b"localhost:+80", b"localhost:80:80",
        b"localhost:8 0", b"[::1", b"::1", b"[localhost]", b"[::1]x", b"[::1%25lo]x", b"localhost#",
        b"localhost?", b"localhost\\",
        b"localhost\0", b"local\x01host", b"localhost\x7f", b"l\xc3\xb6calhost", b"local\thost",
        b"localhost:0x50", b"<localhost>",
        b"loc%61lhost", b"localhost;", b'"localhost"', b"127.0.0.1.evil.example", b"localhost.evil.example", b"evil.example",
        b"evil.example:80", b"experiment.disco.localhost.evil.example", b"127.0.0.1@evil.example", b"0.0.0.0", b"2130706433",
        b"127.1", b"0x7f.1", b"10.0.0.1", b"[::]", b"[2001:db8::1]", b".localhost", b"localhost..", b"169.254.169.254",
    ]  # fmt: skip
    bad += [Bad(f"Host {value!r}", _head(host=b"Host: " + value), HOST) for value in values]
    absolute = [
        (b"http://experiment/x", b"ledger", HOST),
        (b"http://experiment/x", b"evil.example", HOST),
        (b"http://experiment:80/x", b"experiment:81", HOST),
        (b"http://evil.example/x", b"evil.example", (400, 403, 421)),
        (b"http://evil.example/x", b"localhost", (400, 403, 421)),
        (b"http://127.0.0.1:1/x", b"127.0.0.1:1", (400, 403, 404, 421)),
        (b"http://user@experiment/x", b"experiment", SYNTAX),
        (b"http://user:secret@experiment/x", b"experiment", SYNTAX),
        (b"http://evil.example@experiment/x", b"experiment", SYNTAX),
        (b"http://experiment@evil.example/x", b"evil.example", (400, 403, 421)),
        (b"http://experiment:80:80/x", b"experiment", SYNTAX),
        (b"http://experiment:x/x", b"experiment", SYNTAX),
        (b"http://exper%69ment/x", b"experiment", (400, 403, 421)),
        (b"http://experiment\\x/x", b"experiment", (400, 403, 421)),
        (b"http:///x", b"experiment", SYNTAX),
        (b"http:/experiment/x", b"experiment", SYNTAX),
        (b"http:experiment/x", b"experiment", SYNTAX),
        (b"http://experiment/x#y", b"experiment", SYNTAX),
        (b"https://experiment/x", b"experiment", (400, 403, 421, 501)),
        (b"ftp://experiment/x", b"experiment", (400, 403, 421, 501)),
        (b"file:///etc/passwd", b"localhost", (400, 403, 421, 501)),
        (b"javascript:alert(1)", b"localhost", (400, 403, 421, 501)),
    ]
    bad += [
        Bad(
            f"{target!r} for Host {host!r}",
            _head(first=b"GET " + target + b" HTTP/1.1", host=b"Host: " + host),
            statuses,
        )
        for target, host, statuses in absolute
    ]
    bad.append(Bad("absolute-form without Host", _head(first=b"GET http://experiment/x HTTP/1.1", host=b"")))
    connects = [
        b"experiment:80",
        b"experiment",
        b"127.0.0.1:22",
        b"/experiment/x",
        b"http://experiment/x",
        b"evil.example:443",
    ]
    bad += [
        Bad(f"CONNECT {target!r}", _head(first=b"CONNECT " + target + b" HTTP/1.1"), (400, 405))
        for target in connects
    ]
    return bad


def _chunks() -> list[Bad]:
    """Bodies that are not what their head promises."""
    sizes = [
        b"0x4", b"+4", b"-4", b" 4", b"4 ", b"4\t", b"\t4", b"4_", b"g", b"4g", b"", b"4.",
        b"FFFFFFFFFFFFFFFFF", b"10000000000000004",
        b"100000000000000000000000000000004", b"0" * 20_000 + b"4", b"4\0", b"\x0b4", b"4\x0b",
        b"\xef\xbc\x94", b"4;a\rb", b"4;a\nb",
        b"4;a\0b", b"4;a\x01b", b"4;a\x7fb", b"4\r", b"4\r;a", b"4,a", b"4 a", b"4;" + b"a" * 70_000,
    ]  # fmt: skip
    bad = [
        Bad(f"chunk size {size[:24]!r}", _posted(_TE, body=size + b"\r\nabcd\r\n0\r\n\r\n"), LARGE)
        for size in sizes
    ]
    bodies = {
        "size ends by LF": b"4\nabcd\r\n0\r\n\r\n",
        "size ends by CR": b"4\rabcd\r\n0\r\n\r\n",
        "data without its end": b"4\r\nabcd0\r\n\r\n",
        "data longer than its size": b"4\r\nabcdef\r\n0\r\n\r\n",
        "data shorter than its size": b"4\r\nabc\r\n0\r\n\r\n",
        "data ends by LF": b"4\r\nabcd\n0\r\n\r\n",
        "data ends by CR": b"4\r\nabcd\r0\r\n\r\n",
        "data ends by two other bytes": b"4\r\nabcdXX0\r\n\r\n",
        "data ends by LF CR": b"4\r\nabcd\n\r0\r\n\r\n",
        "last chunk ends by LF": b"4\r\nabcd\r\n0\n\r\n",
        "body ends by LF": b"4\r\nabcd\r\n0\r\n\n",
        "body ends by CR and another byte": b"4\r\nabcd\r\n0\r\n\rX",
        "trailer without a colon": b"4\r\nabcd\r\n0\r\nnonsense\r\n\r\n",
        "trailer without a name": b"4\r\nabcd\r\n0\r\n: x\r\n\r\n",
        "trailer with a space before the colon": b"4\r\nabcd\r\n0\r\nX : y\r\n\r\n",
        "trailer that is folded": b"4\r\nabcd\r\n0\r\nX: y\r\n z\r\n\r\n",
        "trailer that ends by LF": b"4\r\nabcd\r\n0\r\nX: y\n\r\n",
        "trailer with a NUL": b"4\r\nabcd\r\n0\r\nX: y\0z\r\n\r\n",
        "trailer with a bare CR": b"4\r\nabcd\r\n0\r\nX: y\rz\r\n\r\n",
        "trailers without end": b"4\r\nabcd\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        "a request where a chunk should be": b"GET /experiment/y HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }
    bad += [Bad(name, _posted(_TE, body=body), LARGE) for name, body in bodies.items()]
    return bad


BAD: tuple[Bad, ...] = (*_framing(), *_lines(), *_first_lines(), *_hosts())
"""Refused by their head alone."""

BAD_BODIES: tuple[Bad, ...] = tuple(_chunks())
"""Refused by a body that came with the head."""

GOOD: tuple[Good, ...] = (
    Good("a GET", _head()),
    Good("a GET of HTTP/1.0", _head(first=b"GET /experiment/x HTTP/1.0")),
    Good("an unknown method", _head(first=b"PROPFIND /experiment/x HTTP/1.1")),
    Good("a POST with a length", _posted(_CL4, body=b"abcd"), b"abcd"),
    Good("a POST with a length of HTTP/1.0", _posted(_CL4, body=b"abcd", version=b"1.0"), b"abcd"),
    Good("a POST of nothing", _posted(b"Content-Length: 0")),
    Good("a POST in chunks", _posted(_TE, body=_CHUNKS), b"abcd"),
    Good("a POST in chunks, spelt otherwise", _posted(b"tRANSFER-eNCODING: Chunked", body=_CHUNKS), b"abcd"),
    Good("chunks with an extension", _posted(_TE, body=b'4;a=b;c="d"\r\nabcd\r\n0;e\r\n\r\n'), b"abcd"),
    Good("chunks with zeros in front", _posted(_TE, body=b"0004\r\nabcd\r\n000\r\n\r\n"), b"abcd"),
    Good("chunks in capital letters", _posted(_TE, body=b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    Good("chunks with a trailer", _posted(_TE, body=b"4\r\nabcd\r\n0\r\nX-Sum: 1\r\n\r\n"), b"abcd"),
    Good("a length with spaces around it", _posted(b"Content-Length: \t 4 \t ", body=b"abcd"), b"abcd"),
    Good("a GET with a body", _head(_CL4) + b"abcd", b"abcd"),
    Good("an empty value", _head(b"X:")),
    Good("a value with tabs and Latin-1", _head(b"X: a\tb \xe4\xf6")),
    Good("a Host with a port", _head(host=b"Host: 127.0.0.1:7500")),
    Good("a Host of IPv6", _head(host=b"Host: [::1]:7500")),
    Good("a Host in capital letters", _head(host=b"Host: LOCALHOST")),
    Good("many fields", _head(*(b"X-%d: y" % number for number in range(90)))),
)
