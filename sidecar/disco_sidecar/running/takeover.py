"""A restart without a refused connection: the new process takes part in the sockets of the old one.

Both accept from the same queue until the old one ends; so nothing that was queued is lost, as it would be with two queues
(``SO_REUSEPORT``), of which one ends. Who may ask is known from the kernel: only processes of the same user, on both sides. The
asking goes through sockets of Linux's abstract namespace, which are gone with their process.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..places import Listener
from .bound import Sockets

__all__ = ["Occupied", "Offer", "Taken", "ask", "is_trusted"]

TIMEOUT = 1.0
MOST_SOCKETS = 8
LONGEST_NAME = 107
AGAIN = 0.1
"""Seconds until a name is tried again that the process before us still has."""


class Occupied(Exception):
    """The address is somebody else's. ``is_lasting``: it is no use to ask again."""

    def __init__(self, text: str, *, is_lasting: bool) -> None:
        super().__init__(text)
        self.is_lasting = is_lasting


@dataclass(frozen=True, slots=True)
class Taken:
    """``pid``: who has them, too. ``is_lent``: they belong to whoever started that one."""

    pid: int
    sockets: list[socket.socket]
    is_lent: bool


def ask(listener: Listener, *, is_heir: bool = False) -> Taken:
    """The sockets of the sidecar that listens there now, as our own. Raises `Occupied`.

    *is_heir*: that sidecar itself has started us to follow it, so that the address may stand for something else from now on.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(TIMEOUT)
        try:
            asking.connect(_name(listener, os.getppid() if is_heir else 0))
            if not is_trusted(_who(asking)[1]):
                raise Occupied("a process of another user listens there", is_lasting=True)
            data, descriptors, _, _ = socket.recv_fds(asking, 4096, MOST_SOCKETS)
        except (ConnectionRefusedError, FileNotFoundError):
            raise Occupied(
                "the address is in use, and not by a sidecar of this user", is_lasting=False
            ) from None
        except OSError as error:
            raise Occupied(
                f"the sidecar that listens there does not answer ({error})", is_lasting=False
            ) from error
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        if not sockets:
            raise Occupied("the sidecar that listens there is just ending", is_lasting=False)
        try:
            said = json.loads(data)
            pid, theirs, is_lent = int(said["pid"]), str(said["listener"]), bool(said["lent"])
        except (ValueError, KeyError, TypeError):
            raise Occupied("who listens there does not speak our language", is_lasting=True) from None
        if theirs != str(listener) and not is_heir:
            raise Occupied(
                f"a sidecar (pid {pid}) listens there for something else: {theirs}", is_lasting=True
            )
    except Occupied:
        for each in sockets:
            each.close()
        raise
    for each in sockets:
        each.setblocking(False)
    return Taken(pid, sockets, is_lent)


class Offer:
    """Lets a process of the same user take part in *sockets*, for as long as they are ours.

    *on_given* is told each listener that another process has by now, and that one's pid.
    """

    def __init__(
        self, sockets: Sockets, loop: asyncio.AbstractEventLoop, on_given: Callable[[Listener, int], object]
    ) -> None:
        self._sockets = sockets
        self._loop = loop
        self._on_given = on_given
        self._offering: dict[Listener, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._given: dict[Listener, set[int]] = {}

    @property
    def given(self) -> set[Listener]:
        """Those that another process has, too, which lives."""
        return {listener for listener, pids in self._given.items() if any(map(_lives, pids))}

    def begin(self) -> None:
        """Names that the process before us still holds are taken when they are free."""
        missing = False
        for listener in self._sockets:
            if listener in self._offering:
                continue
            offering = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                offering.bind(_name(listener, os.getpid()))
                offering.listen(8)
            except OSError as error:
                offering.close()
                missing |= error.errno == errno.EADDRINUSE
                continue
            self._offering[listener] = offering
            self._loop.add_reader(offering.fileno(), self._give, listener, offering)
        self._timer = self._loop.call_later(AGAIN, self.begin) if missing else None

    def close(self, *, but: Listener | None = None) -> None:
        """Offer nothing more, *but* this one."""
        if self._timer is not None:
            self._timer.cancel()
        for listener, offering in list(self._offering.items()):
            if listener != but:
                del self._offering[listener]
                self._loop.remove_reader(offering.fileno())
                offering.close()

    def _give(self, listener: Listener, offering: socket.socket) -> None:
        try:
            asking, _ = offering.accept()
        except OSError:
            return
        with asking:
            pid, user = _who(asking)
            if not is_trusted(user):
                return
            said = {
                "pid": os.getpid(),
                "listener": str(listener),
                "lent": listener in self._sockets.lent,
            }
            descriptors = [each.fileno() for each in self._sockets[listener]]
            try:
                socket.send_fds(asking, [json.dumps(said).encode()], descriptors)
            except OSError:
                return
            self._given.setdefault(listener, set()).add(pid)
            self._on_given(listener, pid)


def is_trusted(user: int) -> bool:
    """Whether a process of *user* may have our sockets, or we its. Root could take them anyway."""
    return user in (os.getuid(), 0)


def _name(listener: Listener, pid: int) -> str:
    """In the abstract namespace, which is the network namespace's, as ports are. *pid*: whose offer it is.

    It is the address' alone, but for a port that was chosen at the start: that only an heir can know.
    """
    place = listener.place
    if place.path is not None:
        where = f"unix:{os.path.abspath(place.path)}"
    else:
        where = str(place) if place.port else f"{listener}/{pid}"
    name = f"\0disco-sidecar/{os.getuid()}/{where}"
    if len(name.encode()) > LONGEST_NAME:
        name = f"\0disco-sidecar/{os.getuid()}/{hashlib.sha256(where.encode()).hexdigest()}"
    return name


def _who(connected: socket.socket) -> tuple[int, int]:
    """The pid and the user of the process at the other end."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, _ = struct.unpack("3i", credentials)
    return pid, user


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
