"""TLS over each engine: the service's name, whom a client trusts, and that it looks the same whichever engine it is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from discoclient import RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import echo
from tests.support.tls import Authority
from tests.transport.engines import carried_by, engine_for, everywhere

Serve = Callable[..., dict[str, Any]]
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


@pytest.fixture(scope="module")
def serve(authority: Authority) -> Serve:
    """Options for a server that shows a certificate for *name*; *asked*: where the names go that callers ask for."""

    def options(
        name: str, *, asked: list[str | None] | None = None, lifetime: float = 86_400.0
    ) -> dict[str, Any]:
        issued = authority.issue(name, sans=[name], lifetime=lifetime)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.cert, issued.key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if asked is not None:
            context.sni_callback = lambda _, name, __: asked.append(name)
        return {"tls": context}

    return options


def options_for(shell: Shell, engine: str, trusting: ssl.SSLContext | None = None) -> dict[str, Any]:
    """A lent transport checks by its own context, the others by the client's."""
    verify = {} if trusting is None else {"verify": trusting}
    return {"engine": engine_for(shell, engine, **verify), "retry": ONCE, **verify}


@everywhere
@in_every_shell
async def test_the_service_s_name_is_asked_for_and_checked(
    shell: Shell, engine: str, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    asked: list[str | None] = []
    server = fleet.add(echo(), server=serve("experiment", asked=asked), http_keepalive=600)
    async with shell.client(**options_for(shell, engine, trusting)) as client:
        for url in ("/", "https://experiment/"):
            response = await client.post(url, content=b"hello")
            assert (response.content, response.http_version) == (b"hello", "HTTP/1.1")
            assert carried_by(response) == ("native" if engine == "native" else "httpcore")
        big = b"x" * 1_000_000
        assert (await client.post(content=big)).content == big
    assert asked == ["experiment"], "once, for the one connection there was"
    assert server.accepted == 1


@everywhere
@pytest.mark.parametrize(
    ("name", "lifetime", "is_trusted", "words"),
    [
        ("ledger", 86_400.0, True, r"(?i)hostname mismatch|not valid for|certificate"),
        ("experiment", -60.0, True, r"(?i)expired"),
        ("experiment", 86_400.0, False, r"(?i)certificate verify failed"),
    ],
    ids=["somebody else's", "expired", "signed by a stranger"],
)
@in_every_shell
async def test_a_wrong_certificate_is_a_connect_error_that_says_so(
    shell: Shell, engine: str, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext, name: str, lifetime: float,
    is_trusted: bool, words: str,
) -> None:  # fmt: skip
    server = fleet.add(server=serve(name, lifetime=lifetime))
    async with shell.client(**options_for(shell, engine, trusting if is_trusted else None)) as client:
        for ask in (client.get, client.post):
            with pytest.raises(httpx.ConnectError, match=words) as raised:
                await ask()
            assert type(raised.value) is httpx.ConnectError
    assert server.requests == 0
    assert fleet.in_flight() == 0


@everywhere
@in_every_shell
async def test_who_shows_a_wrong_certificate_is_passed_over_for_any_method(
    shell: Shell, engine: str, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    """Nothing was sent."""
    wrong = fleet.add(server=serve("ledger"), slot="0")
    right = fleet.add(server=serve("experiment"), slot="1")
    options = options_for(shell, engine, trusting) | {"retry": RetryPolicy()}
    async with shell.client(balancer=BySlot(), **options) as client:
        response = await client.post(content=shell.body([b"x"]))
    assert (response.text, response.extensions["disco"].attempts) == (str(right.port), 2)
    assert wrong.requests == 0


@everywhere
@in_every_shell
async def test_who_says_nothing_in_the_handshake_is_a_connect_timeout(
    shell: Shell, engine: str, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    fleet.add(server={**serve("experiment"), "is_mute": True})
    timeout = httpx.Timeout(5.0, connect=0.05)
    async with shell.client(timeout=timeout, **options_for(shell, engine, trusting)) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.post()


@everywhere
@in_every_shell
async def test_a_name_may_be_said_for_one_request(
    shell: Shell, engine: str, fleet: Fleet, serve: Serve, trusting: ssl.SSLContext
) -> None:
    """httpx's own extension. For all requests there is ``server_name=``."""
    asked: list[str | None] = []
    fleet.add(server=serve("internal.example.com", asked=asked))
    async with shell.client(**options_for(shell, engine, trusting)) as client:
        extensions = {"sni_hostname": "internal.example.com"}
        assert (await client.get(extensions=extensions)).status_code == 200
    async with shell.client(
        server_name="internal.example.com", **options_for(shell, engine, trusting)
    ) as client:
        assert (await client.get()).status_code == 200
    assert asked == ["internal.example.com"] * 2
