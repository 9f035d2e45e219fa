"""A restart without a refused connection: the new process takes part in the sockets of the old one.

Both accept from the same queue until the old one ends; so nothing that was queued is lost, as it would be with two queues
(``SO_REUSEPORT``), of which one ends. Who may ask is known from the kernel: only processes of the same user, on both sides. The
asking goes through sockets of Linux's abstract namespace, which are gone with their process.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from ..places import Listener, Place

__all__ = ["Occupied", "Offer", "ask"]

logger = logging.getLogger("discoclient.sidecar")

TIMEOUT = 1.0
MOST_SOCKETS = 8


class Occupied(Exception):
    """The address is somebody else's. ``is_lasting``: it is no use to ask again."""

    def __init__(self, text: str, *, is_lasting: bool) -> None:
        super().__init__(text)
        self.is_lasting = is_lasting


def ask(listener: Listener) -> list[socket.socket]:
    """The sockets of the sidecar that listens there now, as our own. Raises `Occupied`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(TIMEOUT)
        try:
            asking.connect(_name(listener.place))
            if _user(asking) not in (os.getuid(), 0):
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
        said = json.loads(data)
        if said["listener"] != str(listener):
            raise Occupied(
                f"a sidecar (pid {said['pid']}) listens there for something else: {said['listener']}",
                is_lasting=True,
            )
    except (ValueError, KeyError, TypeError):
        raise Occupied("who listens there does not speak our language", is_lasting=True) from None
    except Occupied:
        for each in sockets:
            each.close()
        raise
    for each in sockets:
        each.setblocking(False)
    logger.warning(
        "%s is shared with the sidecar that listens there, pid %s, until that one ends", listener, said["pid"]
    )
    return sockets


class Offer:
    """Lets a process of the same user take part in *sockets*, for as long as they are ours."""

    def __init__(
        self, sockets: Mapping[Listener, Sequence[socket.socket]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._sockets = sockets
        self._loop = loop
        self._offering: dict[Listener, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.given: set[Listener] = set()
        """Those that another process has, too."""

    def begin(self) -> None:
        """Names that the process before us still holds are taken when they are free."""
        missing = False
        for listener in self._sockets:
            if listener in self._offering:
                continue
            offering = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                offering.bind(_name(listener.place))
                offering.listen(8)
            except OSError as error:
                offering.close()
                missing |= error.errno == errno.EADDRINUSE
                continue
            self._offering[listener] = offering
            self._loop.add_reader(offering.fileno(), self._give, listener, offering)
        if missing:
            self._timer = self._loop.call_later(0.1, self.begin)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for offering in self._offering.values():
            self._loop.remove_reader(offering.fileno())
            offering.close()
        self._offering.clear()

    def _give(self, listener: Listener, offering: socket.socket) -> None:
        try:
            asking, _ = offering.accept()
        except OSError:
            return
        with asking:
            if _user(asking) not in (os.getuid(), 0):
                return
            said = json.dumps({"pid": os.getpid(), "listener": str(listener)}).encode()
            try:
                socket.send_fds(asking, [said], [each.fileno() for each in self._sockets[listener]])
            except OSError:
                return
            self.given.add(listener)


def _name(place: Place) -> str:
    """In the abstract namespace, which is the network namespace's, as ports are."""
    return f"\0disco-sidecar/{os.getuid()}/{place}"


def _user(connected: socket.socket) -> int:
    """Whose process is at the other end."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user: int = struct.unpack("3i", credentials)[1]
    return user
