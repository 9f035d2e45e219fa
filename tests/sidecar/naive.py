"""The negative control: a proxy that looks for a blank line and passes on what it got, as proxies once did."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

__all__ = ["NaiveProxy"]


class NaiveProxy:
    """Passes every connection to 127.0.0.1:*port* as it is, once a head is complete by anybody's reading."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = ("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="naive-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], name="naive-proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        with client, contextlib.suppress(OSError):
            while b"\r\n\r\n" not in data and b"\n\n" not in data and (more := client.recv(65536)):
                data += more
            if data:
                with socket.create_connection(("127.0.0.1", self._target)) as origin:
                    origin.sendall(data)
                    origin.shutdown(socket.SHUT_WR)
                    while answer := origin.recv(65536):
                        client.sendall(answer)
