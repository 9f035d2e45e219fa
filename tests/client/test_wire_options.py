"""The options about connections that httpx has too: they hold for the instances, and for other hosts in the same way."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from discoclient import Endpoint, Instance, RetryPolicy
from discoclient.transport import wire
from discoclient.transport.wire import Place, WireOptions
from tests.client.fleet import Fleet
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.http2 import Http2Server
from tests.support.servers import stream
from tests.support.tls import Authority

REFUSED = ("ReadError", "ConnectError", "RemoteProtocolError")
"""What a client hears of a server that misses its certificate depends on who is first to read."""


CERT_IS_OLD = pytest.mark.filterwarnings("ignore:`cert=...` is deprecated:DeprecationWarning")
"""So says httpx, which would rather have a context; it takes both."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


@pytest.fixture
def no_contexts() -> Iterator[None]:
    """Nothing that was made under another environment is used, before the test and after it."""
    wire._ssl_context.cache_clear()
    yield
    wire._ssl_context.cache_clear()


def serving(authority: Authority, *, asks_for_client: bool = False) -> ssl.SSLContext:
    """For a server that is the service ``experiment``, and ``localhost``."""
    issued = authority.issue("experiment", sans=["experiment", "localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    if asks_for_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)
    return context


async def version(client: Face, url: str = "/") -> str:
    """Which HTTP was spoken, or the kind of the error."""
    try:
        return (await client.get(url)).http_version
    except httpx.TransportError as error:
        return type(error).__name__


# ---- instances


@in_every_shell
async def test_http2_is_spoken_over_tls_if_it_is_asked_for(
    shell: Shell, fleet: Fleet, authority: Authority
) -> None:
    """One context for each client: what may be spoken is written into it."""
    options = {"retry": RetryPolicy(max_attempts=1)}
    with Http2Server(serving(authority)) as server:
        fleet.register(port=server.port, scheme="https")
        for http2, spoken in ((True, "HTTP/2"), (False, "RemoteProtocolError")):
            verify = ssl.create_default_context(cafile=str(authority.ca))
            async with shell.client(verify=verify, http2=http2, **options) as client:
                assert await version(client) == spoken


@in_every_shell
async def test_without_http1_there_is_http2_from_the_first_byte(shell: Shell, fleet: Fleet) -> None:
    with Http2Server() as server:
        fleet.register(port=server.port)
        for http1, spoken in ((False, "HTTP/2"), (True, "RemoteProtocolError")):
            options = {"http1": http1, "http2": True, "retry": RetryPolicy(max_attempts=1)}
            async with shell.client(**options) as client:
                assert await version(client) == spoken


@in_every_shell
async def test_the_authorities_of_the_environment_are_trusted_unless_it_is_not(
    shell: Shell, fleet: Fleet, authority: Authority, monkeypatch: pytest.MonkeyPatch, no_contexts: None
) -> None:
    """``$SSL_CERT_FILE``, as with httpx."""
    fleet.add(server={"tls": serving(authority)})
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    for trust_env, spoken in ((True, "HTTP/1.1"), (False, "ConnectError")):
        async with shell.client(trust_env=trust_env, retry=RetryPolicy(max_attempts=1)) as client:
            assert await version(client) == spoken


@CERT_IS_OLD
@in_every_shell
async def test_a_client_s_certificate_is_shown_to_instances(
    shell: Shell, fleet: Fleet, authority: Authority
) -> None:
    mine = authority.issue("me")
    fleet.add(server={"tls": serving(authority, asks_for_client=True)})
    for cert, refusals in (((str(mine.cert), str(mine.key)), ()), (None, REFUSED)):
        verify = ssl.create_default_context(cafile=str(authority.ca))  # the certificate is put into it
        options = {"verify": verify, "cert": cert, "retry": RetryPolicy(max_attempts=1)}
        async with shell.client(**options) as client:
            assert await version(client) in (refusals or ("HTTP/1.1",))


@CERT_IS_OLD
@pytest.mark.filterwarnings("ignore:`verify=<str>` is deprecated:DeprecationWarning")
@in_every_shell
async def test_a_client_s_certificate_is_shown_beside_a_path_of_authorities_too(
    shell: Shell, fleet: Fleet, authority: Authority
) -> None:
    mine = authority.issue("me")
    fleet.add(server={"tls": serving(authority, asks_for_client=True)})
    options = {"verify": str(authority.ca), "cert": (str(mine.cert), str(mine.key))}
    async with shell.client(retry=RetryPolicy(max_attempts=1), **options) as client:
        assert await version(client) == "HTTP/1.1"


def test_a_context_for_http2_is_not_one_for_http1(no_contexts: None) -> None:
    """httpcore writes into a context what may be spoken, at each connection: two clients would cut each other's short."""
    endpoint = Endpoint(
        Instance(service="experiment", id="a" * 8, host="127.0.0.1", port=443, scheme="https"), now=0.0
    )
    with_it, same, without = (Place(endpoint, WireOptions(http2=http2)).tls for http2 in (True, True, False))
    assert with_it is same
    assert with_it is not without


# ---- other hosts


@in_every_shell
async def test_verify_holds_for_other_hosts(
    shell: Shell, fleet: Fleet, authority: Authority, trusting: ssl.SSLContext
) -> None:
    other = fleet.servers.start(tls=serving(authority))
    for options, spoken in (({"verify": trusting}, "HTTP/1.1"), ({}, "ConnectError")):
        async with shell.client(**options) as client:
            assert await version(client, f"https://localhost:{other.port}/") == spoken


@CERT_IS_OLD
@in_every_shell
async def test_a_client_s_certificate_is_shown_to_other_hosts(
    shell: Shell, fleet: Fleet, authority: Authority
) -> None:
    mine = authority.issue("me")
    other = fleet.servers.start(tls=serving(authority, asks_for_client=True))
    for cert, refusals in (((str(mine.cert), str(mine.key)), ()), (None, REFUSED)):
        verify = ssl.create_default_context(cafile=str(authority.ca))  # the certificate is put into it
        async with shell.client(verify=verify, cert=cert) as client:
            assert await version(client, f"https://localhost:{other.port}/") in (refusals or ("HTTP/1.1",))


@in_every_shell
async def test_http2_is_spoken_to_other_hosts_if_it_is_asked_for(
    shell: Shell, fleet: Fleet, authority: Authority
) -> None:
    with Http2Server(serving(authority)) as server:
        for http2, spoken in ((True, "HTTP/2"), (False, "RemoteProtocolError")):
            verify = ssl.create_default_context(cafile=str(authority.ca))
            async with shell.client(verify=verify, http2=http2) as client:
                assert await version(client, f"https://localhost:{server.port}/") == spoken


@in_every_shell
async def test_without_http1_other_hosts_are_spoken_to_in_http2_from_the_first_byte(
    shell: Shell, fleet: Fleet
) -> None:
    with Http2Server() as server:
        for http1, spoken in ((False, "HTTP/2"), (True, "RemoteProtocolError")):
            async with shell.client(http1=http1, http2=True) as client:
                assert await version(client, f"http://127.0.0.1:{server.port}/") == spoken


@in_every_shell
async def test_limits_hold_for_other_hosts(shell: Shell, fleet: Fleet) -> None:
    other = fleet.servers.start(stream([b"x"], wait=lambda: False))
    timeout = httpx.Timeout(10.0, pool=0.02)
    async with shell.client(limits=httpx.Limits(max_connections=1), timeout=timeout) as client:
        held = await client.open(url=other.url)
        with pytest.raises(httpx.PoolTimeout):
            await client.open(url=other.url)
        await client.close_response(held)
    async with shell.client(timeout=timeout) as client:
        for held in [await client.open(url=other.url) for _ in range(2)]:
            await client.close_response(held)


@in_every_shell
async def test_an_http2_connection_that_broke_is_not_used_again(shell: Shell, fleet: Fleet) -> None:
    """It stays idle, as httpcore has it, and would fail every request from then on. POSTs, which are not tried again."""
    with Http2Server() as server:
        fleet.register(port=server.port, http_keepalive=600)
        async with shell.client(http1=False, http2=True) as client:
            await client.post()
            server.cut()
            results = []
            for _ in range(5):
                try:
                    results.append((await client.post()).status_code)
                except httpx.TransportError:
                    results.append(0)
    assert results[1:] == [200] * 4, "one may be lost, as with httpx"
