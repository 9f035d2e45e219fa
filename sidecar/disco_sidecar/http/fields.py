"""The fields of a request's head: checked, and divided into what we act on and what is passed on.

What is passed on is everything but: the fields between two neighbours (RFC 9110, 7.6.1), those that a ``Connection`` field
names, ``Host`` and the framing (which are written anew), the forwarding fields (which are ours to write: what a client says of
itself is not to be trusted), ``X-Disco-*``, and names with ``_``, which CGI and WSGI can't tell from ``-``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .refusal import Refused

__all__ = ["MOST_FIELDS", "NOT_IN_RESPONSES", "Fields", "pass_on", "read_fields"]

MOST_FIELDS = 100
"""Fields of one head."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_BLOCK = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
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
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What a head's fields say. Byte strings as they came, but for names and keywords, which are in lower case.

    ``length``: the ``Content-Length``. ``attempt`` and ``deadline``
    (milliseconds): what a caller that uses the SDK says of its call. ``passed``: the lines to pass on. ``is_closing`` and
    ``is_keeping``: what HTTP/1.1 and HTTP/1.0 go by. ``is_switching``: it asks for another protocol, and not for h2c, whose
    requests would pass us unseen.
    """

    host: bytes | None = None
    length: int | None = None
    is_chunked: bool = False
    upgrade: bytes | None = None
    expect: bytes | None = None
    origin: bytes | None = None
    site: bytes | None = None
    accept: bytes = b""
    attempt: int = 1
    deadline: int | None = None
    passed: bytes = b""
    has_body: bool = False
    is_closing: bool = False
    is_keeping: bool = False
    is_switching: bool = False


def read_fields(block: bytes) -> Fields:
    """The fields in *block*: complete lines, without the empty one. Raises `Refused`."""
    if _BLOCK.fullmatch(block) is None:
        raise Refused.bad(_complaint(block))
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > MOST_FIELDS:
        raise Refused(431, "too_many_fields", f"more than {MOST_FIELDS} header fields", is_final=True)
    found: dict[bytes, bytes] = {}
    pairs: list[tuple[bytes, bytes]] = []
    for line in lines:
        raw, _, value = line.partition(b":")
        name, value = raw.lower(), value.strip(b" \t")
        if name not in found:
            found[name] = value
        elif name in _SINGLE:
            raise Refused.bad(f"more than one {raw.decode()} field")
        elif name == b"connection":
            found[name] += b"," + value
        pairs.append((name, line))
    connection = _options(found.get(b"connection"))
    if connection & _NEVER_NOMINATED:
        raise Refused.bad("a Connection field must not name Host or the framing")
    dropped = _NOT_PASSED | connection if connection else _NOT_PASSED
    length, is_chunked, upgrade = (
        _length(found.get(b"content-length")),
        _is_chunked(found),
        found.get(b"upgrade"),
    )
    is_closing = b"close" in connection
    return Fields(
        host=_host(found.get(b"host")),
        length=length,
        is_chunked=is_chunked,
        has_body=is_chunked or bool(length),
        is_closing=is_closing,
        is_keeping=b"keep-alive" in connection and not is_closing,
        is_switching=upgrade is not None
        and b"upgrade" in connection
        and not upgrade.lower().startswith(_NO_TUNNEL),
        upgrade=upgrade,
        expect=found.get(b"expect"),
        origin=found.get(b"origin"),
        site=found.get(b"sec-fetch-site"),
        accept=found.get(b"accept", b""),
        attempt=_number(found.get(b"x-disco-attempt")) or 1,
        deadline=_number(found.get(b"x-disco-deadline")),
        passed=_join(pairs, dropped),
    )


def pass_on(block: bytes) -> bytes:
    """Those lines of a trailer section that may be passed on. Raises `Refused`."""
    if not block:
        return b""
    if _BLOCK.fullmatch(block) is None:
        raise Refused.bad(_complaint(block, "trailer"))
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > MOST_FIELDS:
        raise Refused(431, "too_many_fields", f"more than {MOST_FIELDS} trailer fields", is_final=True)
    return _join([(line.partition(b":")[0].lower(), line) for line in lines], _NOT_PASSED)


def _join(pairs: list[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> bytes:
    kept = [
        line + b"\r\n"
        for name, line in pairs
        if name not in dropped and b"_" not in name and not (name[0] == 120 and name.startswith(_OURS))
    ]
    return b"".join(kept)


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


def _number(value: bytes | None) -> int | None:
    """What the SDK writes; from others it is only an opinion, and nonsense is ignored."""
    return int(value) if value is not None and len(value) < 10 and value.isdigit() else None


def _complaint(block: bytes, what: str = "header") -> str:
    """What is wrong with a block that does not match, as far as it can be said in one line."""
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            return f"a {what} field is folded over several lines"
        name, colon, _ = line.partition(b":")
        if line and (not colon or _NAME.fullmatch(name) is None):
            return f"a {what} field's name is malformed"
    return f"a {what} field holds a control character or a bare line end"
