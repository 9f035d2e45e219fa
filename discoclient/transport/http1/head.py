"""The head of a response, as it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Field", "Head"]

Field: TypeAlias = tuple[bytes, bytes]
"""A name, cased as it came, and a value."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Of one response. The same object comes while the same bytes do: what is worked out from it can be kept.

    ``version``: ``b"HTTP/1.1"``. ``length``: what ``Content-Length`` says. ``is_persistent``: whether the connection goes on
    after the body.
    """

    status: int
    reason: bytes
    version: bytes
    fields: tuple[Field, ...]
    length: int | None
    is_chunked: bool
    is_persistent: bool
