"""The sockets that the process listens on: bound here, inherited from who started us, or shared with the process before us."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path

from discoclient.model.errors import ConfigError
from discoclient.system.listeners import find_owner

from ..places import Kind, Listener, Place
from .bound import Sockets, close_sockets
from .takeover import Occupied, Taken, ask

__all__ = ["OURS", "inherited", "open_sockets"]

logger = logging.getLogger("discoclient.sidecar")

BACKLOG = 2048
FIRST_DESCRIPTOR = 3
"""Of those that systemd hands over (`sd_listen_fds(3)`)."""
OURS = "DISCO_SIDECAR_SOCKETS"
"""The variable by which one of our processes tells another the descriptors that it left open for it."""
PATIENCE = 3.0
"""Seconds that an address may be between two hands: its old owner ends, and its new one has not taken it over yet."""
ALIVE_TIMEOUT = 1.0


def inherited(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that whoever started us has handed over, if they are meant for this process.

    What was said of them is taken out of *environ*: it is not meant for processes that we start. Raises `ConfigError`.
    """
    ours, pid = environ.pop(OURS, None), environ.pop("LISTEN_PID", None)
    count, _ = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_FDNAMES", None)
    if ours is not None:
        return [_adopt(int(descriptor)) for descriptor in ours.split(",") if descriptor]
    if pid != str(os.getpid()):
        return []
    if not count.isdecimal():
        raise ConfigError(f"$LISTEN_FDS is the number of sockets that were handed over; got {count!r}")
    return [_adopt(FIRST_DESCRIPTOR + number) for number in range(int(count))]


def _adopt(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"$LISTEN_FDS: descriptor {descriptor} is no socket: {error.strerror}") from error
    found.setblocking(False)
    return found


def open_sockets(
    listeners: Sequence[Listener], given: Sequence[socket.socket], *, is_heir: bool = False
) -> Sockets:
    """The sockets for each of *listeners*: of those that were *given*, or taken over, or new ones. *is_heir*: see `ask`.

    Raises `ConfigError` for a given one that nothing is configured for, and `OSError` for an address that is taken.
    """
    opened = Sockets()
    taken: set[Listener] = set()
    left = list(given)
    try:
        for listener in listeners:
            if listener.kind is Kind.DNS:
                continue
            mine = [each for each in left if _is_at(each, listener.place)]
            left = [each for each in left if each not in mine]
            if mine:
                opened.add(listener, mine, is_lent=True)
                continue
            found = _open(listener, is_heir=is_heir)
            if isinstance(found, Taken):
                taken.add(listener)
                if not is_heir:
                    logger.warning(
                        "%s is shared with the sidecar that listens there, pid %d, until that one ends",
                        listener,
                        found.pid,
                    )
                opened.add(listener, found.sockets, is_lent=found.is_lent)
            else:
                opened.add(listener, found, is_lent=False)
        if left:
            names = ", ".join(_name(each) for each in left)
            raise ConfigError(
                f"a socket was handed over ($LISTEN_FDS) for {names}, and nothing is configured to listen there"
            )
    except BaseException:
        close_sockets(opened, keep=taken)
        for each in left:
            each.close()
        raise
    return opened


def _open(listener: Listener, *, is_heir: bool) -> list[socket.socket] | Taken:
    deadline = time.monotonic() + PATIENCE
    place = listener.place
    if is_heir:
        with suppress(Occupied):
            return ask(listener, is_heir=True)
    while True:
        try:
            return _bind(place)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"{listener}: {error.strerror}") from error
        if place.path is not None and not _is_socket(place.path):
            raise OSError(errno.EEXIST, f"{listener}: there is a file that is no socket; it is left as it is")
        try:
            return ask(listener, is_heir=is_heir)
        except Occupied as error:
            if error.is_lasting or time.monotonic() > deadline:
                raise OSError(errno.EADDRINUSE, f"{listener}: {error}{_owner(place)}") from error
        time.sleep(0.05)


def _bind(place: Place) -> list[socket.socket]:
    if place.path is not None:
        return [_bind_path(place.path)]
    sockets: list[socket.socket] = []
    port = place.port
    for host in place.hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            if sockets:  # a machine without IPv6
                continue
            raise
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host, port))
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            if sockets and error.errno == errno.EADDRNOTAVAIL:
                continue
            for each in sockets:
                each.close()
            raise
        sockets.append(bound)
        port = port or bound.getsockname()[1]
    return sockets


def _bind_path(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_socket(path) or _is_alive(path):
                raise
            with suppress(FileNotFoundError):
                Path(path).unlink()  # somebody who was killed has left it
            bound.bind(path)
        os.chmod(path, 0o600)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _is_socket(path: str) -> bool:
    """Anything else is not ours to remove."""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:  # removed since
        return True


def _is_alive(path: str) -> bool:
    """Whether somebody listens at *path*."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(ALIVE_TIMEOUT)
        try:
            caller.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (TimeoutError, BlockingIOError):  # it has no time for us
            return True
    return True


def _owner(place: Place) -> str:
    """Who listens there, if that can be found out."""
    pid = find_owner(place.port) if place.path is None and place.port else None
    if pid is None:
        return ""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return f"; pid {pid} listens on port {place.port}"
    return f"; {name}, pid {pid}, listens on port {place.port}"


def _is_at(bound: socket.socket, place: Place) -> bool:
    name = bound.getsockname()
    if isinstance(name, str | bytes):
        return place.path is not None and os.path.abspath(os.fsdecode(name)) == os.path.abspath(place.path)
    return place.path is None and name[0] in place.hosts and name[1] == place.port


def _name(bound: socket.socket) -> str:
    name = bound.getsockname()
    return f"unix:{os.fsdecode(name)}" if isinstance(name, str | bytes) else f"{name[0]}:{name[1]}"
