"""The first line of a response, what may stand before it, and what is no response at all."""

from __future__ import annotations

import pytest

from .conftest import Duel
from .plays import Act, bytewise, whole

REST = b"\r\nContent-Length: 1\r\n\r\nx"

LINES = {
    "plain": b"HTTP/1.1 200 OK",
    "a reason of several words": b"HTTP/1.1 200 All is  well",
    "an empty reason": b"HTTP/1.1 200 ",
    "no reason": b"HTTP/1.1 200",
    "a latin-1 reason": b"HTTP/1.1 200 tr\xe8s bien",
    "a utf-8 reason": "HTTP/1.1 200 \u597d".encode(),
    "a reason with a tab": b"HTTP/1.1 200 a\tb",
    "spaces behind": b"HTTP/1.1 200 OK  ",
    "spaces between": b"HTTP/1.1  200  OK",
    "a tab between": b"HTTP/1.1\t200\tOK",
    "a NUL in the reason": b"HTTP/1.1 200 a\x00b",
    "a control character in the reason": b"HTTP/1.1 200 a\x01b",
    "a bare CR in the reason": b"HTTP/1.1 200 a\rb",
    "a long reason": b"HTTP/1.1 200 " + b"r" * 10_000,
    "HTTP/1.0": b"HTTP/1.0 200 OK",
    "HTTP/1.2": b"HTTP/1.2 200 OK",
    "HTTP/1.9": b"HTTP/1.9 200 OK",
    "HTTP/0.9": b"HTTP/0.9 200 OK",
    "HTTP/2.0": b"HTTP/2.0 200 OK",
    "HTTP/2": b"HTTP/2 200 OK",
    "HTTP/1": b"HTTP/1 200 OK",
    "HTTP/1.": b"HTTP/1. 200 OK",
    "HTTP/1.10": b"HTTP/1.10 200 OK",
    "HTTP/01.1": b"HTTP/01.1 200 OK",
    "HTTP/11": b"HTTP/11 200 OK",
    "small letters": b"http/1.1 200 OK",
    "HTTPS": b"HTTPS/1.1 200 OK",
    "ICY": b"ICY 200 OK",
    "RTSP": b"RTSP/1.0 200 OK",
    "ICE": b"ICE/1.0 200 OK",
    "a space before": b" HTTP/1.1 200 OK",
    "a byte order mark": b"\xef\xbb\xbfHTTP/1.1 200 OK",
    "a CRLF before": b"\r\nHTTP/1.1 200 OK",
    "three CRLFs before": b"\r\n\r\n\r\nHTTP/1.1 200 OK",
    "an LF before": b"\nHTTP/1.1 200 OK",
    "a CR before": b"\rHTTP/1.1 200 OK",
    "a NUL before": b"\x00HTTP/1.1 200 OK",
    "garbage before": b"xHTTP/1.1 200 OK",
    "a line before": b"junk\r\nHTTP/1.1 200 OK",
    "no version": b"200 OK",
    "no status": b"HTTP/1.1",
    "no status, a space": b"HTTP/1.1 ",
    "a request": b"GET / HTTP/1.1",
}

NONE = {
    "nothing": b"",
    "a CRLF": b"\r\n",
    "an LF": b"\n",
    "100 CRLFs": b"\r\n" * 100,
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a line of text": b"hello\r\n",
    "a page": b"<html><body>HTTP/0.9</body></html>\r\n\r\n",
    "zeros": bytes(1000),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "an HTTP/2 GOAWAY": b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a word": b"HTT",
    "a line without an end": b"HTTP/1.1 200 OK",
    "100 kB of one line": b"HTTP/1.1 200 " + b"x" * 100_000,
    "200 kB of garbage": b"x" * 200_000,
}


@pytest.mark.parametrize("name", LINES)
def test_a_status_line(duel: Duel, name: str) -> None:
    duel(f"line: {name}", whole(LINES[name] + REST, Act.SHUT))


@pytest.mark.parametrize(
    "name", ["plain", "an empty reason", "no reason", "a CRLF before", "HTTP/1.0", "a latin-1 reason"]
)
def test_a_status_line_a_byte_at_a_time_and_the_connection_stays(duel: Duel, name: str) -> None:
    duel(f"line: {name}, bytewise", whole(*bytewise(LINES[name] + REST)))


def test_bare_line_feeds_everywhere(duel: Duel) -> None:
    duel("bare LFs", whole(b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", Act.SHUT))
    duel("bare LF behind the status line", whole(b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx", Act.SHUT))
    duel("bare LF at the end", whole(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\nx", Act.SHUT))


@pytest.mark.parametrize("end", [Act.SHUT, Act.RESET])
@pytest.mark.parametrize("name", NONE)
def test_what_is_no_response(duel: Duel, name: str, end: Act) -> None:
    duel(f"none: {name}, {end.name}", whole(*([NONE[name]] if NONE[name] else []), end))
