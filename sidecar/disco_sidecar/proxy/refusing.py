"""Answers in our own name: what is wrong, with which service, what is known of it, and what was tried."""

from __future__ import annotations

import json
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

from discoclient.calling.steps import End

from ..http.heads import ALIAS
from ..http.refusal import Refused
from .services import RETRY_AFTER, Service

__all__ = ["refusal_head_and_body", "refusal_of"]


def refusal_of(end: End, service: Service, tried: Sequence[str]) -> Refused:
    """For a call that ended without an answer to pass on. *tried*: the failed attempts."""
    name = service.name
    if end is End.NO_INSTANCES:
        return Refused(
            503,
            "no_instances",
            f"service {name!r} has no instance that may be called",
            retry_after=RETRY_AFTER,
        )
    if end is End.THROTTLED:
        text = f"service {name!r} refuses most requests of late, so this one was not sent"
        return Refused(503, "throttled", text, retry_after=RETRY_AFTER)
    if end is End.EXPIRED or (tried and "deadline" in tried[-1]):
        return Refused(504, "deadline", f"the caller's deadline passed before service {name!r} had answered")
    last = tried[-1] if tried else "nothing was tried"
    if "timeout" in last or "timed out" in last:
        return Refused(504, "timeout", f"service {name!r} did not answer in time")
    return Refused(502, "no_answer", f"no instance of service {name!r} gave an answer")


def refusal_head_and_body(
    refusal: Refused,
    service: Service | None,
    tried: Sequence[str],
    *,
    wants_json: bool,
    is_head: bool,
    is_closing: bool,
) -> bytes:
    """The whole response."""
    facts: dict[str, Any] = {"error": refusal.reason, "status": int(refusal.status), "detail": refusal.text}
    if service is not None:
        facts |= {"service": service.name, **service.knowledge()}
    if tried:
        facts["tried"] = list(tried)
    if wants_json:
        body, kind = json.dumps(facts).encode() + b"\n", b"application/json"
    else:
        body, kind = _as_text(facts).encode(), b"text/plain; charset=utf-8"
    lines = [
        b"HTTP/1.1 %d %b" % (refusal.status, refusal.status.phrase.encode()),
        b"Date: %b" % formatdate(usegmt=True).encode(),
        b"Content-Type: %b" % kind,
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"X-Disco-Error: %b" % refusal.reason.encode(),
        b"X-Disco-Attempts: %d" % len(tried),
        b"Via: 1.1 %b" % ALIAS,
    ]
    if refusal.retry_after is not None:
        lines.append(b"Retry-After: %d" % refusal.retry_after)
    if refusal.status == 405:
        lines.append(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
    if is_closing:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if is_head else body)


def _as_text(facts: dict[str, Any]) -> str:
    lines = [f"disco-sidecar: {facts['detail']}"]
    if "instances" in facts:
        known, age = facts["instances"], facts["age"]
        what = "nothing is known of it" if known is None else f"{known} registered"
        when = "never confirmed by the registry" if age is None else f"as the registry said {age:.1f} s ago"
        lines.append(f"service {facts['service']}: {what}, {when} ({facts['phase']})")
    lines += [f"tried {attempt}" for attempt in facts.get("tried", ())]
    return "\n".join(lines) + "\n"
