"""The public interface as a user's type checker sees it. Never run: ``mypy --strict`` reads it, see test_typing.py."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from random import Random
from typing import assert_type

import httpx

from discoclient import (
    AsyncDiscoClient,
    AsyncDiscoTransport,
    Balancer,
    ConfigError,
    DiscoClient,
    DiscoOptions,
    DiscoTransport,
    DiscoveryTimeout,
    Endpoint,
    Instance,
    NoInstances,
    OutlierPolicy,
    Picker,
    RegistryHandle,
    RetryPolicy,
    Routed,
    Snapshot,
    State,
    connect,
    register,
)
from discoclient.testing import TestRegistry, memory_registry


class FirstPicker:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        for endpoint in self._endpoints:
            assert_type(endpoint.instance, Instance)
            assert_type(endpoint.in_flight, int)
            if endpoint.id not in tried:
                return endpoint
        return None


class First:
    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return FirstPicker(endpoints)


balancer: Balancer = First()


def sync() -> None:
    retry = RetryPolicy(max_attempts=3, max_attempts_sent=2, connect_timeout=1.0)
    outlier = OutlierPolicy(consecutive_failures=5, base_ejection=5.0, max_ejection=300.0, max_ejected=0.5)
    client = DiscoClient(
        "experiment",
        registry="memory://x",
        balancer=First(),
        retry=retry,
        outlier=outlier,
        host_header="a.example",
        server_name="b.example",
        discovery_timeout=5.0,
        base_url="/api",
        timeout=httpx.Timeout(5.0),
        limits=httpx.Limits(max_connections=10),
        headers={"a": "b"},
    )
    plain: httpx.Client = client
    with DiscoClient("experiment", balancer="peak_ewma") as client:
        assert_type(client, DiscoClient)
        assert_type(client.get("/"), httpx.Response)
        client.wait_ready()
        client.wait_ready(timeout=3.0)
        options: DiscoOptions = {"retries": 1, "exclude": ["an-instance"]}
        try:
            response = client.get("/", extensions={"disco": options})
        except (NoInstances, DiscoveryTimeout) as error:
            assert_type(error.request, httpx.Request)
            return
        except httpx.HTTPError:
            return
        except ConfigError:
            return
        routed: Routed = response.extensions["disco"]
        assert_type(routed.instance, Instance)
        assert_type(routed.attempts, int)
        assert_type(routed.revision, int)
        assert_type(routed.instance.state, State)
    with plain, httpx.Client(mounts={"disco://": DiscoTransport()}) as many:
        many.get("disco://experiment/")


async def asynchronous() -> None:
    async with AsyncDiscoClient("experiment", registry=None, balancer=balancer) as client:
        assert_type(client, AsyncDiscoClient)
        assert_type(await client.get("/"), httpx.Response)
        await client.wait_ready(3.0)
        plain: httpx.AsyncClient = client
        await plain.aclose()
    async with httpx.AsyncClient(mounts={"disco://": AsyncDiscoTransport()}) as many:
        await many.get("disco://experiment/")


def looking() -> None:
    with connect("static://experiment=127.0.0.1:80", discovery_timeout=1.0) as handle:
        assert_type(handle, RegistryHandle)
        assert_type(handle.instances("experiment"), list[Instance])
        assert_type(handle.services(), list[str])
        assert_type(handle.age("experiment"), float | None)
        assert_type(handle.watch("experiment"), Iterator[Snapshot])
        for snapshot in handle.watch("experiment"):
            assert_type(snapshot.revision, int)
            for instance in snapshot:
                assert_type(instance.host, str)
                assert_type(instance.port, int)
                assert_type(instance.http_keepalive, float | None)


def serving() -> None:
    with register("experiment", 8000, host="10.0.0.7", version="1", metadata={"a": 1}) as registration:
        assert_type(registration.instance, Instance)
        registration.set_ready(False)
        registration.drain()


def testing() -> None:
    with memory_registry() as registry:
        assert_type(registry, TestRegistry)
        instance = registry.add("experiment", port=80, zone="a")
        assert_type(instance, Instance)
        assert_type(registry.drain(instance), Instance)
        registry.remove(instance)
        registry.set_down(True)
