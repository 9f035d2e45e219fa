"""The admin server in a thread with a loop of its own, for tests that block: a raw socket, a browser."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from disco_sidecar.admin import AdminServer, Happenings, Limits

from .states import a_state

__all__ = ["Served", "say"]


class Served:
    """Serves ``state``, which may be replaced at any time, and ``happenings``. Use it as a context manager."""

    def __init__(
        self,
        state: dict[str, Any] | None = None,
        *,
        unix: Path | None = None,
        allow_hosts: tuple[str, ...] = (),
        limits: Limits | None = None,
        port: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.state = state if state is not None else a_state()
        self.happenings = Happenings()
        self.asked = 0
        """How often somebody wanted to see the state."""
        self.samples = 0
        if unix is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(unix))
        else:
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", port))
        self._socket.listen()
        self.address: Any = self._socket.getsockname()
        self.server = AdminServer(
            self._source,
            sockets=[self._socket],
            sample=self._sample,
            subscribe=self.happenings.subscribe,
            allow_hosts=allow_hosts,
            limits=limits,
        )
        self._loop = loop if loop is not None else asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="admin")

    def __enter__(self) -> Self:
        self._thread.start()
        self.on_loop(self.server.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on_loop(self.server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self.address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on_loop(self, make: Callable[[], Any]) -> Any:
        """The result of the coroutine that *make* makes."""

        async def run() -> Any:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10.0)

    def connect(self) -> socket.socket:
        connection = socket.socket(self._socket.family)
        connection.settimeout(10.0)
        try:
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise
        return connection

    def _source(self) -> dict[str, Any]:
        self.asked += 1
        return self.state

    def _sample(self) -> None:
        self.samples += 1


def say(served: Served, data: bytes) -> bytes:
    """All that is answered to *data* until the server ends the connection."""
    with served.connect() as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
