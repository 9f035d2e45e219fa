"""The fields of a request's head: checked, and divided into what we act on and what is passed on.

What is passed on is everything but: the fields between two neighbours (RFC 9110, 7.6.1), those that a ``Connection`` field
names, ``Host`` and the framing (which are written anew), the forwarding fields (which are ours to write: what a client says of
itself is not to be trusted), ``X-Disco-*``, and names with ``_``, which CGI and WSGI can't tell from ``-``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .refusal import Refused

__all__ = ["MOST_FIELDS", "NOT_IN_RESPONSES", "NOT_IN_TRAILERS", "Fields", "pass_on", "read_fields"]

MOST_FIELDS = 100
"""Fields of one head."""
MOST_KNOWN = 2048
"""Lines that are remembered, and how long they may be: half a megabyte at most, and what is beyond is only read again."""
MOST_KNOWN_LINE = 200

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_NO_TUNNEL = (b"h2c", b"tls/", b"http/")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_NAME = re.compile(_TOKEN)

_NEIGHBOURS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_WRITTEN_ANEW = frozenset({b"host", b"content-length", b"forwarded", b"via", b"x-real-ip", b"expect"})
_NOT_PASSED = _NEIGHBOURS | _WRITTEN_ANEW
NOT_IN_RESPONSES = _NEIGHBOURS | {
    b"content-length",
    b"x-disco-instance",
    b"x-disco-attempts",
    b"x-disco-error",
}
"""Fields of a response that are not passed on as they are."""
_OURS = (b"x-disco-", b"x-forwarded-")
_NEVER_NOMINATED = frozenset({b"host", b"content-length", b"transfer-encoding"})
_TELLING = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"expect",
        b"origin",
        b"sec-fetch-site",
        b"accept",
        b"x-disco-attempt",
        b"x-disco-deadline",
    }
)
_SINGLE = _TELLING - {b"connection", b"accept"}
NOT_IN_TRAILERS = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"max-forwards",
        b"pragma",
        b"range",
        b"set-cookie",
    }
)
"""What would change the meaning of a message that has been acted on (RFC 9110, 6.5.1), beside what is never passed on."""


class Fields(NamedTuple):
    """What a head's fields say. Byte strings as they came, but for names and keywords, which are in lower case.

    A named tuple, because one is made for nearly every request, and they are made in a fraction of the time. ``length``: the
    ``Content-Length``. ``attempt`` and ``deadline`` (milliseconds): what a caller that uses the SDK says of its call.
    ``passed``: the lines to pass on. ``is_closing`` and ``is_keeping``: what HTTP/1.1 and HTTP/1.0 go by. ``is_switching``: it
    asks for another protocol, and not for h2c, whose requests would pass us unseen. ``is_bare``: there is nothing to add to
    ``passed``.
    """

    host: bytes | None
    length: int | None
    is_chunked: bool
    has_body: bool
    is_closing: bool
    is_keeping: bool
    is_switching: bool
    upgrade: bytes | None
    expect: bytes | None
    origin: bytes | None
    site: bytes | None
    accept: bytes
    attempt: int
    deadline: int | None
    passed: bytes
    is_bare: bool


class _Line(NamedTuple):
    """One line, understood. ``passed``: what of it is passed on. ``is_telling``: whether we act on it."""

    name: bytes
    value: bytes
    passed: bytes
    is_telling: bool


def read_fields(block: bytes) -> Fields:
    """The fields in *block*: complete lines, without the empty one. Raises `Refused`."""
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > MOST_FIELDS:
        raise Refused(431, "too_many_fields", f"more than {MOST_FIELDS} header fields", is_final=True)
    found: dict[bytes, bytes] = {}
    read: list[_Line] = []
    for text in lines:
        line = _known.get(text) or _read_line(text, "header")
        read.append(line)
        if line.is_telling:
            name, value = line.name, line.value
            if name not in found:
                found[name] = value
            elif name in _SINGLE:
                raise Refused.bad(f"more than one {name.decode()} field")
            elif name == b"connection":
                found[name] += b"," + value
    get = found.get
    connection = _options(get(b"connection"))
    if connection:
        if connection & _NEVER_NOMINATED:
            raise Refused.bad("a Connection field must not name Host or the framing")
        read = [line for line in read if line.name not in connection]
    length, is_chunked, upgrade = _length(get(b"content-length")), _is_chunked(found), get(b"upgrade")
    is_closing = b"close" in connection
    is_switching = upgrade is not None and b"upgrade" in connection and _is_tunnelled(upgrade)
    return Fields(
        _host(get(b"host")),
        length,
        is_chunked,
        is_chunked or bool(length),
        is_closing,
        b"keep-alive" in connection and not is_closing,
        is_switching,
        upgrade,
        get(b"expect"),
        get(b"origin"),
        get(b"sec-fetch-site"),
        get(b"accept", b""),
        _number(get(b"x-disco-attempt")) or 1,
        _number(get(b"x-disco-deadline")),
        b"".join([line.passed for line in read]),
        length is None and not is_chunked and not is_switching and b"expect" not in found,
    )


def pass_on(block: bytes) -> bytes:
    """Those lines of a trailer section that may be passed on. Raises `Refused`."""
    if not block:
        return b""
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > MOST_FIELDS:
        raise Refused(431, "too_many_fields", f"more than {MOST_FIELDS} trailer fields", is_final=True)
    read = [_read_line(line, "trailer") for line in lines]
    return b"".join([line.passed for line in read if line.name not in NOT_IN_TRAILERS])


# Clients repeat themselves and each other: what a line means is found out once. Read by one thread alone.
_known: dict[bytes, _Line] = {}


def _read_line(text: bytes, what: str) -> _Line:
    """Raises `Refused`."""
    if _LINE.fullmatch(text) is None:
        raise Refused.bad(_complaint(text, what))
    raw, _, value = text.partition(b":")
    name = raw.lower()
    is_dropped = name in _NOT_PASSED or b"_" in name or name.startswith(_OURS)
    line = _Line(name, value.strip(b" \t"), b"" if is_dropped else text + b"\r\n", name in _TELLING)
    if len(text) <= MOST_KNOWN_LINE:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[text] = line
    return line


def _options(value: bytes | None) -> frozenset[bytes]:
    if not value:
        return frozenset()
    options = frozenset(option for part in value.lower().split(b",") if (option := part.strip(b" \t")))
    for option in options:
        if _NAME.fullmatch(option) is None:
            raise Refused.bad("the Connection field is malformed")
    return options


def _host(value: bytes | None) -> bytes | None:
    if value is not None and _HOST.fullmatch(value) is None:
        raise Refused.bad("the Host field is not a host")
    return value


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if _LENGTH.fullmatch(value) is None:
        raise Refused.bad("the Content-Length is not a number")
    return int(value)


def _is_chunked(found: dict[bytes, bytes]) -> bool:
    coding = found.get(b"transfer-encoding")
    if coding is None:
        return False
    if b"content-length" in found:
        raise Refused.bad("both Content-Length and Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise Refused.bad("the only Transfer-Encoding that is understood is chunked")
    return True


def _is_tunnelled(upgrade: bytes) -> bool:
    """Whether all the protocols that are offered are such that may pass through unseen."""
    return not any(each.strip(b" \t").startswith(_NO_TUNNEL) for each in upgrade.lower().split(b","))


def _number(value: bytes | None) -> int | None:
    """What the SDK writes; from others it is only an opinion, and nonsense is ignored."""
    return int(value) if value is not None and len(value) < 10 and value.isdigit() else None


def _complaint(line: bytes, what: str) -> str:
    """What is wrong with a line."""
    if line[:1] in (b" ", b"\t"):
        return f"a {what} field is folded over several lines"
    name, colon, _ = line.partition(b":")
    if not colon or _NAME.fullmatch(name) is None:
        return f"a {what} field's name is malformed"
    return f"a {what} field holds a control character or a bare line end"
