"""Whether the other end of a connection on this machine has read what was sent: the kernel knows (sock_diag(7))."""

from __future__ import annotations

import select
import socket
import struct
import time

__all__ = ["wait_until_read"]

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_ESTABLISHED = 1
_CLOSE_WAIT = 8
_ANY = 0xFFFFFFFF


def wait_until_read(connection: socket.socket, *, timeout: float = 0.2) -> bool:
    """Wait until the other end has taken all that was sent, so that what is sent next is read by itself.

    False if it did not within *timeout* seconds, or has gone. Where the kernel can't be asked, a short wait has to do.
    """
    deadline = time.monotonic() + timeout
    try:
        own, other = connection.getsockname(), connection.getpeername()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            while (state_and_queue := _ask(kernel, other, own)) is not None:
                state, unread = state_and_queue
                if unread == 0:
                    return state in (_ESTABLISHED, _CLOSE_WAIT)
                if time.monotonic() > deadline:
                    return False
                select.select([], [], [], 0.0001)
    except OSError:
        select.select([], [], [], 0.002)
    return False


def _ask(kernel: socket.socket, source: tuple[str, int], target: tuple[str, int]) -> tuple[int, int] | None:
    """State and unread bytes of the socket whose own address is *source*; nothing if there is none."""
    ends = struct.pack(
        ">HH4s12x4s12x", source[1], target[1], socket.inet_aton(source[0]), socket.inet_aton(target[0])
    )
    question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFF) + ends
    question += struct.pack("=III", 0, _ANY, _ANY)
    kernel.send(struct.pack("=IHHII", 16 + len(question), _SOCK_DIAG_BY_FAMILY, 1, 1, 0) + question)
    reply = kernel.recv(8192)
    if struct.unpack_from("=IH", reply)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    _, state = struct.unpack_from("=BB", reply, 16)
    _, unread = struct.unpack_from("=II", reply, 16 + 4 + 48)
    return state, unread
