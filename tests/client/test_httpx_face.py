"""`DiscoClient` is an httpx client in all but where its requests go."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from discoclient import AsyncDiscoClient, ConfigError, DiscoClient, Instance, RoutingError
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import Exchange, answer, break_off, close_unanswered, never, reset_unanswered


def tell_target(prefix: str = "") -> Any:
    """A behaviour: answer with what was asked for, and how."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        seen = exchange.seen
        await exchange.reply(200, f"{prefix}{seen.method} {seen.target} {seen.headers['host']}".encode())

    return behave


def test_the_clients_are_real_subclasses_of_httpx_s() -> None:
    assert issubclass(DiscoClient, httpx.Client)
    assert issubclass(AsyncDiscoClient, httpx.AsyncClient)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(DiscoClient, httpx.Client), (AsyncDiscoClient, httpx.AsyncClient)]
)
def test_no_method_of_httpx_s_has_another_signature(ours: type, theirs: type) -> None:
    for name, method in inspect.getmembers(theirs, inspect.isfunction):
        if name in ("send", "build_request"):
            assert parameters(getattr(ours, name)) == parameters(method)
        elif not name.startswith("_"):
            assert getattr(ours, name) is method, name


def parameters(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    found = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


@in_every_shell
async def test_every_method_reaches_an_instance(shell: Shell, fleet: Fleet) -> None:
    fleet.add(tell_target())
    async with shell.client() as client:
        for method in ("GET", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
            response = await client.request(method, "/a/b?c=d%20e&f=%2F")
            assert response.text == f"{method} /a/b?c=d%20e&f=%2F experiment"
        head = await client.request("HEAD", "/a")
        assert head.content == b""
        assert head.headers["content-length"] == str(len("HEAD /a experiment"))


@in_every_shell
async def test_the_verbs_of_httpx_work_as_they_do_there(shell: Shell, fleet: Fleet) -> None:
    fleet.add(tell_target())
    async with shell.client() as client:
        for verb in ("get", "options", "post", "put", "patch", "delete"):
            assert (await client._do(verb, "/v")).text == f"{verb.upper()} /v experiment"


@in_every_shell
async def test_the_url_and_the_host_are_the_service_s(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(service="price-list")
    async with shell.client("price-list") as client:
        response = await client.get("/x")
    assert str(client.raw.base_url) == "http://price-list"
    assert str(response.url) == "http://price-list/x"
    assert server.seen[0].headers["host"] == "price-list"


@in_every_shell
async def test_the_host_header_may_be_another_one(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client(host_header="api.example.com") as client:
        response = await client.get("/x")
    assert server.seen[0].headers["host"] == "api.example.com"
    assert str(response.url) == "http://experiment/x"


@in_every_shell
async def test_base_url_is_a_path_before_every_path(shell: Shell, fleet: Fleet) -> None:
    fleet.add(tell_target())
    async with shell.client(base_url="/api") as client:
        assert (await client.get("/users/1")).text == "GET /api/users/1 experiment"
        assert (await client.get("users/1")).text == "GET /api/users/1 experiment"
        assert (await client.get("http://experiment/other")).text == "GET /other experiment"


@in_every_shell
async def test_absolute_urls_of_the_service_are_balanced_whatever_their_scheme_and_port(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add()
    async with shell.client() as client:
        for url in (
            "http://experiment/",
            "https://experiment/",
            "http://experiment:8080/",
            "http://EXPERIMENT/",
        ):
            assert await client.port(url) == server.port


@in_every_shell
async def test_requests_to_other_hosts_never_reach_an_instance(shell: Shell, fleet: Fleet) -> None:
    ours, other = fleet.add(), fleet.servers.start()
    async with shell.client() as client:
        response = await client.get(f"{other.url}/x")
        assert response.text == str(other.port)
        assert "disco" not in response.extensions
        with pytest.raises(httpx.ConnectError):
            await client.get("http://experiment.invalid/")
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://other/")
    assert other.seen[0].headers["host"] == other.address
    assert ours.requests == 0


@in_every_shell
async def test_what_the_client_is_told_goes_to_other_hosts_too(shell: Shell, fleet: Fleet) -> None:
    other = fleet.servers.start()
    async with shell.client(headers={"X-Mine": "1"}, auth=("me", "secret"), timeout=3) as client:
        await client.get(other.url)
    assert other.seen[0].headers["x-mine"] == "1"
    assert other.seen[0].headers["authorization"].startswith("Basic ")
    assert other.requests == 1


@in_every_shell
async def test_a_transport_that_is_given_is_for_other_hosts_only(shell: Shell, fleet: Fleet) -> None:
    ours = fleet.add()
    mock = httpx.MockTransport(lambda request: httpx.Response(418))
    async with shell.client(transport=mock) as client:
        assert (await client.get("http://elsewhere/")).status_code == 418
        assert await client.port() == ours.port


@in_every_shell
async def test_mounts_for_other_hosts_stay_beside_the_service_s(shell: Shell, fleet: Fleet) -> None:
    ours = fleet.add()
    mock = httpx.MockTransport(lambda request: httpx.Response(418))
    async with shell.client(mounts={"all://mocked": mock, "http://": mock}) as client:
        assert (await client.get("http://mocked/")).status_code == 418
        assert (await client.get("http://elsewhere/")).status_code == 418
        assert await client.port() == ours.port


@in_every_shell
async def test_proxies_of_the_environment_are_for_other_hosts_and_never_for_instances(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, proxy = fleet.add(), fleet.servers.start(answer(b"I am the proxy"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    async with shell.client() as client:
        assert await client.port() == ours.port
        assert (await client.get("http://elsewhere.invalid/")).text == "I am the proxy"
    async with shell.client(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://elsewhere.invalid/")
    assert proxy.requests == 1


@in_every_shell
async def test_whether_the_environment_is_trusted_can_be_asked_as_with_httpx(shell: Shell) -> None:
    for options, is_trusted in (({"trust_env": False}, False), ({}, True)):
        async with shell.client(**options) as client:
            assert client.raw.trust_env is is_trusted


@in_every_shell
async def test_a_proxy_argument_is_for_other_hosts_and_never_for_instances(
    shell: Shell, fleet: Fleet
) -> None:
    ours, proxy = fleet.add(), fleet.servers.start(answer(b"I am the proxy"))
    async with shell.client(proxy=proxy.url) as client:
        assert await client.port() == ours.port
        assert (await client.get("http://elsewhere.invalid/")).text == "I am the proxy"


@in_every_shell
async def test_httpx_s_own_arguments_work(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(b"\xe9", headers={"set-cookie": "a=1; Path=/"}))
    seen: list[str] = []

    def on_request(request: httpx.Request) -> None:
        seen.append(str(request.url))

    async def on_request_async(request: httpx.Request) -> None:
        on_request(request)

    async with shell.client(
        params={"p": "1"},
        headers={"X-Mine": "yes"},
        cookies={"mine": "2"},
        auth=("me", "secret"),
        default_encoding="latin-1",
        event_hooks={"request": [on_request if shell.is_sync else on_request_async]},
    ) as client:
        assert (await client.get("/x")).text == "é"
        await client.get("/x")
    assert seen == ["http://experiment/x?p=1"] * 2
    first, second = (request.headers for request in server.seen)
    assert first["x-mine"] == "yes"
    assert first["authorization"].startswith("Basic ")
    assert first["cookie"] == "mine=2"
    assert "a=1" in second["cookie"]


@in_every_shell
async def test_a_closed_client_says_so_as_httpx_does(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    client = shell.client()
    await client.get()
    await client.close()
    assert client.raw.is_closed
    with pytest.raises(RuntimeError, match="closed"):
        await client.get()
    await client.close()


@in_every_shell
async def test_errors_of_the_wire_are_httpx_s_own_with_the_request(shell: Shell, fleet: Fleet) -> None:
    cases = [
        (close_unanswered(), httpx.RemoteProtocolError),
        (reset_unanswered(), httpx.ReadError),
        (never(), httpx.ReadTimeout),
        (break_off(), httpx.RemoteProtocolError),
    ]
    async with shell.client() as client:
        for behaviour, expected in cases:
            server = fleet.add(behaviour)
            with pytest.raises(expected) as caught:
                await client.post("/x", timeout=0.1 if expected is httpx.ReadTimeout else 5)
            assert type(caught.value) is expected
            assert str(caught.value.request.url) == "http://experiment/x"
            fleet.remove(server)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_status_errors_are_httpx_s_own(shell: Shell, fleet: Fleet) -> None:
    fleet.add(answer(status=404))
    async with shell.client() as client:
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            (await client.get("/x")).raise_for_status()


@in_every_shell
async def test_a_response_says_who_answered(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(version="2.4.1", zone="here") for _ in range(2)]
    revision = fleet.handle.snapshot("experiment").revision
    by_port = {server.port: fleet.instance(server) for server in servers}
    async with shell.client() as client:
        for _ in range(5):
            response = await client.get()
            routed = response.extensions["disco"]
            assert routed.instance == by_port[int(response.text)]
            assert isinstance(routed.instance, Instance)
            assert routed.instance.version == "2.4.1"
            assert routed.attempts == 1
            assert routed.revision == revision
            assert response.extensions["http_version"] == b"HTTP/1.1"
            assert response.reason_phrase == "Whatever"


@in_every_shell
async def test_the_revision_in_a_response_is_that_of_the_set_it_was_picked_from(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add()
    async with shell.client() as client:
        before = (await client.get()).extensions["disco"].revision
        fleet.add()
        after = (await client.get()).extensions["disco"].revision
    assert after == fleet.handle.snapshot("experiment").revision > before


@in_every_shell
async def test_many_services_in_one_client_through_mounts(shell: Shell, fleet: Fleet) -> None:
    one, other = fleet.add(service="experiment"), fleet.add(service="ledger")
    outside = fleet.servers.start()
    async with shell.many() as client:
        assert await client.port("disco://experiment/x") == one.port
        assert await client.port("disco://ledger/y?z") == other.port
        assert await client.port(outside.url) == outside.port
        response = await client.get("disco://ledger/")
    assert str(response.url) == "disco://ledger/"
    assert response.extensions["disco"].instance == fleet.instance(other)
    assert one.seen[0].headers["host"] == "experiment"
    assert other.seen[0].target == "/y?z"


@in_every_shell
async def test_a_transport_for_one_service_carries_nothing_else(shell: Shell, fleet: Fleet) -> None:
    """A redirect, or an absolute URL with credentials, must not end up at an instance."""
    server = fleet.add()
    async with shell.plain_client(transport=shell.transport("experiment")) as client:
        assert await client.port("http://experiment/x") == server.port
        assert await client.port(f"http://127.0.0.1:{server.port}/x") == server.port
        for url in (
            "http://whatever.example/x",
            "https://login.example.com/",
            f"http://127.0.0.1:{server.port - 1}/x",
            "http://127.0.0.1/x",
        ):
            with pytest.raises(RoutingError, match=r"carries requests to 'experiment' alone.*mounts="):
                await client.get(url)
        for url in ("ftp://experiment/x", "ws://experiment/x"):
            with pytest.raises(httpx.UnsupportedProtocol, match="http://, https:// or disco://"):
                await client.get(url)
    assert len(server.seen) == 2


@in_every_shell
async def test_a_transport_for_one_service_is_known_by_its_host_header_too(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add()
    transport = shell.transport("experiment", host_header="api.example.com:8443")
    async with shell.plain_client(transport=transport) as client:
        assert await client.port("http://api.example.com/x") == server.port


@in_every_shell
async def test_a_service_name_of_digits_or_of_one_letter_is_as_good_as_any(
    shell: Shell, fleet: Fleet
) -> None:
    for name in ("7", "x", "2024", "a--b", "0x1", "x" * 63, "xn--fiqs8s"):
        server = fleet.add(service=name)
        async with shell.client(name) as client, shell.many() as many:
            assert await client.port() == server.port
            assert await many.port(f"disco://{name}/") == server.port


def test_a_service_whose_name_httpx_can_t_read_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigError, match=r"'xn--ab' can't be the host of a URL.*another name"):
        DiscoClient("xn--ab")
