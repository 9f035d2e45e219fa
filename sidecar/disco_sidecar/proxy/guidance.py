"""Where the requests of one connection go, and for whom they are forwarded.

What was found out once holds while the client repeats itself.
"""

from __future__ import annotations

from ..http.heads import forwarding
from ..http.reading import Message
from ..routing import Aim, Way, admit, aim, aim_unusual

__all__ = ["Guidance"]

SLASH = ord("/")


class Guidance:
    """For one *way* in."""

    __slots__ = ("_admitted", "_forwarded", "_forwarded_for", "_named", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self._admitted: tuple[bytes | None, ...] | None = None
        self._named: str | None = None
        self._forwarded_for: tuple[bytes | None, bytes, int] | None = None
        self._forwarded = b""

    def aim(self, message: Message) -> Aim:
        """Raises `Refused`."""
        if message.target[0] != SLASH:
            return aim_unusual(message, self.way)
        fields = message.fields
        said = fields.host, fields.origin, fields.site
        if said != self._admitted:
            self._named = admit(fields, self.way)
            self._admitted = said
        return aim(message, self.way, self._named)

    def forwarded(self, message: Message, prefix: bytes, address: str) -> bytes:
        """The lines that say so, to an instance; *address* is the client's."""
        said = message.fields.host, prefix, message.minor
        if said != self._forwarded_for:
            self._forwarded = forwarding(address, said[0] or b"", prefix, message.minor)
            self._forwarded_for = said
        return self._forwarded
