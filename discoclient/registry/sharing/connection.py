"""A connection between lender and borrower: frames in, frames out, and never waiting with the latter."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from .frames import HEAD, MAX_FRAME, Kind, head, read_head
from .inheritance import disown, keep_from_children

__all__ = ["Connection"]

MAX_JOINED = 64 << 10
"""Bytes that are copied to be sent together with their head."""
MAX_UNSENT = MAX_FRAME + (16 << 20)
"""Bytes that may wait for the other side, a whole listing and what happens meanwhile. Who is further behind is left."""


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.socket: Any = writer.get_extra_info("socket")
        self._descriptor = self.socket.fileno()
        keep_from_children(self._descriptor)
        self._is_open = True

    @classmethod
    async def over(cls, connected: socket.socket) -> Connection:
        try:
            return cls(*await asyncio.open_unix_connection(sock=connected))
        except BaseException:
            connected.close()
            raise

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, kind: Kind, id: int, payload: bytes) -> None:
        """Soon. Not at all if the other side is gone, or so far behind that it is left."""
        if not self._is_open:
            return
        if self.unsent > MAX_UNSENT:
            self.abort()
            return
        first = head(kind, id, len(payload))
        if len(payload) <= MAX_JOINED:  # one write wakes the other side once
            self._writer.write(first + payload)
        else:
            self._writer.write(first)
            self._writer.write(payload)

    async def receive(self) -> tuple[Kind, int, bytes]:
        """The next frame. Raises `Garbled`; `EOFError` or `OSError` when the other side is gone."""
        length, kind, id = read_head(await self._reader.readexactly(HEAD))
        return kind, id, await self._reader.readexactly(length) if length else b""

    def abort(self) -> None:
        if self._is_open:
            self._is_open = False
            disown(self._descriptor)
            self._writer.transport.abort()
