"""Free ports, chosen so that they are still free when they are used."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

__all__ = ["pick_ports"]

_FIRST = 20_000
_EPHEMERAL_FIRST = 32_768  # Linux's default, where /proc does not say
_TRIES = 500
_RESERVED = 64
"""Ports that one process keeps others from, the newest ones: each costs a descriptor."""

# The system's own randomness: a test run that seeds the global generator alike in every worker would make
# them all collide.
_chance = random.SystemRandom()
_recent: deque[int] = deque(maxlen=512)
_reservations: deque[int] = deque()  # descriptors; a process that ends needs not close them
_lock = threading.Lock()


def pick_ports(count: int = 1, *, avoid: Collection[int] = ()) -> tuple[int, ...]:
    """*count* different TCP ports that are free on 127.0.0.1 now, and were not given out a short while ago.

    They lie below the range that the kernel takes local ports of outgoing connections from. Asking the kernel
    (port 0) gives ports inside it: while a member is down, anybody's connection may take its port, and a
    client that dials the dead member again and again can even end up connected to *itself*, after which the
    member cannot come back.

    Between choosing a port and its being bound, by a child as a rule, there is time for another one to choose it too. So the
    newest 64 of a process are reserved: nobody else who asks this way gets them while it lives, in whatever process. Others
    may take them all the same.

    Raises `OSError` if no free port is found.
    """
    last = max(_ephemeral_first(), _FIRST + 2_000)
    picked: list[int] = []
    reserved: list[int] = []
    with ExitStack() as held, _lock:
        for _ in range(_TRIES):
            if len(picked) == count:
                break
            port = _chance.randrange(_FIRST, last)
            if port in _recent or port in avoid or port in picked:
                continue
            # First: to try a port is to be in its way for a moment.
            reservation = _reserve(port)
            if reservation is None:
                continue
            reserved.append(reservation)
            taken = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                # Without SO_REUSEADDR on purpose: a port with remains of old connections is not free enough.
                taken.bind(("127.0.0.1", port))
            except OSError:
                _give_up(reserved.pop())
                continue
            picked.append(port)
        if len(picked) < count:
            for each in reserved:
                _give_up(each)
            raise OSError(f"no {count} free ports between {_FIRST} and {last} on 127.0.0.1")
        _recent.extend(picked)
        _reservations.extend(reserved)
        while len(_reservations) > _RESERVED:
            _give_up(_reservations.popleft())
    return tuple(picked)


def _reserve(port: int) -> int | None:
    """The descriptor that reserves *port*; ``None`` if another one has it. -1 where ports can't be reserved.

    What is held is a name in the kernel's abstract namespace, which is as wide as that of ports, and goes with the process.
    """
    if sys.platform != "linux":
        return -1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        try:
            holder.bind(f"\0disco-port-{port}")
        except OSError:
            return None
        return holder.detach()


def _give_up(reservation: int) -> None:
    if reservation >= 0:
        os.close(reservation)


def _ephemeral_first() -> int:
    try:
        first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first)
    except (OSError, ValueError):
        return _EPHEMERAL_FIRST
