"""Upgrades become a tunnel, or none: never half of one."""

from __future__ import annotations

import base64
import hashlib
import select
import struct
import threading

import pytest

from .origin import Exchange, reply
from .stage import Stage
from .wire import get, post

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(b"0123456789abcdef")
ACCEPTED = base64.b64encode(hashlib.sha1(KEY + GUID).digest())
HANDSHAKE = get(
    "/experiment/chat",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY.decode()}",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: chat",
)


def frame(text: bytes) -> bytes:
    """A masked text frame, as clients send them."""
    mask = b"\x01\x02\x03\x04"
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
    return b"\x81" + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))


def echo(exchange: Exchange) -> None:
    """Accepts the handshake, and sends every frame's text back as an unmasked frame; at the end it says goodbye."""
    key = exchange.request.get("sec-websocket-key").encode()
    accepted = base64.b64encode(hashlib.sha1(key + GUID).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    exchange.send(
        b"\r\n".join(
            [*lines, b"Sec-WebSocket-Accept: " + accepted, b"Sec-WebSocket-Protocol: chat", b"", b""]
        )
    )
    try:
        while True:
            first, size = exchange.take(2)
            length = size & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", exchange.take(2))
            mask = exchange.take(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(exchange.take(length)))
            exchange.send(
                bytes([first])
                + (bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length))
                + text
            )
    except EOFError:
        exchange.send(b"\x88\x00")
        exchange.close()


@pytest.fixture(autouse=True)
def chat(stage: Stage) -> None:
    stage.origin.on("/chat", echo)


def test_a_websocket_handshake_goes_through_and_frames_come_back(stage: Stage) -> None:
    with stage.client() as client:
        answer = client.send(HANDSHAKE).head()
        assert answer.status == 101
        assert answer.get("sec-websocket-accept").encode() == ACCEPTED
        assert answer.get("upgrade").lower() == "websocket"
        assert "upgrade" in answer.get("connection").lower()
        assert answer.get("sec-websocket-protocol") == "chat"
        for text in (b"hello", b"x" * 125, b"y" * 60_000, b"\xff\x00\r\n\r\n"):
            client.send(frame(text))
            assert client.exactly(len(text) + (2 if len(text) < 126 else 4)).endswith(text)
    request = [request for request in stage.origin.requests if request.target == "/chat"][-1]
    assert request.get("upgrade").lower() == "websocket"
    assert request.get("connection").lower() == "upgrade"


def test_frames_right_behind_the_handshake_are_not_lost(stage: Stage) -> None:
    """An impatient client sends before it has heard the 101."""
    with stage.client() as client:
        client.send(HANDSHAKE + frame(b"early") + frame(b"bird"))
        assert client.head().status == 101
        assert client.exactly(7 + 6) == b"\x81\x05early\x81\x04bird"


def test_bytes_right_behind_the_instances_101_are_not_lost(stage: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nwelcome")
        exchange.wait_gone(5.0)

    stage.origin.on("/welcome", answer)
    with stage.client() as client:
        client.send(get("/experiment/welcome", "Upgrade: echo", "Connection: upgrade"))
        assert client.head().status == 101
        assert client.exactly(7) == b"welcome"


def test_a_half_close_is_passed_on_and_the_other_half_stays(stage: Stage) -> None:
    with stage.client() as client:
        client.send(HANDSHAKE).head()
        client.send(frame(b"last words")).half_close()
        assert client.rest() == b"\x81\x0alast words\x88\x00"


def test_an_instance_that_half_closes_can_still_be_written_to(stage: Stage) -> None:
    got: list[bytes] = []
    done = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        exchange.half_close()
        while data := exchange.take_some():
            got.append(data)
        done.set()

    stage.origin.on("/half", answer)
    with stage.client() as client:
        client.send(get("/experiment/half", "Upgrade: echo", "Connection: upgrade")).head()
        assert client.rest() == b""
        client.send(b"still here").half_close()
        assert done.wait(5.0)
    assert b"".join(got) == b"still here"


def test_an_upgrade_that_the_instance_declines_is_an_ordinary_request(stage: Stage) -> None:
    stage.origin.on("/declined", reply(426, b"no", "Upgrade: other", "Connection: Upgrade"))
    with stage.client() as client:
        request = get("/experiment/declined", "Upgrade: websocket", "Connection: Upgrade")
        assert client.send(request).reply().status == 426
        assert client.send(get("/experiment/x")).reply().status == 200


def test_an_upgrade_that_connection_does_not_name_is_none(stage: Stage) -> None:
    assert "upgrade" not in stage.seen(get("/experiment/x", "Upgrade: websocket")).names


@pytest.mark.parametrize("value", ["h2c", "H2C", "h2c, websocket", "websocket, h2c"])
def test_an_upgrade_to_http_2_is_never_tunnelled(stage: Stage, value: str) -> None:
    """Else everything behind it would go past every check (h2c smuggling)."""
    fields = [f"Upgrade: {value}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"]
    before = len(stage.origin.requests)
    answer = stage.ask(get("/experiment/x", *fields))
    assert answer.status in (200, 400, 501)
    for request in stage.origin.requests[before:]:
        assert b"h2c" not in request.raw.lower()
        assert "http2-settings" not in request.names


def test_an_upgrade_with_a_body_is_not_a_way_past_the_framing(stage: Stage) -> None:
    body = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    request = (
        b"POST /experiment/body HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body
    before = len(stage.origin.requests)
    answer = stage.ask(request)
    assert answer.status in (200, 400, 501)
    assert all(
        request.target == "/body" and request.body == body for request in stage.origin.requests[before:]
    )


@pytest.mark.parametrize("value", ["h2c", "websocket"])
def test_a_body_behind_an_upgrade_that_is_none_is_a_body(stage: Stage, value: str) -> None:
    """Not named by `Connection`, or never tunnelled: an ordinary POST, whatever its body looks like."""
    body = b"GET /evil HTTP/1.1\r\nHost: x\r\nX: "
    fields = [f"Upgrade: {value}", *(["Connection: Upgrade"] if value == "h2c" else [])]
    with stage.client() as client:
        client.send(post(f"/experiment/none-{value}", body, *fields) + get("/experiment/x"))
        assert client.reply().status == 200
        assert client.reply().status == 200
    assert stage.origin.only(f"/none-{value}").body == body


def test_a_tunnel_whose_other_end_does_not_read_holds_back_and_stays_out_of_memory(stage: Stage) -> None:
    go_on = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        go_on.wait(10.0)

    stage.origin.on("/deaf", answer)
    with stage.client() as client:
        client.send(get("/experiment/deaf", "Upgrade: echo", "Connection: upgrade")).head()
        before, sent, most = stage.sidecar.memory(), 0, 64 << 20
        client.socket.setblocking(False)
        while sent < most and select.select([], [client.socket], [], 0.3)[1]:
            sent += client.socket.send(b"x" * (1 << 20))
        assert sent < most, "nobody held the client back"
        assert stage.sidecar.memory() - before < 16 << 20
        go_on.set()


def test_a_client_that_leaves_a_tunnel_ends_it_at_the_instance(stage: Stage) -> None:
    gone = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        if exchange.wait_gone(2.0):
            gone.set()

    stage.origin.on("/leave", answer)
    client = stage.client()
    client.send(get("/experiment/leave", "Upgrade: echo", "Connection: upgrade")).head()
    client.reset()
    assert gone.wait(1.0)


def test_an_instance_that_leaves_a_tunnel_ends_it_at_the_client(stage: Stage) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        exchange.reset()

    stage.origin.on("/left", answer)
    with stage.client() as client:
        client.send(get("/experiment/left", "Upgrade: echo", "Connection: upgrade")).head()
        assert client.is_closed()
