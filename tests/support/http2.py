"""A server on the loopback that speaks HTTP/2 and nothing else, in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from h2.exceptions import ProtocolError

__all__ = ["Http2Server"]


class Http2Server:
    """Answers every request on 127.0.0.1:``port`` with 200, until the block is left. With *tls* it offers ``h2`` alone.

    Whoever does not speak HTTP/2 has the connection closed.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes who accepts
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()

    def cut(self) -> None:
        """Close all connections, without a word."""
        for carrier in self._open:
            with contextlib.suppress(OSError):
                carrier.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                carrier, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(carrier)
            thread = threading.Thread(target=self._serve, args=(carrier,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, carrier: socket.socket) -> None:
        with carrier, contextlib.suppress(OSError, ProtocolError):
            if self._tls is None:
                self._speak(carrier)
            else:
                with self._tls.wrap_socket(carrier.dup(), server_side=True) as sealed:
                    self._speak(sealed)

    def _speak(self, carrier: Any) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        carrier.sendall(connection.data_to_send())
        while data := carrier.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            carrier.sendall(connection.data_to_send())
