"""Where we do otherwise than httpx, and why: the only differences that are let through.

Each is stricter (it refuses what httpx reads, or gives up a connection that httpx keeps) or as good (`How.KEEPS`). A case that
is named here must differ in exactly this way; one that no longer differs has to go.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["STRICTER", "How", "Stricter", "allowed"]


class How(enum.Enum):
    REFUSES = "an error where httpx takes the response for good"
    CLOSES = "the same answer, and the connection is not used again"
    FRAMES_ONCE = "the same request and answer, without the Content-Length that httpx sends beside the chunks"
    CALLS_IT = "another error of httpx than httpx raises"
    KEEPS = (
        "the same answer or error, the body read to its end, and its connection is used for another request"
    )
    GIVES_LESS = "the same error, and less of the body before it"


@dataclass(frozen=True, slots=True)
class Stricter:
    """``error``: ours, for `How.REFUSES` and `How.CALLS_IT`. ``everywhere``: it is so whichever engine carries requests."""

    how: How
    why: str
    error: str = "RemoteProtocolError"
    everywhere: bool = False


def allowed(case: str, way: str, *, is_native: bool) -> Stricter | None:
    """What the table lets through for *case*, by its name alone or for one way to wait: ``a case [asyncio]``."""
    found = STRICTER.get(f"{case} [{way}]") or STRICTER.get(case)
    return found if found is not None and (is_native or found.everywhere) else None


_GROUPS: list[tuple[Stricter, list[str]]] = [
    (
        Stricter(
            How.KEEPS,
            "httpx finds the fault while it decodes; we have read the whole body by then, and httpx has not",
            everywhere=True,
        ),
        ["coded: broken gzip", "coded: a wrong checksum", "coded: broken deflate", "coded in chunks: broken gzip"],
    ),
    (
        Stricter(How.REFUSES, "a length said twice, or as a list: a proxy before us may have read another one"),
        [
            *(f"length: {name}" for name in ("twice the same", "a list of the same", "a list without spaces")),
            "length: a list of three, apart",
            "length: twice the same, stays",
            "length: a list of the same, stays",
        ],
    ),
    (
        Stricter(How.REFUSES, "a length and chunks: request smuggling looks like this (RFC 9112, 6.3: ought to be an error)"),
        [
            *(f"both: {name}" for name in ("the length first", "chunked first", "a wrong length", "length 0")),
            *(f"both: {name} SHUT" for name in ("the length first", "chunked first", "a wrong length", "length 0")),
        ],
    ),
    (
        Stricter(How.REFUSES, "folded headers and bare line feeds: obsolete, and read in two ways (RFC 9112, 2.2 and 5.2)"),
        [
            "header: a space before the first name",
            *(f"header: a folded value{more}" for more in ("", ", the first", ", bytewise")),
            "header: a value folded by a tab",
            "header: a value folded twice",
            "header: an empty fold",
            "header: an empty fold, bytewise",
            "header: a folded length",
            *(f"header: bare LF{more}" for more in ("", " twice", ", the first", ", bytewise")),
            "bare LFs",
            "bare LF behind the status line",
            "bare LF at the end",
            "chunked: a folded trailer",
            "chunked: bare LF at the end",
        ],
    ),
    (
        Stricter(How.REFUSES, "control characters in a value (RFC 9110, 5.5)"),
        [f"header: {name}" for name in ("a control character", "an escape", "a DEL")],
    ),
    (
        Stricter(How.REFUSES, "chunk sizes and extensions that the grammar does not have (RFC 9112, 7.1)"),
        [
            *(f"chunked: {name}" for name in ("a bare semicolon", "a space behind", "a tab behind", "NUL in an extension")),
            "chunked: bare CR in an extension",
            "chunked: an open quote",
        ],
    ),
    (
        Stricter(How.REFUSES, "a version that is none of HTTP/1.0 and HTTP/1.1"),
        [f"line: HTTP/{version}" for version in ("1.2", "1.9", "0.9", "2.0")],
    ),
    (Stricter(How.REFUSES, "the head's size has a limit, and this is behind it"), ["a header of 110000"]),
    (
        Stricter(How.REFUSES, "control characters in the reason (RFC 9112, 4)"),
        ["line: a control character in the reason"],
    ),
    (
        Stricter(How.CALLS_IT, "what came is no HTTP, which is seen before the reset is"),
        ["none: a line of text, RESET", "none: an SSH banner, RESET"],
    ),
    (
        Stricter(How.GIVES_LESS, "the head is refused as it is read, and httpx hands out what it takes for the body"),
        ["length: 2 ** 64 + 12", "length: 20 digits", "chunked: 2 ** 64 + 4"],
    ),
    (
        Stricter(How.FRAMES_ONCE, "two words on where the body ends are one too many (RFC 9112, 6.2)"),
        [f"sent: {name}" for name in ("a length and chunked", "chunked", "Chunked")],
    ),
]  # fmt: skip

STRICTER: Mapping[str, Stricter] = {case: each for each, cases in _GROUPS for case in cases}
"""By the case's name, as the tests have it."""
