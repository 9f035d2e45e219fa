"""Requests, whole and byte by byte: what is refused, what is read, and that nothing is passed on that h11 or llhttp reject."""

from __future__ import annotations

from random import Random

import h11
import httptools
import pytest

from disco_sidecar.http.reading import Limits, Message, RequestReader
from disco_sidecar.http.refusal import Refused

HOST = b"Host: localhost\r\n"
LIMITS = Limits()
GET = b"GET /web/ HTTP/1.1\r\n" + HOST + b"\r\n"


def read(data: bytes, by: int = 1 << 30, limits: Limits = LIMITS) -> list[Message]:
    """Raises `Refused`."""
    reader = RequestReader(limits)
    for at in range(0, len(data), by):
        reader.feed(data[at : at + by])
    return list(reader.messages)


def told(message: Message) -> tuple[object, ...]:
    body = b"".join(message.pieces)
    return (
        message.method,
        message.target,
        message.minor,
        body,
        message.trailers,
        message.is_complete,
        message.is_persistent,
    )


REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\rA: b\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET /\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /\x7f HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GE(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"\r\n" + GET, 400),
    (b"\n" + GET, 400),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n\r\n", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    (b"TRACE / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\n\r\n", 417),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx", 400),
    (b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 32768 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: x\r\n" * 101 + b"\r\n", 431),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
@pytest.mark.parametrize("by", [1, 7, 1 << 30])
def test_what_is_not_one_request_for_everybody_is_refused(data: bytes, status: int, by: int) -> None:
    with pytest.raises(Refused) as caught:
        read(data, by)
    assert caught.value.is_final
    assert caught.value.status == status


@pytest.mark.parametrize("behind", [data for data, _ in REFUSED])
def test_it_is_refused_behind_a_good_one_too(behind: bytes) -> None:
    if behind.startswith((b"\r\n", b"\n")):
        return
    with pytest.raises(Refused):
        read(GET + behind)


GOOD = [
    GET,
    b"GET /web/ HTTP/1.0\r\n\r\n",
    b"GET /web/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n",
    b"GET /web/a?b=%20&c=\"<>\\^`{|} HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /web/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST /web/ HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    b"POST /web/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"PATCH /web/ HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
    b"TRACE /web/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /web/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    b"POST /web/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", GOOD)
def test_it_is_read_alike_however_it_is_cut(data: bytes) -> None:
    whole = [told(message) for message in read(data)]
    assert len(whole) == 1
    assert whole[0][5]
    for cut in range(1, len(data)):
        reader = RequestReader(Limits())
        reader.feed(data[:cut])
        reader.feed(data[cut:])
        assert [told(message) for message in reader.messages] == whole
    assert [told(message) for message in read(data, 1)] == whole


@pytest.mark.parametrize("seed", range(20))
def test_requests_in_a_row_are_read_as_if_each_were_alone(seed: int) -> None:
    """What is remembered of the last one (its fields, its method) must not show in the next."""
    rng = Random(seed)
    lasting = [data for data in GOOD if read(data)[0].is_persistent]
    chosen = [rng.choice(lasting) for _ in range(30)]
    alone = [told(read(data)[0]) for data in chosen]
    data = b"".join(chosen)
    assert [told(message) for message in read(data)] == alone
    assert [told(message) for message in read(data, rng.randrange(1, 200))] == alone


@pytest.mark.parametrize(("first", "second"), [
    (b"GET / HTTP/1.1\r\n", b"CONNECT a:443 HTTP/1.1\r\n"),
    (b"GET / HTTP/1.0\r\n", b"CONNECT a:443 HTTP/1.0\r\n"),
    (b"POST / HTTP/1.1\r\n", b"TRACE / HTTP/1.1\r\n"),
    (b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n"),
])  # fmt: skip
def test_good_fields_do_not_make_a_bad_line_good(first: bytes, second: bytes) -> None:
    body = b"0\r\n\r\n" if first.startswith(b"POST") else b""
    rest = (
        HOST
        + b"Connection: keep-alive\r\n"
        + (b"Transfer-Encoding: chunked\r\n" if body else b"")
        + b"\r\n"
        + body
    )
    with pytest.raises(Refused):
        read(first + rest + second + rest)


def test_what_follows_a_request_for_another_protocol_waits() -> None:
    reader = RequestReader(Limits())
    reader.feed(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n" + GET[:10])
    reader.feed(GET[10:])
    assert reader.is_held
    assert len(reader.messages) == 1
    reader.go_on()
    assert len(reader.messages) == 2
    assert reader.is_between


def test_what_follows_a_last_request_is_not_read() -> None:
    assert len(read(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n\r\n")) == 1
    with pytest.raises(Refused):
        read(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n" + GET)


def test_a_head_of_any_size_that_comes_byte_by_byte_takes_little_time() -> None:
    """Each byte is looked at a few times, and not each time that another one comes."""
    import time

    data = b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 32_000
    began = time.process_time()
    read(data, 1)
    assert time.process_time() - began < 1.0


# ---- what others think of it

PARTS = [
    b"GET ", b"POST ", b"HEAD ", b"/web/", b"http://web/", b"*", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r",
    b"Host: localhost", b"Host: web", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 4, 4",
    b"Content-Length: +4",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: websocket", b"Expect: 100-continue",
    b" folded", b"\tfolded", b"A: b", b"A : b", b"A: \x00", b"A: \x01", b"hello", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n",
    b"5;a=b\r\n", b"0x5\r\n", b" ", b":", b"\xff",
]  # fmt: skip


def mutate(rng: Random) -> bytes:
    data = b"".join(rng.choice(GOOD) for _ in range(rng.randrange(1, 3)))
    for _ in range(rng.randrange(1, 4)):
        at, stop = rng.randrange(len(data) + 1), rng.randrange(0, 4)
        piece = rng.choice(PARTS) if rng.random() < 0.8 else bytes([rng.randrange(256)])
        data = data[:at] + piece + data[at + stop :]
    return data


def by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The complete requests. Raises `h11.RemoteProtocolError`."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    found: list[tuple[bytes, bytes, bytes]] = []
    line, body = (b"", b""), b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            line, body = (event.method, event.target), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((*line, body))
            if connection.their_state is not h11.DONE:
                return found
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found


class ByLlhttp:
    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes, bytes]] = []
        self._target = self._body = b""

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_method(), self._target, self._body))
        self._target = self._body = b""

    def read(self, data: bytes) -> list[tuple[bytes, bytes, bytes]]:
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        return self.found


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_read_that_h11_or_llhttp_reject_or_read_differently(seed: int) -> None:
    rng = Random(seed)
    accepted = 0
    for _ in range(800):
        data = mutate(rng)
        reader, by = RequestReader(Limits()), rng.choice([1 << 30, 1 << 30, 11])
        try:
            for at in range(0, len(data), by):
                reader.feed(data[at : at + by])
        except Refused:
            continue
        messages = reader.messages
        if not messages or not reader.is_between or any(message.wants_tunnel for message in messages):
            continue
        ours = [(message.method, message.target, b"".join(message.pieces)) for message in messages]
        accepted += 1
        if any(message.fields.upgrade for message in messages):  # they follow the upgrade, and see no body
            continue
        theirs = ByLlhttp().read(data)
        assert theirs[: len(ours)] == ours, data
        theirs = by_h11(data)  # it ends with the first request of HTTP/1.0
        assert theirs, data
        assert theirs == ours[: len(theirs)], data
    assert accepted > 5
