"""How a command comes to its port: told by us, handed over by us, or told to us."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..model.errors import ConfigError

__all__ = ["Doorway", "Way", "forget_port", "listen", "read_port"]

BACKLOG = 4096
"""Connections that the kernel keeps for a command that is busy, within ``net.core.somaxconn``."""
HANDED = 3
"""The number of the first descriptor that is handed over (``SD_LISTEN_FDS_START`` of systemd)."""
_ALL = ("{port}", "{fd}")


class Way(StrEnum):
    TOLD = "told"
    """A free port is chosen, or given; the command binds it."""
    HANDED = "handed"
    """The socket is bound here, and handed over."""
    WRITTEN = "written"
    """The command chooses, and writes it to a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorway:
    """What ``disco run`` was told of the port. Raises `ConfigError` when made of what excludes each other."""

    command: Sequence[str]
    port: int | None = None
    port_file: str | None = None
    is_socket: bool = False

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError("there is no COMMAND: disco run SERVICE [options] -- COMMAND...")
        is_handed, is_told = self._mentions("{fd}") or self.is_socket, self._mentions("{port}")
        if is_handed and is_told:
            raise ConfigError(
                "{port} is for a command that binds its port, {fd} and --socket are for one that gets the socket: "
                "use one of them"
            )
        if self.port_file is not None:
            excluded = [
                name
                for name, is_given in (
                    ("--socket or {fd}", is_handed),
                    ("{port}", is_told),
                    ("--port", self.port is not None),
                )
                if is_given
            ]
            if excluded:
                raise ConfigError(
                    f"--port-file is for a command that chooses its port itself: leave out {', '.join(excluded)}"
                )

    @property
    def way(self) -> Way:
        if self.port_file is not None:
            return Way.WRITTEN
        return Way.HANDED if self.is_socket or self._mentions("{fd}") else Way.TOLD

    def words(self, port: int | None) -> list[str]:
        """The command, with what it is to know filled in."""
        known = {"{port}": str(port), "{fd}": str(HANDED)}
        filled = []
        for word in self.command:
            for name in _ALL:
                word = word.replace(name, known[name]) if name != "{port}" or port is not None else word
            filled.append(word)
        return filled

    def environment(self, port: int | None, base: Mapping[str, str]) -> dict[str, str]:
        """*base*, with ``$PORT`` if that is how it is told. What others handed to us is not for the command."""
        ours = {
            "PORT",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
        }
        environment = {name: value for name, value in base.items() if name not in ours}
        if port is not None:
            environment["PORT"] = str(port)
        return environment

    def _mentions(self, name: str) -> bool:
        return any(name in word for word in self.command)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on *host*:*port* (0: one that is free), for a command to inherit.

    ``TCP_NODELAY`` on the listener is inherited by what it accepts, also of commands that don't know of it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def read_port(path: str) -> int | None:
    """The port in the file at *path*; ``None`` while there is none. What is no port may be half written."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        return None
    return int(text)


def forget_port(path: str) -> None:
    """Remove what an earlier command wrote. Raises `ConfigError` if that can't be."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"--port-file {path}: {error.strerror}; give a file that can be written") from error
