"""What a call says and does when the registry knows nothing, knows of nothing, or can't be reached."""

from __future__ import annotations

import time

import httpx
import pytest

from discoclient import (
    ConfigError,
    DeadlineExceeded,
    DiscoError,
    DiscoveryTimeout,
    NoInstances,
    RoutingError,
    connect,
)
from discoclient.testing import TestRegistry
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell


def test_the_error_tree_is_the_one_that_is_promised() -> None:
    assert issubclass(ConfigError, DiscoError | ValueError)
    for error in (NoInstances, DiscoveryTimeout, DeadlineExceeded):
        assert issubclass(error, RoutingError)
        for base in (DiscoError, httpx.TransportError, httpx.RequestError, httpx.HTTPError):
            assert issubclass(error, base)
    assert issubclass(DiscoveryTimeout, httpx.TimeoutException)
    assert issubclass(DeadlineExceeded, httpx.ReadTimeout)
    assert not issubclass(NoInstances, httpx.TimeoutException)
    assert not issubclass(httpx.ConnectError, DiscoError)


@in_every_shell
async def test_a_service_that_is_known_to_have_nobody_is_an_error_at_once(
    shell: Shell, registry: TestRegistry
) -> None:
    async with shell.client("nobody", discovery_timeout=60.0) as client:
        began = time.monotonic()
        for base in (NoInstances, RoutingError, httpx.TransportError, httpx.HTTPError):
            with pytest.raises(
                base, match="'nobody' has no instance to call: nothing is registered"
            ) as caught:
                await client.get("/x")
            assert type(caught.value) is NoInstances
            assert str(caught.value.request.url) == "http://nobody/x"
        assert time.monotonic() - began < 30


@in_every_shell
async def test_a_service_of_which_nothing_is_known_is_another_error_after_the_time_for_it(
    shell: Shell, registry: TestRegistry
) -> None:
    registry.set_down(True)
    async with shell.client(discovery_timeout=0.2) as client:
        began = time.monotonic()
        for base in (DiscoveryTimeout, httpx.TimeoutException):
            with pytest.raises(
                base, match=r"nothing is known of service 'experiment' after 0\.2 s"
            ) as caught:
                await client.get("/x")
            assert type(caught.value) is DiscoveryTimeout
            assert str(caught.value.request.url) == "http://experiment/x"
            assert "the memory registry is down" in str(caught.value)
            assert caught.value.__cause__ is not None
        assert 0.4 <= time.monotonic() - began < 30


@in_every_shell
async def test_a_registry_that_comes_up_later_is_found(
    shell: Shell, registry: TestRegistry, fleet: Fleet
) -> None:
    server = fleet.servers.start()
    registry.set_down(True)
    async with shell.client("late", discovery_timeout=0.05) as client:
        with pytest.raises(DiscoveryTimeout):
            await client.get()
        registry.add("late", server.port)
        with pytest.raises(DiscoveryTimeout):
            await client.get()
        registry.set_down(False)
        await client.wait_ready(30.0)
        assert await client.port() == server.port


@in_every_shell
async def test_calls_that_wait_for_the_registry_are_answered_when_it_comes_up(
    shell: Shell, registry: TestRegistry, fleet: Fleet
) -> None:
    server = fleet.servers.start()
    registry.set_down(True)
    registry.add("late", server.port)

    async def come_up() -> int:
        await shell.sleep(0.1)
        registry.set_down(False)
        return 0

    async with shell.client("late", discovery_timeout=30.0) as client:
        done = await shell.together(*[client.port] * 5, come_up)
    assert done == [server.port] * 5 + [0]


@in_every_shell
async def test_without_the_registry_calls_go_on_and_the_age_grows(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:
        await client.get()
        young = fleet.handle.age("experiment")
        assert young is not None
        fleet.registry.set_down(True)
        for _ in range(20):
            assert await client.port() == server.port
        await shell.eventually(lambda: (fleet.handle.age("experiment") or 0) > young + 0.1)
        async with shell.client() as newcomer:  # the knowledge is the process's
            assert await newcomer.port() == server.port
        fleet.registry.set_down(False)


@in_every_shell
async def test_after_the_registry_is_back_changes_arrive_again(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:
        await client.get()
        fleet.registry.set_down(True)
        fleet.registry.remove(fleet.instance(server))
        other = fleet.servers.start()
        fleet.registry.add("experiment", other.port)
        for _ in range(5):
            assert await client.port() == server.port
        fleet.registry.set_down(False)
        await shell.eventually(
            lambda: [instance.port for instance in fleet.handle.instances("experiment")] == [other.port]
        )
        assert await client.port() == other.port


@in_every_shell
async def test_an_instance_that_registers_is_called_and_one_that_leaves_is_not(
    shell: Shell, fleet: Fleet
) -> None:
    one = fleet.add()
    async with shell.client(balancer="round_robin") as client:
        assert await client.port() == one.port
        other = fleet.add()
        assert {await client.port() for _ in range(4)} == {one.port, other.port}
        fleet.remove(one)
        assert {await client.port() for _ in range(4)} == {other.port}
        fleet.remove(other)
        with pytest.raises(NoInstances):
            await client.get()


@in_every_shell
async def test_bad_records_disturb_nobody(shell: Shell, fleet: Fleet) -> None:
    good = fleet.add()
    for number, value in enumerate([b"", b"{", b"[]", b"\xff", b"x" * 5000, b'{"v":2}', b'{"v":1}']):
        fleet.registry.put_raw(f"/disco/v1/services/experiment/bad-record-{number}", value)
    fleet.registry.put_raw("/disco/v1/services/experiment/a/b/c", b"{}")
    fleet.registry.put_raw("/disco/v1/services/experiment", b"{}")
    lonely = fleet.instance(good)
    from dataclasses import replace

    from discoclient.registry.codec import encode

    lonely = replace(lonely, id="without-a-lease", port=9)
    fleet.registry.put_raw(f"/disco/v1/services/experiment/{lonely.id}", encode(lonely), has_lease=False)
    other = fleet.add()
    async with shell.client(balancer="round_robin") as client:
        assert {await client.port() for _ in range(6)} == {good.port, other.port}
    assert len(fleet.handle.instances("experiment")) == 2


@in_every_shell
async def test_wait_ready_returns_when_an_instance_registers(shell: Shell, fleet: Fleet) -> None:
    server = fleet.servers.start()

    async def register() -> int:
        await shell.sleep(0.1)
        fleet.registry.add("late", server.port)
        return 0

    async with shell.client("late") as client:
        assert await shell.together(lambda: client.wait_ready(30.0), register) == [None, 0]
        assert await client.port() == server.port
        began = time.monotonic()
        await client.wait_ready()
        assert time.monotonic() - began < 4


@in_every_shell
async def test_wait_ready_tells_nobody_from_nothing_known(shell: Shell, registry: TestRegistry) -> None:
    async with shell.client("nobody") as client:
        with pytest.raises(NoInstances, match="nobody"):
            await client.wait_ready(0.1)
    registry.set_down(True)
    async with shell.client("unknown") as client:
        with pytest.raises(DiscoveryTimeout, match=r"'unknown' after 0\.1 s"):
            await client.wait_ready(0.1)
        with pytest.raises(DiscoveryTimeout):
            await client.wait_ready(0)


@in_every_shell
async def test_wait_ready_waits_for_discovery_timeout_by_default(
    shell: Shell, registry: TestRegistry
) -> None:
    async with shell.client("nobody", discovery_timeout=0.1) as client:
        began = time.monotonic()
        with pytest.raises(NoInstances):
            await client.wait_ready()
        assert 0.1 <= time.monotonic() - began < 4


@in_every_shell
async def test_wait_ready_does_not_take_an_instance_that_drains(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    fleet.drain(server)
    async with shell.client() as client:
        with pytest.raises(NoInstances, match=r"1 registered \(draining\)"):
            await client.wait_ready(0.05)


def test_the_age_is_unknown_until_something_is_known(registry: TestRegistry) -> None:
    registry.set_down(True)
    with connect(discovery_timeout=0.05) as handle:
        assert handle.age("experiment") is None
        with pytest.raises(DiscoveryTimeout):
            handle.instances("experiment")
        assert handle.age("experiment") is None
