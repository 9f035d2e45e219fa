"""Whose listener is it? Read from ``/proc``, because a port that answers proves nothing about who answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from enum import Enum
from pathlib import Path

__all__ = ["Listener", "find_owner", "look_at"]

_LISTEN = "0A"  # the state's number in /proc/net/tcp


def _word(four: bytes) -> str:
    """Four bytes of an address as ``/proc/net/tcp`` writes them: a number in the machine's own byte order."""
    return f"{int.from_bytes(four, sys.byteorder):08X}"


_ANY = "0" * 8
_MAPPED = "0" * 16 + _word(b"\x00\x00\xff\xff")  # ::ffff:0:0/96, IPv4 addresses among IPv6's


class Listener(Enum):
    """Who listens on a port, from one process's point of view."""

    NOBODY = "nobody"
    OURS = "ours"
    FOREIGN = "foreign"


def look_at(port: int, *pids: int, host: str = "127.0.0.1") -> Listener:
    """Whether processes *pids* are those that get the connections to *host*, an address of this machine, at *port*.

    Where there is no ``/proc`` to ask, or it does not say, a port that somebody listens on counts as ours.
    """
    if sys.platform != "linux":
        return Listener.OURS if _accepts(host, port) else Listener.NOBODY
    # The table first, then the descriptors: a listener of that process is among its descriptors before it is
    # in the table.
    inodes = _listening(port, host)
    if not inodes:
        return Listener.NOBODY
    ours: set[str] = set()
    for pid in pids:
        found = _sockets_of(pid)
        if found is None:
            return Listener.OURS
        ours |= found
    return Listener.OURS if inodes <= ours else Listener.FOREIGN


def find_owner(port: int) -> int | None:
    """The pid that listens on 127.0.0.1:*port*, if there is one and we may see it."""
    if sys.platform != "linux":
        return None
    inodes = _listening(port, "127.0.0.1")
    if not inodes:
        return None
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return next((pid for pid in pids if inodes & (_sockets_of(pid) or set())), None)


def _listening(port: int, host: str) -> set[str]:
    """The inodes of all sockets that a connection to *host*:*port* may end at."""
    wanted = {f"{address}:{port:04X}" for address in _reached_by(host)}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and fields[1] in wanted:
                found.add(fields[9])
    return found


def _reached_by(host: str) -> tuple[str, ...]:
    """The addresses of listeners that a connection to *host* may end at, as the kernel's tables write them."""
    address = ipaddress.ip_address(host)
    own = "".join(_word(address.packed[start : start + 4]) for start in range(0, len(address.packed), 4))
    everything = "0" * 32  # of IPv6, and of IPv4 too unless it says otherwise
    return (own, everything) if address.version == 6 else (own, _ANY, _MAPPED + own, everything)


def _sockets_of(pid: int) -> set[str] | None:
    """``None`` if it is not ours to look at."""
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        for entry in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{entry}")
            except OSError:  # closed since
                continue
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    except PermissionError:
        return None
    except OSError:  # gone
        return found
    return found


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False
