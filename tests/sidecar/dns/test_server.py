"""The DNS server on real sockets, asked by dnslib's client, by dnspython, and by hand."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import httpx
import pytest
from dnslib import DNSRecord

from disco_sidecar.dns import Capacity, DnsServer, Limits
from discoclient.model.errors import ConfigError
from discoclient.model.instance import Instance
from tests.sidecar.dns.asking import instance, records, status
from tests.support.ports import free_port
from tests.support.servers import Servers

KNOWN: dict[str, Sequence[Instance] | None] = {
    "web": [instance(1)],
    "many": [instance(number) for number in range(1, 101)],
    "unknown": None,
}
WAIT = 5.0


async def look_up(service: str) -> Sequence[Instance] | None:
    return KNOWN.get(service, ())


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer("127.0.0.1", 0, lookup=look_up) as running:
        yield running


async def udp(server: DnsServer, name: str, rdtype: str = "A", **options: Any) -> dns.message.Message:
    host, port = server.address
    return await dns.asyncquery.udp(dns.message.make_query(name, rdtype, **options), host, WAIT, port)


async def tcp(server: DnsServer, name: str, rdtype: str = "A", **options: Any) -> dns.message.Message:
    host, port = server.address
    return await dns.asyncquery.tcp(dns.message.make_query(name, rdtype, **options), host, WAIT, port)


@asynccontextmanager
async def connected(server: DnsServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


def framed(*queries: dns.message.Message) -> bytes:
    wires = [query.to_wire() for query in queries]
    return b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)


async def read_framed(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(WAIT):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return dns.message.from_wire(await reader.readexactly(length))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection without a further byte."""
    async with asyncio.timeout(WAIT):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize("over_tcp", [False, True], ids=["udp", "tcp"])
async def test_dnslibs_own_client_is_answered(server: DnsServer, over_tcp: bool) -> None:
    host, port = server.address
    question = DNSRecord.question("web.disco", "SRV")
    sent = await asyncio.to_thread(question.send, host, port, tcp=over_tcp, timeout=WAIT)
    answer = DNSRecord.parse(sent)
    assert answer.header.id == question.header.id
    assert [str(each.rdata) for each in answer.rr] == ["0 100 8000 web-000001.web.disco."]
    assert [str(each.rdata) for each in answer.ar] == ["10.0.0.1"]


@pytest.mark.parametrize("ask", [udp, tcp])
async def test_dnspython_is_answered(server: DnsServer, ask: Callable[..., Any]) -> None:
    assert records(await ask(server, "WEB.disco.")) == ["A 10.0.0.1"]
    assert status(await ask(server, "web.disco.", "AAAA")) == "NODATA"
    assert status(await ask(server, "no.disco.")) == "NXDOMAIN"
    assert status(await ask(server, "unknown.disco.")) == "SERVFAIL"
    assert status(await ask(server, "example.org.")) == "REFUSED"


async def test_a_client_that_is_told_of_a_cut_finds_the_rest_over_tcp(server: DnsServer) -> None:
    host, port = server.address
    query = dns.message.make_query("many.disco.", "SRV")
    answer, was_cut = await dns.asyncquery.udp_with_fallback(query, host, WAIT, port)
    assert was_cut
    assert len(records(answer)) == 100
    assert len(records(answer, "additional")) == 100


async def test_an_srv_record_leads_to_the_process_that_listens(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Servers() as servers:
        listening = servers.start()
        monkeypatch.setitem(
            KNOWN, "shop", [instance(1, service="shop", host="127.0.0.1", port=listening.port)]
        )
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [server.address[0]], server.address[1]
        (found,) = await resolver.resolve("_http._tcp.shop.disco.", "SRV")
        (address,) = await resolver.resolve(found.target, "A")
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"http://{address.address}:{found.port}/hello")
        assert response.status_code == 200
        assert [seen.target for seen in listening.seen] == ["/hello"]


async def test_it_listens_on_ipv6_as_well() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with DnsServer("::1", 0, lookup=look_up) as server:
        assert server.address[0] == "::1"
        assert records(await udp(server, "web.disco.")) == ["A 10.0.0.1"]
        assert records(await tcp(server, "web.disco.")) == ["A 10.0.0.1"]


def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with DnsServer("127.0.0.1", 0, lookup=look_up) as server, connected(server) as (reader, writer):
            host, port = server.address
            question = DNSRecord.question("web.disco", "A")
            for over_tcp in (False, True):
                sent = await asyncio.to_thread(question.send, host, port, tcp=over_tcp, timeout=WAIT)
                assert [str(each.rdata) for each in DNSRecord.parse(sent).rr] == ["10.0.0.1"]
            writer.write(framed(dns.message.make_query("many.disco.", "SRV")))
            assert len(records(await read_framed(reader))) == 100

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# --- connections -----------------------------------------------------------------------------------------------------


async def test_queries_in_one_piece_are_answered_in_their_order(server: DnsServer) -> None:
    queries = [
        dns.message.make_query(name, "A") for name in ("web.disco.", "no.disco.", "unknown.disco.")
    ] * 20
    async with connected(server) as (reader, writer):
        writer.write(framed(*queries))
        answers = [await read_framed(reader) for _ in queries]
    assert [answer.id for answer in answers] == [query.id for query in queries]
    assert [status(answer) for answer in answers] == ["NOERROR", "NXDOMAIN", "SERVFAIL"] * 20


async def test_who_sends_many_queries_at_once_does_not_keep_others_waiting() -> None:
    looked_up: list[str] = []

    async def note(service: str) -> Sequence[Instance] | None:
        looked_up.append(service)
        return KNOWN["many"]

    async with (
        DnsServer("127.0.0.1", 0, lookup=note) as server,
        connected(server) as (reader, writer),
        connected(server) as (other, into_other),
    ):
        writer.write(framed(*[dns.message.make_query("busy.disco.", "SRV")] * 100))
        into_other.write(framed(dns.message.make_query("web.disco.", "A")))
        await read_framed(other)
        for _ in range(100):
            await read_framed(reader)
    assert looked_up.index("web") < 50


async def test_a_query_may_come_byte_by_byte(server: DnsServer) -> None:
    async with connected(server) as (reader, writer):
        for byte in framed(dns.message.make_query("web.disco.", "A")):
            writer.write(bytes([byte]))
            await writer.drain()
        assert records(await read_framed(reader)) == ["A 10.0.0.1"]
        writer.write_eof()
        assert await ended(reader)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x00",
        b"\x00\x05hello",
        b"\xff\xff" + b"x" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x0c" + b"\xff" * 12,
    ],
    ids=["length 0", "too short", "too long", "HTTP", "a reply"],
)
async def test_what_is_no_query_ends_its_connection_and_no_other(server: DnsServer, sent: bytes) -> None:
    async with connected(server) as (other, into_other), connected(server) as (reader, writer):
        writer.write(sent)
        assert await ended(reader)
        into_other.write(framed(dns.message.make_query("web.disco.", "A")))
        assert records(await read_framed(other)) == ["A 10.0.0.1"]


@pytest.mark.parametrize(
    "sent", [b"", b"\x00", b"\x00\x1e\x00"], ids=["nothing", "half a length", "half a query"]
)
async def test_a_connection_that_rests_too_long_is_ended(sent: bytes) -> None:
    impatient = DnsServer("127.0.0.1", 0, lookup=look_up, capacity=Capacity(idle_timeout=0.05))
    async with impatient as server, connected(server) as (reader, writer):
        writer.write(sent)
        assert await ended(reader)


async def test_a_connection_too_many_is_closed_and_a_place_that_is_left_is_taken() -> None:
    query = framed(dns.message.make_query("web.disco.", "A"))
    async with DnsServer("127.0.0.1", 0, lookup=look_up, capacity=Capacity(connections=1)) as server:
        async with connected(server) as (reader, writer):
            writer.write(query)
            await read_framed(reader)
            async with connected(server) as (refused, _):
                assert await ended(refused)
            writer.write_eof()
            assert await ended(reader)
        assert records(await tcp(server, "web.disco.")) == ["A 10.0.0.1"]


async def test_a_client_that_takes_no_replies_is_ended() -> None:
    queries = framed(*[dns.message.make_query("many.disco.", "SRV")] * 20)
    async with DnsServer("127.0.0.1", 0, lookup=look_up, capacity=Capacity(idle_timeout=0.3)) as server:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        with slow:
            await loop.sock_connect(slow, server.address)
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(30):
                    while True:
                        await loop.sock_sendall(slow, queries)


# --- knowledge that doesn't come -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [udp, tcp])
async def test_a_lookup_that_fails_or_hangs_is_a_failure_in_time(ask: Callable[..., Any]) -> None:
    async def trouble(service: str) -> Sequence[Instance] | None:
        if service == "raises":
            raise ValueError("no")
        await asyncio.Event().wait()
        return ()

    async with DnsServer("127.0.0.1", 0, lookup=trouble, capacity=Capacity(lookup_timeout=0.05)) as server:
        assert status(await ask(server, "raises.disco.")) == "SERVFAIL"
        assert status(await ask(server, "hangs.disco.")) == "SERVFAIL"


async def test_datagrams_beyond_those_being_answered_are_dropped_until_there_is_room() -> None:
    asked: list[str] = []
    go_on = asyncio.Event()

    async def wait(service: str) -> Sequence[Instance] | None:
        asked.append(service)
        await go_on.wait()
        return [instance(1)]

    async with DnsServer("127.0.0.1", 0, lookup=wait, capacity=Capacity(pending=2)) as server:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(server.address)
            for number in range(5):
                client.send(dns.message.make_query(f"s{number}.disco.", "A", id=number).to_wire())
            while len(asked) < 2:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            go_on.set()
            async with asyncio.timeout(WAIT):
                answers = [dns.message.from_wire(await loop.sock_recv(client, 512)) for _ in range(2)]
        assert asked == ["s0", "s1"]
        assert [answer.id for answer in answers] == [0, 1]
        assert records(await udp(server, "web.disco.")) == ["A 10.0.0.1"]


# --- bad input, and the end ------------------------------------------------------------------------------------------


async def test_garbage_leaves_no_more_than_lines_at_debug_and_a_server_that_answers(
    server: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chance = random.Random(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(server.address)
        client.send(b"")
        for _ in range(200):
            client.send(chance.randbytes(chance.randrange(1, 1500)))
            await asyncio.sleep(0)
    for _ in range(20):
        async with connected(server) as (reader, writer):
            writer.write(chance.randbytes(100))
            writer.write_eof()
            async with asyncio.timeout(WAIT):
                try:
                    await reader.read()
                except ConnectionResetError:
                    pass
    assert records(await udp(server, "web.disco.")) == ["A 10.0.0.1"]
    assert caplog.records == []


async def test_closing_ends_connections_and_frees_the_port() -> None:
    server = DnsServer("127.0.0.1", free_port(), lookup=look_up)
    with pytest.raises(RuntimeError, match="not open"):
        _ = server.address
    await server.start()
    host, port = server.address
    async with connected(server) as (reader, writer):
        writer.write(framed(dns.message.make_query("web.disco.", "A")))
        await read_framed(reader)
        await server.close()
        await server.close()
        assert await ended(reader)
    async with DnsServer(host, port, lookup=look_up) as again:
        assert again.address == (host, port)
        assert records(await udp(again, "web.disco.")) == ["A 10.0.0.1"]


async def test_a_port_that_is_taken_is_an_error_and_nothing_stays_open(server: DnsServer) -> None:
    host, port = server.address
    second = DnsServer(host, port, lookup=look_up)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as only_udp:
        taken = free_port()
        only_udp.bind((host, taken))
        with pytest.raises(OSError, match="in use"):
            await DnsServer(host, taken, lookup=look_up).start()
        socket.create_server((host, taken)).close()


async def test_several_may_share_an_address_if_they_all_want_to() -> None:
    async with DnsServer("127.0.0.1", 0, lookup=look_up, reuse_port=True) as first:
        async with DnsServer(*first.address, lookup=look_up, reuse_port=True) as second:
            assert second.address == first.address
        assert records(await udp(first, "web.disco.")) == ["A 10.0.0.1"]


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("localhost", 53, "no IP address: try 127.0.0.1 or ::1"),
        ("0.0.0.0", 53, r"not a loopback address \(127.0.0.1, ::1\)"),
        ("10.0.0.1", 53, r"not a loopback address"),
        ("127.0.0.1", 65536, "can be 0 to 65535"),
    ],
)
def test_an_address_that_cannot_be_is_wrong_usage(host: str, port: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DnsServer(host, port, lookup=look_up)


async def test_another_address_has_to_be_allowed() -> None:
    async with DnsServer("0.0.0.0", 0, lookup=look_up, allow_remote=True) as server:
        _, port = server.address
        query = dns.message.make_query("web.disco.", "A")
        assert records(await dns.asyncquery.udp(query, "127.0.0.1", WAIT, port)) == ["A 10.0.0.1"]


@pytest.mark.parametrize("field", ["connections", "idle_timeout", "lookup_timeout", "pending"])
def test_capacities_are_more_than_nothing(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 0: it must be more than 0"):
        Capacity(**{field: 0})


async def test_limits_are_the_servers() -> None:
    async with DnsServer("127.0.0.1", 0, lookup=look_up, limits=Limits(addresses=3, ttl=9)) as server:
        answer = await udp(server, "many.disco.")
        assert len(records(answer)) == 3
        assert answer.answer[0].ttl == 9


def test_the_sidecar_without_dns_does_not_load_it() -> None:
    program = (
        "import sys, disco_sidecar.__main__; print([n for n in sys.modules if 'dns' in n.split('.')[-1]])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert "dnslib" not in done.stdout
    assert "disco_sidecar.dns" not in done.stdout
    assert done.returncode == 0
