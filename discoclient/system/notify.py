"""``sd_notify``, both ways: what we tell systemd, and what a command tells us (`sd_notify(3)`)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NotifySocket", "notify"]


def notify(state: str, environ: Mapping[str, str]) -> bool:
    """Tell whoever started us, such as ``READY=1``; whether somebody wants to know. Fails in silence, as it is meant to."""
    path = environ.get("NOTIFY_SOCKET")
    if not path or path[0] not in "/@":
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.connect(f"\0{path[1:]}" if path[0] == "@" else path)
            speaker.sendall(state.encode())
    except OSError:
        return False
    return True


class NotifySocket:
    """A socket that a command may say ``READY=1`` to. Its ``path`` goes into the command's ``$NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="disco-notify-")
        self.path = str(Path(self._folder) / "socket")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.bind(self.path)

    async def ready(self) -> None:
        """Until the command has said that it is ready."""
        loop = asyncio.get_running_loop()
        while b"READY=1" not in (await loop.sock_recv(self._socket, 4096)).split(b"\n"):
            pass

    def close(self) -> None:
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
