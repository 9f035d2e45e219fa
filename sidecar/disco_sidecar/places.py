"""Where one listens: an address and a port, or the path of a Unix socket."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from discoclient.model.errors import ConfigError
from discoclient.model.instance import check_service

__all__ = ["Kind", "Listener", "Place", "parse_listener", "parse_place"]

LOOPBACK = "127.0.0.1"
"""The usual loopback address stands for the loopback: a client that tries ``::1`` first has to find us, too."""
LONGEST_PATH = 100
"""Bytes. The kernel's own limit is 107."""
_PLACE = re.compile(r"(?:(?:\[(?P<six>[^][]+)\]|(?P<four>[^][:]+)):)?(?P<port>[0-9]{1,5})")


class Kind(StrEnum):
    BIND = "bind"
    LISTEN = "listen"
    TCP = "tcp"
    ADMIN = "admin"
    DNS = "dns"


@dataclass(frozen=True, slots=True)
class Place:
    """``host`` is an IP address as Python writes it. ``path``: a Unix socket's, in place of host and port."""

    host: str = LOOPBACK
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or ipaddress.ip_address(self.host).is_loopback

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses to bind; all but the first only where there is such a network."""
        return (LOOPBACK, "::1") if self.host == LOOPBACK else (self.host,)

    def overlaps(self, other: Place) -> bool:
        """Whether not both can be listened on."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        if self.port != other.port or self.port == 0:
            return False
        return any(_is_within(one, another) for one in self.hosts for another in other.hosts)


@dataclass(frozen=True, slots=True)
class Listener:
    """One way in."""

    kind: Kind
    place: Place
    service: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.place}" + (f"={self.service}" if self.service else "")


def parse_place(text: str, what: str) -> Place:
    """``PORT``, ``ADDR:PORT``, ``[ADDR]:PORT`` or ``unix:PATH``; *what* names the option. Raises `ConfigError`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or len(path.encode(errors="replace")) > LONGEST_PATH or "\0" in path:
            raise ConfigError(f"{what} unix:PATH takes a path of 1 to {LONGEST_PATH} bytes; got {path!r}")
        return Place(path=path)
    match = _PLACE.fullmatch(text) if text.isascii() else None
    host = None if match is None else _host(match["six"], match["four"])
    if match is None or host is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"{what} takes PORT, ADDR:PORT, [ADDR]:PORT (IPv6) or unix:PATH, ADDR an IP address or localhost; got {text!r}"
        )
    return Place(host, int(match["port"]))


def parse_listener(kind: Kind, text: str) -> Listener:
    """``PLACE=SERVICE``. Raises `ConfigError`."""
    what = f"--{kind}"
    place, equals, service = text.rpartition("=")
    if not equals:
        raise ConfigError(f"{what} takes PORT=SERVICE, ADDR:PORT=SERVICE or unix:PATH=SERVICE; got {text!r}")
    try:
        check_service(service)
    except ConfigError as error:
        raise ConfigError(f"{what} {text}: {error}") from error
    return Listener(kind, parse_place(place, what), service)


def _host(six: str | None, four: str | None) -> str | None:
    """The address in its one spelling; ``None`` if it is none."""
    try:
        if six is not None:
            return str(ipaddress.IPv6Address(six))
        return LOOPBACK if four in (None, "localhost") else str(ipaddress.IPv4Address(str(four)))
    except ValueError:
        return None


def _is_within(one: str, other: str) -> bool:
    """Whether a socket on one of two addresses keeps the other from being bound. Our IPv6 sockets are of IPv6 alone."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified
