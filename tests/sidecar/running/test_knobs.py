"""Each option does what it says. Each of these tests fails when its option is ignored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import httpx
import pytest

from disco_sidecar.places import Kind
from disco_sidecar.settings import Settings
from discoclient import register
from discoclient.control.hub import fresh_hub
from discoclient.model.errors import ConfigError
from tests.sidecar.running.serving import serving
from tests.support.eventually import eventually_async
from tests.support.ports import free_port
from tests.support.servers import (
    HttpServer,
    Servers,
    answer,
    blackhole,
    close_unanswered,
    in_turn,
    never,
    refused_port,
)
from tests.support.tls import Authority


@pytest.fixture(autouse=True)
def hub() -> Iterator[None]:
    with fresh_hub():
        yield


async def test_registry_says_where_the_services_are(servers: Servers) -> None:
    one, other = servers.several(2)
    for server in (one, other):
        async with serving(f"static://experiment={server.address}") as served:
            assert (await served.get()).text == str(server.port)


async def test_bind_is_where_any_service_is_found(registry: str) -> None:
    port = free_port()
    async with serving(registry, bind=(str(port),)):
        for host in ("127.0.0.1", "[::1]"):
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"http://{host}:{port}/experiment/")).status_code == 200


async def test_listen_is_an_address_of_one_service(registry: str) -> None:
    async with serving(registry, bind=("off",), listen=("0=experiment",)) as served:
        assert (await served.get("/users")).status_code == 200


async def test_a_unix_socket_does_for_any_of_them(registry: str, tmp_path: Path) -> None:
    async with serving(registry, listen=(f"unix:{tmp_path}/a=experiment",)):
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "a"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/users")).status_code == 200
    assert not (tmp_path / "a").exists()


async def test_tcp_carries_bytes(registry: str, server: HttpServer) -> None:
    async with serving(registry, tcp=("0=experiment",)) as served:
        reader, writer = await served.connect(Kind.TCP)
        writer.write(b"GET /raw HTTP/1.1\r\nHost: whatever\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    assert [seen.target for seen in server.seen] == ["/raw"]


async def test_admin_is_where_one_looks(registry: str) -> None:
    async with serving(registry, admin="0") as served, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{served.ports[Kind.ADMIN]}/healthz")
        assert answer.text == "ok\n"


async def test_dns_answers_there(registry: str, server: HttpServer) -> None:
    port = free_port()
    async with serving(registry, dns=f"127.0.0.1:{port}"):
        query = dns.message.make_query("experiment.disco.", "A")
        reply = await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", port=port, timeout=5)
        assert [str(record) for answer in reply.answer for record in answer] == ["127.0.0.1"]


@pytest.mark.parametrize(("allowed", "status"), [((), 421), (("app.example.com",), 200)])
async def test_allow_host_is_a_name_that_clients_may_have_for_us(
    allowed: tuple[str, ...], status: int, registry: str
) -> None:
    async with serving(registry, allow_host=allowed) as served:
        assert (await served.get(headers={"Host": "App.example.com"})).status_code == status


@pytest.mark.parametrize("place", [{"bind": ("0.0.0.0:0",)}, {"tcp": ("[::]:0=a",)}, {"admin": "10.0.0.1:1"}])
def test_allow_remote_admits_what_is_refused_else(place: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--allow-remote"):
        Settings.of(place)
    assert Settings.of({**place, "allow_remote": True}).remote


async def test_access_log_has_a_line_for_each_request_and_no_query(registry: str, tmp_path: Path) -> None:
    async with serving(registry, access_log=str(tmp_path / "log")) as served:
        await served.get("/experiment/users?token=secret")
    text = (tmp_path / "log").read_text()
    (line,) = map(json.loads, text.splitlines())
    assert "secret" not in text
    assert (line["service"], line["method"], line["path"], line["status"]) == (
        "experiment",
        "GET",
        "/experiment/users",
        200,
    )


async def test_zone_is_preferred(servers: Servers) -> None:
    near, far = servers.several(2)
    url = "memory://zones"
    with (
        register("experiment", near.port, host="127.0.0.1", zone="a", registry=url, quiet=0.0),
        register("experiment", far.port, host="127.0.0.1", zone="b", registry=url, quiet=0.0),
    ):
        for zone, server in (("a", near), ("b", far)):
            async with serving(url, zone=zone) as served:
                assert {(await served.get()).text for _ in range(6)} == {str(server.port)}


async def test_balancer_is_the_one_that_chooses(servers: Servers) -> None:
    addresses = [server.address for server in servers.several(3)]
    async with serving(f"static://experiment={','.join(addresses)}", balancer="round_robin") as served:
        answers = [(await served.get()).text for _ in range(6)]
    assert answers[:3] == answers[3:]
    assert len(set(answers)) == 3


@pytest.mark.parametrize("is_known", [False, True])
async def test_ca_is_whom_instances_with_tls_are_believed_by(
    is_known: bool, servers: Servers, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("experiment", sans=("experiment",))
    server = servers.start(tls=_server_context(certificate))
    url = "memory://tls"
    said = {"ca": str(authority.ca)} if is_known else {}
    with register("experiment", server.port, host="127.0.0.1", scheme="https", registry=url, quiet=0.0):
        async with serving(url, **said) as served:
            assert (await served.get()).status_code == (200 if is_known else 502)


async def test_header_timeout_is_how_long_a_head_may_take(registry: str) -> None:
    async with serving(registry, header_timeout=0.1) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 3  # by default it takes 5 s
        writer.close()


async def test_idle_timeout_is_how_long_a_client_may_say_nothing(registry: str) -> None:
    async with serving(registry, idle_timeout=0.1) as served:
        reader, writer = await served.connect()
        assert await asyncio.wait_for(reader.read(), 5) == b""  # by default it takes 30 s
        writer.close()


async def test_read_timeout_is_how_long_an_instance_may_say_nothing(
    registry: str, server: HttpServer
) -> None:
    server.behaviour = never()
    async with serving(registry, read_timeout=0.1) as served:
        assert (await served.get()).status_code == 504  # by default it takes 60 s


async def test_connect_timeout_is_how_long_connecting_may_take(server: HttpServer) -> None:
    with blackhole() as port:
        addresses = f"127.0.0.1:{port}"
        async with serving(f"static://experiment={addresses}", connect_timeout=0.05) as served:
            began = time.monotonic()
            assert (await served.get()).status_code in (502, 503, 504)
            assert time.monotonic() - began < 0.9  # by default a single attempt takes 1 s


async def test_discovery_timeout_is_how_long_a_first_request_waits_for_the_registry() -> None:
    with blackhole() as port:
        said = {"listen": ("0=experiment",), "bind": ("off",), "discovery_timeout": 0.1}
        async with serving(f"etcd://127.0.0.1:{port}", **said) as served:
            began = time.monotonic()
            assert (await served.get("/")).status_code == 503
            assert time.monotonic() - began < 1.5  # by default it takes 2 s


@pytest.mark.parametrize(("seconds", "is_finished"), [(0.05, False), (10.0, True)])
async def test_drain_is_as_patient_as_it_is_told(
    seconds: float, is_finished: bool, registry: str, server: HttpServer
) -> None:
    server.behaviour = answer(delay=0.3)
    async with serving(registry) as served:
        asking = asyncio.create_task(served.get())
        await eventually_async(lambda: server.requests)
        assert await served.sidecar.drain(seconds) is is_finished
        if is_finished:
            assert (await asking).status_code == 200
        await served.sidecar.close()
        await asyncio.gather(asking, return_exceptions=True)


async def test_max_connections_is_how_many_there_may_be(registry: str) -> None:
    async with serving(registry, max_connections=1) as served:
        _, writer = await served.connect()
        await eventually_async(lambda: served.sidecar.gate.clients)
        assert (await served.get()).status_code == 503
        writer.close()
        await eventually_async(lambda: not served.sidecar.gate.clients)
        assert (await served.get()).status_code == 200


@pytest.mark.parametrize(("size", "status"), [(0, 200), (1000, 200), (999, 413)])
async def test_max_body_is_how_large_a_body_may_be(size: int, status: int, registry: str) -> None:
    async with serving(registry, max_body=size) as served, httpx.AsyncClient(trust_env=False) as client:
        said = await client.put(f"{served.url}/experiment/", content=b"x" * 1000)
    assert said.status_code == status


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (999, 502)])
async def test_replay_is_how_large_a_body_may_be_to_be_sent_again(
    size: int, status: int, servers: Servers
) -> None:
    one, other = servers.several(2, in_turn(close_unanswered(), answer()))
    async with serving(f"static://experiment={one.address},{other.address}", replay=size) as served:
        async with httpx.AsyncClient(trust_env=False) as client:
            said = await client.put(f"{served.url}/experiment/", content=b"x" * 1000)
        assert said.status_code == status


async def test_a_refused_port_is_an_answer_and_no_exception() -> None:
    with refused_port() as port:
        async with serving(f"static://experiment=127.0.0.1:{port}") as served:
            assert (await served.get()).status_code in (502, 503)


def _server_context(certificate: object) -> object:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)  # type: ignore[attr-defined]
    return context
