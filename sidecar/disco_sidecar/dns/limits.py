"""How much an answer may be, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from discoclient.model.errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "PLAIN_SIZE", "STREAM_SIZE", "Limits"]

PLAIN_SIZE = 512
"""Bytes of the longest datagram for a client that says nothing of its own (RFC 1035)."""
STREAM_SIZE = 65535
"""Bytes of the longest reply over TCP: its length has 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an answer may be, and for how long.

    ``ttl``: seconds, also of a "no". 1 is the least that every cache understands (some keep 0 for good or ask twice
    for one call), and an instance that has left is out of every cache a second later; asking again over the loopback
    costs less than a millisecond. ``addresses``, ``instances``: at most so many A or AAAA, and SRV records; more is
    never sent. ``datagram``: bytes of our longest datagram, whatever the client takes; the rest goes over TCP.
    """

    ttl: int = 1
    addresses: int = 24
    instances: int = 256
    datagram: int = 1232

    def __post_init__(self) -> None:
        for name, least, most in (
            ("ttl", 0, 86_400),
            ("addresses", 1, 1000),
            ("instances", 1, 1000),
            ("datagram", PLAIN_SIZE, 4096),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"dns: {name} is {getattr(self, name)!r}: it can be {least} to {most}")


DEFAULT_LIMITS = Limits()
