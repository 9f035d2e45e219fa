"""The sockets that the process listens on: bound here, inherited from who started us, or shared with the process before us."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from discoclient.model.errors import ConfigError

from ..places import Kind, Listener, Place
from .takeover import Occupied, ask

__all__ = ["OURS", "Sockets", "close_sockets", "inherited", "open_sockets"]

BACKLOG = 2048
FIRST_DESCRIPTOR = 3
"""Of those that systemd hands over (`sd_listen_fds(3)`)."""
OURS = "DISCO_SIDECAR_SOCKETS"
"""The variable by which one of our processes tells another the descriptors that it left open for it."""
PATIENCE = 3.0
"""Seconds that an address may be between two hands: its old owner ends, and its new one has not taken it over yet."""


class Sockets(dict[Listener, list[socket.socket]]):
    """By listener. ``lent``: those of whoever started us, who keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.lent: set[Listener] = set()


def inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that whoever started us has handed over, if they are meant for this process."""
    ours = environ.get(OURS)
    if ours:
        return [_adopt(int(descriptor)) for descriptor in ours.split(",")]
    if environ.get("LISTEN_PID") not in (str(os.getpid()), None):
        return []
    count = environ.get("LISTEN_FDS", "0")
    if not count.isdigit():
        return []
    return [_adopt(FIRST_DESCRIPTOR + number) for number in range(int(count))]


def close_sockets(sockets: Sockets, *, keep: Collection[Listener]) -> None:
    """*keep*: those that another process has by now, whose Unix sockets' files are its."""
    for listener, bound in sockets.items():
        for each in bound:
            each.close()
        path = listener.place.path
        if path is not None and listener not in keep and listener not in sockets.lent:
            with suppress(OSError):
                Path(path).unlink()


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    found = socket.socket(fileno=descriptor)
    found.setblocking(False)
    return found


def open_sockets(listeners: Sequence[Listener], given: Sequence[socket.socket]) -> Sockets:
    """The sockets for each of *listeners*: of those that were *given*, or taken over, or new ones.

    Raises `ConfigError` for a given one that nothing is configured for, and `OSError` for an address that is taken.
    """
    opened = Sockets()
    left = list(given)
    try:
        for listener in listeners:
            if listener.kind is Kind.DNS:
                continue
            mine = [each for each in left if _is_at(each, listener.place)]
            left = [each for each in left if each not in mine]
            opened[listener] = mine or _open(listener)
            if mine:
                opened.lent.add(listener)
    except BaseException:
        for sockets in opened.values():
            for each in sockets:
                each.close()
        raise
    if left:
        names = ", ".join(_name(each) for each in left)
        raise ConfigError(
            f"a socket was handed over ($LISTEN_FDS) for {names}, and nothing is configured to listen there"
        )
    return opened


def _open(listener: Listener) -> list[socket.socket]:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _bind(listener.place)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"{listener}: {error.strerror}") from error
        try:
            return ask(listener)
        except Occupied as error:
            if error.is_lasting or time.monotonic() > deadline:
                raise OSError(errno.EADDRINUSE, f"{listener}: {error}") from error
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
            if error.errno != errno.EADDRINUSE or _is_alive(path):
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


def _is_alive(path: str) -> bool:
    """Whether somebody listens at *path*, or it is no socket and so not ours to remove."""
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        return True
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def _is_at(bound: socket.socket, place: Place) -> bool:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return place.path is not None and name == place.path
    return place.path is None and name[0] in place.hosts and name[1] == place.port


def _name(bound: socket.socket) -> str:
    name = bound.getsockname()
    return f"unix:{name}" if bound.family == socket.AF_UNIX else f"{name[0]}:{name[1]}"
