"""Instances that speak TLS: whom a client trusts, and for which name."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient, RetryPolicy
from discoclient.transport import wire
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import answer, redirect
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


@pytest.fixture(scope="module")
def serve(authority: Authority) -> Callable[..., dict[str, Any]]:
    """Options for a server that shows a certificate for *name*."""

    def options(name: str, *, asks_for_client: bool = False) -> dict[str, Any]:
        issued = authority.issue(name, sans=[name])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.cert, issued.key)
        if asks_for_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority.ca)
        return {"tls": context}

    return options


Serve = Callable[..., dict[str, Any]]


@in_every_shell
async def test_a_certificate_must_be_for_the_service_s_name(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    server = fleet.add(server=serve("experiment"))
    wrong = fleet.add(server=serve("ledger"), service="wrong")
    async with shell.client(verify=trusting) as client:
        assert await client.port() == server.port
        assert await client.port("https://experiment/") == server.port
    async with shell.client("wrong", verify=trusting) as client:
        with pytest.raises(httpx.ConnectError, match=r"(?i)hostname mismatch|certificate"):
            await client.get()
    assert server.seen[0].headers["host"] == "experiment"
    assert wrong.requests == 0


@in_every_shell
async def test_a_certificate_must_be_signed_by_whom_we_trust(
    shell: Shell, fleet: Fleet, serve: Serve
) -> None:
    server = fleet.add(server=serve("experiment"))
    async with shell.client() as client:
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate verify failed"):
            await client.get()
    assert server.requests == 0


@in_every_shell
async def test_the_name_may_be_another_one(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    server = fleet.add(server=serve("internal.example.com"))
    async with shell.client(verify=trusting, server_name="internal.example.com") as client:
        assert await client.port() == server.port
    assert server.seen[0].headers["host"] == "experiment"


@in_every_shell
async def test_a_name_is_asked_for_on_every_connection_of_a_client_that_asks(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    """A connection that another client has made, and checked for another name, is not good enough."""
    server = fleet.add(server=serve("experiment"), http_keepalive=600)
    async with (
        shell.client(verify=trusting) as client,
        shell.client(verify=trusting, server_name="other.example.com") as demanding,
    ):
        assert await client.port() == server.port
        with pytest.raises(httpx.ConnectError):
            await demanding.get()


@in_every_shell
async def test_verification_can_be_turned_off(shell: Shell, fleet: Fleet, serve: Serve) -> None:
    server = fleet.add(server=serve("whatever"))
    async with shell.client(verify=False) as client:
        assert await client.port() == server.port


@in_every_shell
async def test_a_client_s_certificate_is_shown(
    shell: Shell, fleet: Fleet, serve: Serve, authority: Authority
) -> None:
    fleet.add(server=serve("experiment", asks_for_client=True))
    mine = authority.issue("me")
    with_mine = ssl.create_default_context(cafile=str(authority.ca))
    with_mine.load_cert_chain(mine.cert, mine.key)
    async with shell.client(verify=with_mine) as client:
        assert (await client.get()).status_code == 200
    without = ssl.create_default_context(cafile=str(authority.ca))
    async with shell.client(verify=without) as client:
        with pytest.raises(httpx.TransportError):
            await client.get()


@in_every_shell
async def test_an_instance_whose_certificate_is_wrong_is_passed_over(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    wrong = fleet.add(server=serve("ledger"), slot="0")
    right = fleet.add(server=serve("experiment"), slot="1")
    async with shell.client(verify=trusting, balancer=BySlot()) as client:
        response = await client.post(content=shell.body([b"x"]))
    assert response.extensions["disco"].attempts == 2
    assert (wrong.requests, right.requests) == (0, 1)


@in_every_shell
async def test_an_instance_that_speaks_no_tls_is_passed_over_too(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    plain = fleet.add(slot="0", scheme="https")
    right = fleet.add(server=serve("experiment"), slot="1")
    retry = RetryPolicy(connect_timeout=0.3)  # both wait for the other one to speak
    async with shell.client(verify=trusting, balancer=BySlot(), retry=retry) as client:
        assert await client.port() == right.port
    assert plain.requests == 0


@in_every_shell
async def test_one_tls_context_serves_all_instances_and_all_clients(
    shell: Shell, fleet: Fleet, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    original = httpx.create_ssl_context

    def create(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(original(*args, **kwargs))
        made[-1].load_verify_locations(authority.ca)
        return made[-1]

    wire._ssl_context.cache_clear()
    monkeypatch.setattr(httpx, "create_ssl_context", create)
    try:
        servers = [fleet.add(server=serve("experiment")) for _ in range(5)]
        for _ in range(3):
            async with shell.client(balancer="round_robin") as client:
                for _ in range(5):
                    await client.get()
        assert all(server.requests == 3 for server in servers)
        assert len(made) == 1
    finally:
        wire._ssl_context.cache_clear()


@in_every_shell
async def test_connections_over_tls_are_kept_and_closed_like_others(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    server = fleet.add(answer(b"x" * 100_000), server=serve("experiment"), http_keepalive=600)
    async with shell.client(verify=trusting) as client:
        for _ in range(5):
            assert len((await client.get()).content) == 100_000
        assert server.accepted == 1
        fleet.drain(server)
        await shell.eventually(lambda: server.connections == 0)


@in_every_shell
async def test_plain_and_tls_instances_may_stand_side_by_side(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    plain, tls = fleet.add(), fleet.add(server=serve("experiment"))
    async with shell.client(verify=trusting, balancer="round_robin") as client:
        assert {await client.port() for _ in range(4)} == {plain.port, tls.port}


@in_every_shell
async def test_a_redirect_to_the_https_address_of_an_instance_stays_with_the_service(
    shell: Shell, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    server = fleet.add(server=serve("experiment"))
    server.behaviour = redirect(f"{server.url}/there")
    async with shell.client(verify=trusting, follow_redirects=True) as client:
        response = await client.get("/")
    assert str(response.url) == "http://experiment/there"


def test_an_expired_certificate_is_refused(
    fleet: Fleet, authority: Authority, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    issued = authority.issue("expired", sans=["experiment"], lifetime=-60.0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    fleet.add(server={"tls": context})
    with (
        DiscoClient("experiment", verify=trusting) as client,
        pytest.raises(httpx.ConnectError, match="expired"),
    ):
        client.get("/")
