"""The proxy forwards when it should, and breaks what it should, and nothing else."""

from __future__ import annotations

import gc
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy

# How long nothing must come for "nothing comes". What is to be held back would come within a millisecond.
SILENCE = 0.15


class Echo(socketserver.ThreadingTCPServer):
    """Sends everything back, and takes note of it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.heard = b""
        echo = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    while data := self.request.recv(65536):
                        echo.heard += data
                        self.request.sendall(data)
                except OSError:
                    pass  # cut

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"
        yield client


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0)


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return receive(client, len(question))


def receive(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = client.recv(count - len(found))
        if not data:
            raise EOFError(found)
        found += data
    return found


def assert_silent(client: socket.socket) -> None:
    client.settimeout(SILENCE)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(5.0)


def test_much_data_goes_both_ways_and_the_end_of_it_too(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 8192
    with connect(proxy) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert receive(client, len(sent)) == sent
        assert client.recv(1) == b""
        sender.join()
    eventually(lambda: proxy.connections == 0)


def test_connections_are_counted(proxy: FaultProxy) -> None:
    assert (proxy.connections, proxy.accepted) == (0, 0)
    with connect(proxy) as one, connect(proxy) as two:
        ask(one, b"1")
        ask(two, b"2")
        assert (proxy.connections, proxy.accepted) == (2, 2)
    eventually(lambda: proxy.connections == 0)
    assert proxy.accepted == 2


def test_a_black_hole_is_silent_keeps_connections_and_loses_nothing(
    proxy: FaultProxy, echo: Echo, client: socket.socket
) -> None:
    proxy.blackhole()
    client.sendall(b"anybody there?")
    assert_silent(client)
    assert echo.heard == b"hello"
    assert proxy.connections == 1
    proxy.heal()
    assert receive(client, 14) == b"anybody there?"


def test_new_connections_into_a_black_hole_are_open_and_silent(proxy: FaultProxy, echo: Echo) -> None:
    proxy.blackhole()
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert_silent(client)
        proxy.heal()
        assert receive(client, 5) == b"hello"


def test_a_black_hole_may_be_one_way(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    proxy.blackhole("to_client")
    client.sendall(b"!")
    eventually(lambda: echo.heard == b"hello!")
    assert_silent(client)
    proxy.heal()
    assert receive(client, 1) == b"!"
    proxy.blackhole("to_target")
    client.sendall(b"?")
    assert_silent(client)
    assert echo.heard == b"hello!"


def test_the_end_of_a_connection_does_not_pass_a_black_hole_either(echo: Echo) -> None:
    with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy, connect(proxy) as client:
        ask(client, b"hello")
        proxy.blackhole()
        echo.shutdown()  # it accepts nothing any more
        client.shutdown(socket.SHUT_WR)  # the server would close its side on this
        assert_silent(client)
        proxy.heal()
        assert client.recv(1) == b""
    threading.Thread(target=echo.serve_forever, args=[0.01], daemon=True).start()


def test_a_cut_resets_connections_and_refuses_new_ones_until_it_is_healed(
    proxy: FaultProxy, client: socket.socket
) -> None:
    port = proxy.port
    proxy.cut()
    assert proxy.connections == 0
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.cut()  # again
    proxy.heal()
    assert proxy.port == port
    with connect(proxy) as again:
        assert ask(again, b"hello") == b"hello"


def test_a_reset_ends_connections_once(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as again:
        assert ask(again, b"hello") == b"hello"


def test_while_it_refuses_nobody_else_gets_the_port(proxy: FaultProxy) -> None:
    proxy.cut()
    with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", proxy.port))


def test_a_delay_counts_in_each_direction_and_ends_at_once(proxy: FaultProxy, client: socket.socket) -> None:
    def timed() -> float:
        began = time.monotonic()
        ask(client, b"hello")
        return time.monotonic() - began

    assert min(timed() for _ in range(5)) < 0.1  # negative control
    proxy.delay(0.1)
    assert 0.2 <= timed() < 5.0
    proxy.delay(600.0)
    client.sendall(b"in ten minutes")
    assert_silent(client)
    proxy.heal()
    assert receive(client, 14) == b"in ten minutes"


def test_a_delay_keeps_many_messages_on_their_way(proxy: FaultProxy, client: socket.socket) -> None:
    """Latency, not slowness: ten messages sent one after the other do not take ten times as long."""
    proxy.delay(0.1)
    began = time.monotonic()
    for _ in range(10):
        client.sendall(b"x" * 10_000)
    receive(client, 100_000)
    assert time.monotonic() - began < 1.0  # one by one: 2 s


def test_slices_make_one_message_many_pieces(proxy: FaultProxy, client: socket.socket) -> None:
    def pieces(message: bytes) -> list[int]:
        client.sendall(message)
        sizes: list[int] = []
        while sum(sizes) < len(message):
            sizes.append(len(client.recv(65536)))
        return sizes

    assert pieces(b"x" * 100) == [100]  # negative control
    proxy.slice(10, every=0.02)
    assert len(pieces(b"x" * 100)) > 2
    proxy.heal()
    assert pieces(b"x" * 100) == [100]


def test_a_target_that_is_down_is_a_reset_and_the_proxy_lives(echo: Echo) -> None:
    with FaultProxy("127.0.0.1", free_port()) as proxy:
        # The reset may come before `connect` is through.
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
        eventually(lambda: proxy.connections == 0)
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
        assert proxy.accepted == 2


def test_a_target_that_dies_resets_its_clients(echo: Echo) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        FaultProxy("127.0.0.1", target.getsockname()[1]) as proxy,
        connect(proxy) as client,
    ):
        accepted, _ = target.accept()
        with accepted:
            client.sendall(b"unread: closing with this unread is a reset")
            assert accepted.recv(1) == b"u"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_closed_proxy_leaves_no_thread_and_no_port(echo: Echo) -> None:
    before = threading.active_count()
    with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
        client = connect(proxy)
        ask(client, b"hello")
        assert proxy.address == f"127.0.0.1:{proxy.port}"
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.close()  # again
    eventually(lambda: threading.active_count() == before)
    with socket.create_server(("127.0.0.1", proxy.port)):
        pass


def test_closing_leaves_nothing_open_that_was_accepted_just_before(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0), backlog=100) as target, ExitStack() as clients:
            proxy = FaultProxy("127.0.0.1", target.getsockname()[1])
            with proxy:
                for _ in range(50):
                    client = clients.enter_context(socket.socket())
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", proxy.port))
        del proxy
        gc.collect()
    assert not unraisable
