"""A service that starts in a fiftieth of a second: ``python -I -S benchmarks/deploy_stub.py PORT``. It says 200 to everything.

For many hosts on one machine, where the starts of the service must not be what is measured: no asyncio, no package of ours.
"""

from __future__ import annotations

import selectors
import socket
import sys

__all__ = ["cut", "serve"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LENGTH = b"\r\ncontent-length:"


def cut(data: bytes) -> tuple[bytes, bytes]:
    """The head of the first request in *data* and what comes after it; no head while it is not all there."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return b"", data
    head = head.lower()
    length = int(head.partition(_LENGTH)[2].partition(b"\r\n")[0] or 0)
    if len(rest) < length:
        return b"", data
    return head, rest[length:]


def serve(listener: socket.socket) -> None:
    """For ever."""
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    unread: dict[socket.socket, bytes] = {}
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                unread[connection] = b""
                ready.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            is_over = False
            try:
                data = connection.recv(65536)
                head, unread[connection] = cut(unread[connection] + data)
                if head:
                    connection.sendall(_ANSWER)
                is_over = not data or b"\r\nconnection: close" in head
            except OSError:
                is_over = True
            if is_over:
                del unread[connection]
                ready.unregister(connection)
                connection.close()


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as listener:
        serve(listener)


if __name__ == "__main__":
    main()
