"""The servers that the clients' tests rely on do what they are told, as a plain client sees it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.servers import (
    HttpServer,
    Servers,
    answer,
    answer_before_the_body,
    blackhole,
    break_off,
    close_unanswered,
    echo,
    in_turn,
    never,
    redirect,
    refused_port,
    reset_unanswered,
    stream,
)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as started:
        yield started


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as made:
        yield made


def test_a_server_answers_with_its_port_and_counts(servers: Servers, client: httpx.Client) -> None:
    server = servers.start()
    for _ in range(3):
        assert client.get(f"{server.url}/x?y").text == str(server.port)
    assert (server.requests, server.accepted, server.connections, server.most_open) == (3, 1, 1, 1)
    assert (server.seen[0].method, server.seen[0].target, server.seen[0].connection) == ("GET", "/x?y", 1)
    assert server.seen[0].headers["host"] == server.address
    client.close()
    eventually(lambda: server.connections == 0)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (close_unanswered(), httpx.RemoteProtocolError),
        (reset_unanswered(), httpx.ReadError),
        (never(), httpx.ReadTimeout),
        (break_off(), httpx.RemoteProtocolError),
    ],
)
def test_a_server_that_is_to_fail_fails(
    servers: Servers, client: httpx.Client, behaviour: object, error: type[Exception]
) -> None:
    server = servers.start(behaviour)  # type: ignore[arg-type]
    with pytest.raises(error):
        client.get(server.url, timeout=0.1 if error is httpx.ReadTimeout else 10)
    eventually(lambda: server.connections == 0)
    assert server.requests == 1


def test_bodies_go_both_ways(servers: Servers, client: httpx.Client) -> None:
    server = servers.start(echo())
    for body in (b"", b"abc", b"x" * 1_000_000):
        assert client.post(server.url, content=body).content == body
        assert client.post(server.url, content=iter([body, b"!"])).content == body + b"!"
    server.behaviour = stream([b"a", b"b"])
    assert list(client.stream("GET", server.url).__enter__().iter_raw()) == [b"a", b"b"]
    server.behaviour = answer_before_the_body()
    assert client.post(server.url, content=b"x" * 1000).status_code == 413
    assert client.post(server.url, content=b"x" * 1000).status_code == 413


def test_behaviours_follow_each_other(servers: Servers, client: httpx.Client) -> None:
    server = servers.start(in_turn(answer(b"1"), answer(b"2", status=500), redirect("/there")))
    assert [client.get(server.url).status_code for _ in range(4)] == [200, 500, 302, 302]
    assert client.get(f"{server.url}/there").text == f"{server.port} /there"


def test_idle_connections_are_closed_in_time(servers: Servers, client: httpx.Client) -> None:
    server, patient = servers.start(keepalive=0.05), servers.start()
    client.get(server.url)
    client.get(patient.url)
    eventually(lambda: server.connections == 0)
    assert patient.connections == 1


def test_a_killed_server_resets_and_refuses_and_may_come_back(servers: Servers, client: httpx.Client) -> None:
    server = servers.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        eventually(lambda: server.connections == 1)
        servers.run(server.kill())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(httpx.ConnectError):
        client.get(server.url)
    servers.run(server.listen())
    assert client.get(server.url).status_code == 200


def test_a_mute_server_accepts_and_says_nothing(servers: Servers, client: httpx.Client) -> None:
    server = servers.start(is_mute=True)
    with pytest.raises(httpx.ReadTimeout):
        client.get(server.url, timeout=0.1)
    assert server.accepted == 1
    assert server.requests == 0


def test_a_refused_port_refuses_and_a_black_hole_is_silent() -> None:
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    with blackhole() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.3)


def test_answers_are_not_held_back_by_the_kernel(servers: Servers) -> None:
    """Nagle's algorithm is off, so that what a test measures is not the 40 ms of a delayed acknowledgement."""
    server: HttpServer = servers.start()
    with socket.create_connection(("127.0.0.1", server.port)):
        eventually(lambda: server.connections == 1)
        (writer,) = server.open
        sock = writer.get_extra_info("socket")
        option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 4)
        assert struct.unpack("i", option)[0] != 0
