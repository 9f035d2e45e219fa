"""Balancers: those that have a name, and those that users write."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from random import Random

import httpx
import pytest

from discoclient import Balancer, ConfigError, DiscoClient, Endpoint, Picker
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import refused_port


class Moody:
    """Fails when there are three endpoints."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        if len(endpoints) == 3:
            raise ZeroDivisionError("not three")
        return BySlot().picker(endpoints, rng)


class Stubborn:
    """Pays no heed to what was tried."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return StubbornPicker(endpoints)


class StubbornPicker:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return self._endpoints[0]


class Failing:
    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return FailingPicker()


class FailingPicker:
    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        raise ZeroDivisionError("not today")


@pytest.mark.parametrize("balancer", ["peak_ewma", "least_request", "round_robin", "random"])
@in_every_shell
async def test_every_balancer_reaches_every_instance(shell: Shell, fleet: Fleet, balancer: str) -> None:
    ports = {fleet.add().port for _ in range(3)}
    async with shell.client(balancer=balancer) as client:
        seen: set[int] = set()
        for _ in range(300):
            seen.add(await client.port())
            if seen == ports:
                break
    assert seen == ports


@in_every_shell
async def test_a_balancer_may_be_the_user_s_own(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(slot=slot) for slot in ("1", "0", "2")]
    assert isinstance(BySlot(), Balancer)
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(5):
            assert await client.port() == servers[1].port
        fleet.drain(servers[1])
        assert await client.port() == servers[0].port


def test_a_class_is_not_a_balancer_but_an_object_of_it_is() -> None:
    with pytest.raises(ConfigError, match="is no balancer"):
        DiscoClient("experiment", balancer=BySlot)  # type: ignore[arg-type]


@in_every_shell
async def test_a_balancer_that_fails_on_a_new_set_harms_nobody_else(
    shell: Shell, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps its last view, and what is learnt goes on being learnt."""
    fleet.add(slot="2")
    fleet.add(slot="1")
    async with shell.client(balancer=Moody()) as moody, shell.client(balancer="round_robin") as other:
        assert await moody.port() > 0
        with caplog.at_level(logging.ERROR, "discoclient"):
            third = fleet.add(slot="0")
        assert "Moody" in caplog.text
        assert third.port in {await other.port() for _ in range(3)}
        assert await moody.port() != third.port
        fourth = fleet.add(slot="00")
        assert fourth.port in {await other.port() for _ in range(4)}
        assert await moody.port() == third.port  # it can do four


@pytest.mark.parametrize("is_known", [True, False])
@in_every_shell
async def test_a_balancer_that_fails_on_the_first_set_is_the_caller_s_error_at_once(
    shell: Shell, fleet: Fleet, is_known: bool
) -> None:
    """And not as if the registry did not answer."""
    for slot in "123":
        fleet.add(slot=slot, service="experiment" if is_known else "other")
        if not is_known:
            fleet.registry.add("experiment", fleet.servers.start().port, slot=slot)
    async with shell.client(balancer=Moody(), discovery_timeout=30.0) as client:
        with pytest.raises(ZeroDivisionError, match="not three"):
            await client.get()
        fourth = fleet.add(slot="0")
        assert await client.port() == fourth.port, "it can do four"


@in_every_shell
async def test_a_balancer_that_pays_no_heed_to_what_was_tried_does_not_make_a_call_go_there_twice(
    shell: Shell, fleet: Fleet
) -> None:
    with refused_port() as port:
        fleet.register(port=port)
        async with shell.client(balancer=Stubborn()) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get()
    assert not hasattr(caught.value, "__notes__")


@in_every_shell
async def test_a_picker_s_own_error_is_the_caller_s(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    async with shell.client(balancer=Failing()) as client:
        with pytest.raises(ZeroDivisionError, match="not today"):
            await client.get()
    assert fleet.in_flight() == 0
