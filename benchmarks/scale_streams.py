"""Callers as etcd sees them: connections with one watch each, whose bytes are read and thrown away.

``python -m benchmarks.scale_streams SERVICE COUNT PORT [PORT...]`` opens COUNT of them, in turn at these ports of 127.0.0.1,
and says ``{"ready": COUNT}``; when its input ends, ``{"bytes", "reads"}``. A Python client takes 0.3 ms to decode an event:
five hundred of them don't fit on a machine, and their watches do.
"""

from __future__ import annotations

import json
import select
import socket
import sys

from etcd3.etcdrpc import rpc_pb2 as rpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from .bare_etcd import prefix_of

__all__ = ["opening"]

_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 65_535


def opening(service: str) -> bytes:
    """Everything that the client of one watch has to say, for ever: nothing has to be answered."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
    connection.increment_flow_control_window(_WINDOW - _DEFAULT_WINDOW)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/etcdserverpb.Watch/Watch",
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
        "hasleader": "true",
    }
    prefix = prefix_of(service).encode()
    create = rpc.WatchCreateRequest(key=prefix, range_end=prefix[:-1] + b"0", progress_notify=True)
    message = rpc.WatchRequest(create_request=create).SerializeToString()
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message)
    return connection.data_to_send()


def main() -> None:
    service, count, *ports = sys.argv[1:]
    data, buffer = opening(service), memoryview(bytearray(2**18))
    poller = select.epoll()
    poller.register(sys.stdin.fileno(), select.EPOLLIN)
    open_: dict[int, socket.socket] = {}
    for number in range(int(count)):
        connection = socket.create_connection(("127.0.0.1", int(ports[number % len(ports)])))
        connection.sendall(data)
        connection.setblocking(False)
        open_[connection.fileno()] = connection
        poller.register(connection, select.EPOLLIN)
    print(json.dumps({"ready": len(open_)}), flush=True)
    received = reads = 0
    is_over = False
    while not is_over:
        for descriptor, _ in poller.poll():
            if descriptor == sys.stdin.fileno():
                is_over = True
                continue
            got = open_[descriptor].recv_into(buffer)
            if not got:
                raise SystemExit("etcd closed a connection")
            received, reads = received + got, reads + 1
    print(json.dumps({"bytes": received, "reads": reads}), flush=True)
    for connection in open_.values():
        connection.close()


if __name__ == "__main__":
    main()
