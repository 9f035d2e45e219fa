"""A signal's handler that raises in the middle of a request, and the attempt of a race that is broken off: in threads."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import httpx
import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.model.instance import Instance
from discoclient.transport import native_sync
from discoclient.transport.carrying import Terms
from discoclient.transport.http1.head import Head
from discoclient.transport.http1.reader import BadResponse, ResponseReader
from discoclient.transport.httpcore_carriers import HttpcoreCarrier
from discoclient.transport.native_sync import NativeCarrier
from discoclient.transport.room import Room
from discoclient.transport.wire import Place, WireOptions
from tests.support.eventually import eventually
from tests.support.servers import Exchange, Servers, never
from tests.support.tls import Authority

from .scene import sync_to


async def head_first(exchange: Exchange) -> None:
    """The head of a response, whose body comes when the connection is used again, and looks like a response."""
    await exchange.body()
    if exchange.seen.target != "/slow":
        await exchange.reply(200, b"its own")
        return
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    await exchange.begin(200, {"content-length": str(len(forged))})
    waiting = exchange._reader.readuntil(b"\r\n\r\n")
    await waiting
    await exchange.write(forged)


def test_a_connection_whose_response_nobody_got_carries_no_other_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Servers() as servers:
        server = servers.start(head_first)
        with sync_to(server) as client:
            assert client.get("/").content == b"its own"
            with monkeypatch.context() as patch:
                patch.setattr(native_sync, "NativeStream", interrupt)
                with pytest.raises(KeyboardInterrupt), client.stream("GET", "/slow"):
                    pass
            assert client.get("/").content == b"its own"
        assert server.accepted == 2


def test_a_place_is_not_lost_when_taking_a_connection_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = httpx.Limits(max_connections=1)
    with Servers() as servers:
        server = servers.start()
        with sync_to(server, limits=limits, timeout=httpx.Timeout(5.0, pool=0.1)) as client:
            client.get("/")
            with monkeypatch.context() as patch:
                patch.setattr(NativeCarrier, "has_news", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    client.get("/")
            assert client.get("/").status_code == 200
        eventually(lambda: not server.connections, what="what was dropped is closed")


def test_a_place_that_is_taken_is_waited_for() -> None:
    """The negative control."""
    limits = httpx.Limits(max_connections=1)
    with Servers() as servers:
        server = servers.start()
        with sync_to(server, limits=limits, timeout=httpx.Timeout(5.0, pool=0.1)) as client:
            with client.stream("GET", "/"), pytest.raises(httpx.PoolTimeout):
                client.get("/")
            assert client.get("/").status_code == 200


@pytest.mark.parametrize("kind", [NativeCarrier, HttpcoreCarrier])
def test_what_is_broken_off_is_never_sent_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[NativeCarrier | HttpcoreCarrier]
) -> None:
    """Whoever breaks a request off is another thread, and the one that writes may come in between at any step."""
    authority = Authority(tmp_path)
    certificate = authority.issue("scene")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate.cert, certificate.key)
    options = WireOptions(verify=ssl.create_default_context(cafile=authority.ca))
    is_encrypted: list[bool] = []
    shut_down = socket.socket.shutdown

    def in_between(sock: socket.socket, how: int) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        is_encrypted.append(sock.version() is not None)
        shut_down(sock, how)

    with Servers() as servers:
        server = servers.start(never(), tls=theirs)
        instance = Instance(service="scene", id="scene-1", host="127.0.0.1", port=server.port, scheme="https")
        carrier = kind(Place(Endpoint(instance, now=0.0), options))
        request = httpx.Request("GET", "https://scene/", extensions={"timeout": {"read": 10.0}})
        terms = Terms(connect_timeout=5.0, server_name="localhost")
        ended: list[Exception] = []

        def carry() -> None:
            try:
                carrier.carry(request, request.headers.raw, terms, lambda now: None)
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=carry)
        thread.start()
        eventually(lambda: server.requests)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "shutdown", in_between)
            carrier.break_off()
        thread.join(5.0)
        assert not thread.is_alive()
        carrier.close()
    assert is_encrypted == [True]
    assert len(ended) == 1


class InterruptedReader(ResponseReader):
    def begin(self, head: Head) -> None:
        interrupt()


def test_what_a_signal_s_handler_raises_in_the_parser_is_no_bad_response() -> None:
    """It would be taken for the service's fault, and the request would be tried again."""
    with pytest.raises(KeyboardInterrupt):
        InterruptedReader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(BadResponse):  # the negative control
        ResponseReader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")


@pytest.mark.parametrize("is_free", [True, False])
def test_who_is_interrupted_at_the_door_does_not_stand_in_the_way(
    monkeypatch: pytest.MonkeyPatch, is_free: bool
) -> None:
    room = Room(1)
    if not is_free:
        assert room.enter(0.0)
    let_in = Room._let_in

    def then_interrupt(self: Room) -> None:
        let_in(self)
        monkeypatch.undo()
        interrupt()

    monkeypatch.setattr(Room, "_let_in", then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        room.enter(0.0)
    if not is_free:
        assert not room.enter(0.0), "the negative control"
        room.leave()
    assert room.enter(0.0)
    assert not room.enter(0.0)


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt
