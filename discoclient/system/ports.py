"""Free ports, chosen so that they are still free when they are used."""

from __future__ import annotations

import random
import socket
import sys
import threading
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

__all__ = ["ReservedPort", "pick_ports"]

_FIRST = 20_000
_EPHEMERAL_FIRST = 32_768  # Linux's default, where /proc does not say
_TRIES = 500

# The system's own randomness: a test run that seeds the global generator alike in every worker would make
# them all collide.
_chance = random.SystemRandom()
_recent: deque[int] = deque(maxlen=512)
_lock = threading.Lock()


def pick_ports(count: int = 1, *, avoid: Collection[int] = ()) -> tuple[int, ...]:
    """*count* different TCP ports that are free on 127.0.0.1 now, and were not given out a short while ago.

    They lie below the range that the kernel takes local ports of outgoing connections from. Asking the kernel
    (port 0) gives ports inside it: while a member is down, anybody's connection may take its port, and a
    client that dials the dead member again and again can even end up connected to *itself*, after which the
    member cannot come back.

    Raises `OSError` if no free port is found.
    """
    last = max(_ephemeral_first(), _FIRST + 2_000)
    picked: list[int] = []
    with ExitStack() as held, _lock:
        for _ in range(_TRIES):
            if len(picked) == count:
                break
            port = _chance.randrange(_FIRST, last)
            if port in _recent or port in avoid or port in picked:
                continue
            taken = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                # Without SO_REUSEADDR on purpose: a port with remains of old connections is not free enough.
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            picked.append(port)
        if len(picked) < count:
            raise OSError(f"no {count} free ports between {_FIRST} and {last} on 127.0.0.1")
        _recent.extend(picked)
    return tuple(picked)


class ReservedPort:
    """A port that is free now, and that nobody else who asks this way gets while we hold it, in whatever process.

    Between choosing a port and its being bound by a child there is time for another one to choose it too. Held is a name in the
    kernel's abstract namespace, which is as wide as that of ports, and is given up with the process. Where there is no such
    namespace the port is only chosen. Raises `OSError` if none is found.
    """

    def __init__(self) -> None:
        self._holder: socket.socket | None = None
        for _ in range(_TRIES):
            (self.number,) = pick_ports()
            if self._hold():
                return
        raise OSError("no free port that nobody else reserved")

    def release(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _hold(self) -> bool:
        if sys.platform != "linux":
            return True
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0disco-port-{self.number}")
        except OSError:
            holder.close()
            return False
        self._holder = holder
        return True


def _ephemeral_first() -> int:
    try:
        first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first)
    except (OSError, ValueError):
        return _EPHEMERAL_FIRST
