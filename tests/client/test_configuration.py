"""What a client is told, by its arguments, by the registry's address and by the environment."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from discoclient import (
    AsyncDiscoClient,
    AsyncDiscoTransport,
    ConfigError,
    DiscoClient,
    DiscoTransport,
    NoInstances,
    OutlierPolicy,
    RetryPolicy,
    connect,
)
from discoclient.control.hub import fresh_hub
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import Servers

MAKERS = [DiscoClient, AsyncDiscoClient, DiscoTransport, AsyncDiscoTransport]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "a/b",
        "x" * 64,
        "http://a",
        "a:80",
        "é",
        "a b",
        "a\n",
        None,
        7,
        b"a",
    ],
)
def test_a_wrong_service_name_is_a_config_error(make: Any, name: Any) -> None:
    if name is None and make in (DiscoTransport, AsyncDiscoTransport):
        return  # any service
    with pytest.raises(ConfigError, match="is not a service name: 1 to 63 of a-z, 0-9 and '-'"):
        make(name)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("balancer", ["", "peak-ewma", "PEAK_EWMA", None, 3, object(), DiscoClient])
def test_a_wrong_balancer_is_a_config_error_that_names_the_choices(make: Any, balancer: Any) -> None:
    with pytest.raises(ConfigError, match="peak_ewma, least_request, round_robin, random") as caught:
        make("experiment", balancer=balancer)
    assert repr(balancer) in str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": None}, "retry= must be a RetryPolicy"),
        ({"retry": 3}, "retry= must be a RetryPolicy; got 3"),
        ({"outlier": {}}, "outlier= must be a OutlierPolicy|outlier= must be an OutlierPolicy"),
        ({"discovery_timeout": 0}, "discovery_timeout must be a number of seconds, more than 0"),
        ({"discovery_timeout": -1}, "discovery_timeout"),
        ({"discovery_timeout": None}, "discovery_timeout"),
        ({"discovery_timeout": math.nan}, "discovery_timeout"),
        ({"discovery_timeout": math.inf}, "discovery_timeout"),
        ({"discovery_timeout": "5"}, "discovery_timeout"),
        ({"registry": "127.0.0.1:2379"}, "not a registry URL.*etcd://.*etcds://.*memory://.*static://"),
        ({"registry": "http://127.0.0.1:2379"}, "not a registry URL"),
        ({"registry": "etcd://"}, "host:port"),
        ({"registry": "etcd://127.0.0.1:2379?tls=1"}, "unknown option 'tls'.*hostnames"),
        ({"registry": "etcds://127.0.0.1:2379?a=b"}, "the options are ca, cert, key, server_name, hostnames"),
        ({"registry": "etcd://127.0.0.1:99999"}, "host:port"),
        ({"registry": "static://"}, "static://service=host:port"),
        ({"registry": "static://Experiment=127.0.0.1:80"}, "not a service name"),
        ({"registry": "static://experiment=169.254.169.254:80"}, "can't be called"),
        ({"registry": "memory://a b"}, "name in memory://name"),
        ({"registry": 7}, "not a registry URL"),
    ],
)
def test_a_wrong_value_is_a_config_error_that_says_what_is_right(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make("experiment", **options)


@pytest.mark.parametrize("make", [DiscoClient, AsyncDiscoClient])
@pytest.mark.parametrize("base_url", ["api", "http://experiment", "http://elsewhere/api"])
def test_base_url_is_a_path(make: Any, base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url= is a path that begins with '/'"):
        make("experiment", base_url=base_url)


@in_every_shell
async def test_base_url_can_t_change_the_host(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client(base_url="//elsewhere/api") as client:
        assert await client.port("/x") == server.port
    assert server.seen[0].headers["host"] == "experiment"


@pytest.mark.parametrize("make", [DiscoClient, AsyncDiscoClient])
def test_an_unknown_argument_is_refused_as_httpx_refuses_it(make: Any) -> None:
    with pytest.raises(TypeError, match="timout"):
        make("experiment", timout=3)


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (
            RetryPolicy,
            {"max_attempts": 0},
            "RetryPolicy.max_attempts must be a whole number, 1 or more; got 0",
        ),
        (RetryPolicy, {"max_attempts": 2.0}, "max_attempts"),
        (RetryPolicy, {"max_attempts": True}, "max_attempts"),
        (RetryPolicy, {"max_attempts_sent": 0}, "max_attempts_sent"),
        (
            RetryPolicy,
            {"connect_timeout": 0},
            "connect_timeout must be a number of seconds, more than 0; got 0",
        ),
        (RetryPolicy, {"connect_timeout": math.inf}, "connect_timeout"),
        (OutlierPolicy, {"consecutive_failures": 0}, "consecutive_failures"),
        (OutlierPolicy, {"base_ejection": -1.0}, "base_ejection"),
        (OutlierPolicy, {"base_ejection": 10.0, "max_ejection": 5.0}, "max_ejection must not be smaller"),
        (OutlierPolicy, {"max_ejected": 1.5}, "between 0 and 1; got 1.5"),
    ],
)
def test_a_wrong_policy_value_is_a_config_error_that_names_it(
    policy: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        policy(**options)


def test_a_config_error_holds_no_password() -> None:
    for url in ("etcd://me:hunter2@127.0.0.1:2379?x=1", "etcd://me:hunter2@:::", "etcd://me:hunter2@h:1/a b"):
        with pytest.raises(ConfigError) as caught:
            DiscoClient("experiment", registry=url)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(
        DiscoClient("experiment", registry="etcd://me:hunter2@127.0.0.1:1")._disco.__dict__
    )


def test_a_host_that_can_t_be_a_service_is_a_config_error_under_disco_urls() -> None:
    with (
        fresh_hub(),
        httpx.Client(mounts={"disco://": DiscoTransport(registry="memory://x")}) as client,
        pytest.raises(ConfigError, match="is not a service name"),
    ):
        client.get("disco://not_a_name/")


@in_every_shell
async def test_a_static_registry_needs_no_server(shell: Shell, servers: Servers) -> None:
    one, two, other = servers.several(3)
    url = f"static://experiment={one.address},{two.address};ledger={other.address}"
    with fresh_hub():
        async with shell.client(registry=url, balancer="round_robin") as client:
            assert {await client.port() for _ in range(4)} == {one.port, two.port}
            response = await client.get()
            assert response.extensions["disco"].instance.port == int(response.text)
        async with shell.client("ledger", registry=url) as client:
            await client.wait_ready()
            assert await client.port() == other.port
        async with shell.client("nobody", registry=url) as client:
            with pytest.raises(NoInstances):
                await client.get()


@in_every_shell
async def test_the_registry_of_the_environment_is_used_unless_one_is_given(
    shell: Shell, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers.several(2)
    monkeypatch.setenv("DISCO_REGISTRY", f"static://experiment={one.address}")
    with fresh_hub():
        async with shell.client() as client:
            assert await client.port() == one.port
        async with shell.client(registry=f"static://experiment={other.address}") as client:
            assert await client.port() == other.port
    monkeypatch.setenv("DISCO_REGISTRY", "nonsense")
    with pytest.raises(ConfigError, match="not a registry URL"):
        shell.client()


@in_every_shell
async def test_a_transport_uses_the_registry_that_it_is_given(
    shell: Shell, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers.several(2)
    monkeypatch.setenv("DISCO_REGISTRY", f"static://experiment={one.address}")
    given = {"registry": f"static://experiment={other.address}"}
    with fresh_hub():
        for options, port in ((given, other.port), ({}, one.port)):
            async with shell.plain_client(mounts={"disco://": shell.transport(**options)}) as client:
                assert await client.port("disco://experiment/") == port


@in_every_shell
async def test_an_override_sends_one_service_to_a_fixed_address(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered, fixed = fleet.add(service="price-list"), fleet.servers.start()
    other = fleet.add(service="ledger")
    monkeypatch.setenv("DISCO_OVERRIDE_PRICE_LIST", fixed.url)
    fleet.registry.set_down(True)  # which is not asked
    async with shell.client("price-list") as client, shell.many() as many:
        await client.wait_ready()
        assert await client.port() == fixed.port
        assert await many.port("disco://price-list/x") == fixed.port
    assert fixed.seen[0].headers["host"] == "price-list"
    fleet.registry.set_down(False)
    async with shell.client("ledger") as client:
        assert await client.port() == other.port
    monkeypatch.delenv("DISCO_OVERRIDE_PRICE_LIST")
    async with shell.client("price-list") as client:
        assert await client.port() == registered.port


@in_every_shell
async def test_an_override_may_name_a_host(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = fleet.servers.start()
    monkeypatch.setenv("DISCO_OVERRIDE_EXPERIMENT", f"http://localhost:{fixed.port}")
    async with shell.client() as client:
        assert await client.port() == fixed.port


@in_every_shell
async def test_a_wrong_override_is_a_config_error_that_names_the_variable(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add()
    for value in ("localhost:3000", "ftp://a", "http://", "http://a:0", "http://a/path", "http://a?b"):
        monkeypatch.setenv("DISCO_OVERRIDE_EXPERIMENT", value)
        async with shell.client() as client:
            with pytest.raises(ConfigError, match=r"\$DISCO_OVERRIDE_EXPERIMENT (must be|needs) "):
                await client.get()


@in_every_shell
async def test_host_names_in_records_are_only_followed_where_that_was_asked_for(
    shell: Shell, servers: Servers
) -> None:
    from discoclient.testing import TestRegistry

    server = servers.start()
    with fresh_hub() as hub:
        for url, count in (("memory://strict", 0), ("memory://lenient?hostnames=1", 1)):
            TestRegistry(hub, url).add("experiment", server.port, host="localhost")
            with connect(url) as handle:
                assert len(handle.instances("experiment")) == count
            async with shell.client(registry=url) as client:
                if count:
                    assert await client.port() == server.port
                else:
                    with pytest.raises(NoInstances):
                        await client.get()


@in_every_shell
async def test_wait_ready_takes_a_number_of_seconds(shell: Shell, fleet: Fleet) -> None:
    async with shell.client() as client:
        for timeout in (-1, math.inf, math.nan, "5"):
            with pytest.raises(ConfigError, match="timeout must be a number of seconds, 0 or more"):
                await client.wait_ready(timeout)  # type: ignore[arg-type]


def test_everything_public_can_be_imported_from_the_package() -> None:
    import discoclient

    promised = {
        "DiscoClient",
        "AsyncDiscoClient",
        "DiscoTransport",
        "AsyncDiscoTransport",
        "Balancer",
        "Instance",
    }
    promised |= {
        "RetryPolicy",
        "OutlierPolicy",
        "DiscoOptions",
        "connect",
        "register",
        "DiscoError",
        "ConfigError",
    }
    promised |= {"RegistryError", "RoutingError", "NoInstances", "DiscoveryTimeout", "DeadlineExceeded"}
    assert {name for name in promised if not hasattr(discoclient, name)} == set()
    assert promised <= set(discoclient.__all__)
