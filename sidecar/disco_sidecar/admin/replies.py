"""What is answered: status, headers, body. PURE."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .guard import METHODS, Refusal

__all__ = ["Later", "Reply", "as_json", "refuse", "text"]

_COMMON = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """``is_stream``: the body goes on for as long as the client listens; ``body`` is how it begins. ``closes``: the
    connection ends with it. ``policy``: what a browser may do with it.
    """

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    is_stream: bool = False
    closes: bool = False
    policy: str = "default-src 'none'; frame-ancestors 'none'"

    def all_headers(self) -> list[tuple[str, str]]:
        """Every header but those that say how the body is framed."""
        return [
            ("Content-Type", self.content_type),
            *_COMMON,
            ("Content-Security-Policy", self.policy),
            *self.headers,
        ]


@dataclass(frozen=True, slots=True)
class Later:
    """A reply that takes a while to make: *make* is called in a thread, and does not fail."""

    make: Callable[[], Reply]


def text(status: int, body: str, *, headers: tuple[tuple[str, str], ...] = (), closes: bool = False) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", f"{body}\n".encode(), headers, closes=closes)


def as_json(status: int, value: Any, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Plain ASCII, and without ``<``: whatever a service called itself, it is no markup even where somebody pastes it."""
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Reply(status, "application/json", body.encode() + b"\n", headers)


def refuse(refusal: Refusal) -> Reply:
    """The connection ends with it, except where it was only the wrong verb."""
    headers = (("Allow", ", ".join(METHODS)),) if refusal.status == 405 else ()
    return text(refusal.status, refusal.reason, headers=headers, closes=refusal.status not in (403, 405, 421))
