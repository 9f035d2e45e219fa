"""The heads that we write: to an instance, and to the client. Made anew, never copied."""

from __future__ import annotations

from .answer import AnswerReader
from .reading import Message

__all__ = ["ALIAS", "answer_head", "forwarding", "greeting", "request_head", "signature"]

ALIAS = b"disco-sidecar"
"""What we are called in ``Via`` (RFC 9110, 7.6.3)."""


def forwarding(client: str, host: bytes, prefix: bytes, minor: int) -> bytes:
    """The lines that say for whom a request is forwarded (RFC 7239, and what was there before it)."""
    node = f'"[{client}]"' if ":" in client else client
    quoted = b'"%b"' % host if b":" in host or b"[" in host else host
    lines = [
        b"X-Forwarded-For: %b\r\n" % client.encode(),
        b"X-Real-IP: %b\r\n" % client.encode(),
        b"X-Forwarded-Proto: http\r\n",
        b"Forwarded: for=%b;%bproto=http\r\n" % (node.encode(), b"host=%b;" % quoted if host else b""),
        b"Via: 1.%d %b\r\n" % (minor, ALIAS),
    ]
    if host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % host)
    if prefix:
        lines.append(b"X-Forwarded-Prefix: %b\r\n" % prefix)
    return b"".join(lines)


def greeting(expectation: bytes | None) -> bytes:
    """The line that says whom a request is meant for; none for instances that nobody has named."""
    return b"" if expectation is None else b"X-Disco-Expect: %b\r\n" % expectation


def signature(instance: bytes, attempts: int) -> bytes:
    """The end of an answer's head: who has answered, and how many were asked."""
    return b"Via: 1.1 %b\r\nX-Disco-Instance: %b\r\nX-Disco-Attempts: %d\r\n\r\n" % (
        ALIAS,
        instance,
        attempts,
    )


def request_head(
    message: Message,
    target: bytes,
    host: bytes,
    forwarded: bytes,
    greeting: bytes,
    attempt: int = 1,
    deadline: int | None = None,
) -> bytes:
    """*message* as it is sent to an instance. *deadline*: milliseconds that the caller will still wait."""
    fields = message.fields
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b" % (
        message.method,
        target,
        host,
        fields.passed,
        forwarded,
        greeting,
    )
    if fields.is_bare and attempt == 1 and deadline is None:
        return head + b"\r\n"
    if attempt > 1:
        head += b"X-Disco-Attempt: %d\r\n" % attempt
    if deadline is not None:
        head += b"X-Disco-Deadline: %d\r\n" % deadline
    if fields.length is not None:
        head += b"Content-Length: %d\r\n" % fields.length
    elif fields.is_chunked:
        head += b"Transfer-Encoding: chunked\r\n"
    if fields.expect is not None and message.minor:
        head += b"Expect: 100-continue\r\n"
    if message.wants_tunnel:
        head += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % (fields.upgrade or b"")
    return head + b"\r\n"


def answer_head(
    answer: AnswerReader, *, is_chunked: bool, is_closing: bool, is_old: bool, signature: bytes
) -> bytes:
    """*answer* as it is sent to the client. *is_old*: to one of HTTP/1.0, who has to be told that we go on."""
    if is_chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif answer.is_switched:
        framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % answer.upgrade
    else:
        framing = b""
    if is_closing:
        framing += b"Connection: close\r\n"
    elif is_old:
        framing += b"Connection: keep-alive\r\n"
    return answer.opening + framing + signature
