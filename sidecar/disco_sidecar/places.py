"""Where one listens: an address and a port, or the path of a Unix socket."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from discoclient.model.errors import ConfigError
from discoclient.model.instance import check_service

__all__ = ["Kind", "Listener", "Place", "parse_listener", "parse_place"]

_PORT = re.compile(r"[0-9]{1,5}")
LOCALHOST = "localhost"
"""Both loopback addresses."""


class Kind(StrEnum):
    BIND = "bind"
    LISTEN = "listen"
    TCP = "tcp"
    ADMIN = "admin"
    DNS = "dns"


@dataclass(frozen=True, slots=True)
class Place:
    """``host`` is an IP address, or ``localhost`` for both of the loopback's. ``path``: a Unix socket's, in place of both."""

    host: str = LOCALHOST
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or self.host == LOCALHOST or ipaddress.ip_address(self.host).is_loopback

    def overlaps(self, other: Place) -> bool:
        """Whether they can't both be listened on."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        if not self.port or self.port != other.port:
            return False
        wild = {"0.0.0.0", "::"}
        return bool(set(self.hosts) & set(other.hosts)) or bool(wild & {self.host, other.host})

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses to bind; all but the first only where there is such a network.

        The usual loopback address stands for the loopback: a client that tries ``::1`` first has to find us, too.
        """
        if self.host in (LOCALHOST, "127.0.0.1"):
            return ("127.0.0.1", "::1")
        return (self.host,)


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
        if not path or len(path.encode()) > 100 or "\0" in path:
            raise ConfigError(f"{what} unix:PATH takes a path of 1 to 100 bytes; got {path!r}")
        return Place(path=path)
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    host = host or LOCALHOST
    if _PORT.fullmatch(port) is None or int(port) > 65535 or not _is_host(host):
        raise ConfigError(
            f"{what} takes PORT, ADDR:PORT, [ADDR]:PORT or unix:PATH, ADDR an IP address; got {text!r}"
        )
    return Place(host, int(port))


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


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == LOCALHOST
    return True
