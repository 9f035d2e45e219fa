"""``zone=``: instances near by are called first, as far as their capacity goes."""

from __future__ import annotations

import pytest

from discoclient import OutlierPolicy
from tests.client.fleet import Fleet
from tests.client.scenes import counts
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import HttpServer, refused_port

CALLS = 300


def zoned(fleet: Fleet, *zones: str | None) -> list[HttpServer]:
    return [fleet.add(zone=zone) for zone in zones]


async def call(client: Face, calls: int = CALLS) -> None:
    for _ in range(calls):
        assert (await client.get()).status_code == 200


@pytest.mark.parametrize("balancer", ["peak_ewma", "round_robin", "least_request"])
@in_every_shell
async def test_a_zone_that_can_carry_its_part_keeps_its_requests(
    shell: Shell, fleet: Fleet, balancer: str
) -> None:
    servers = zoned(fleet, "a", "b", "a", "b")
    async with shell.client(balancer=balancer, zone="a") as client:
        await call(client, 100)
    assert servers[0].requests + servers[2].requests == 100
    assert min(servers[0].requests, servers[2].requests) > 0


@in_every_shell
async def test_without_a_zone_everybody_is_called(shell: Shell, fleet: Fleet) -> None:
    """The negative control."""
    servers = zoned(fleet, "a", "b", "a", "b")
    async with shell.client(balancer="round_robin") as client:
        await call(client, 100)
    assert counts(servers) == [25, 25, 25, 25]


@in_every_shell
async def test_the_environment_says_where_we_are_unless_it_is_said(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = zoned(fleet, "a", "b")
    monkeypatch.setenv("DISCO_ZONE", "a")
    async with shell.client(balancer="round_robin") as client:
        await call(client, 20)
    assert counts(servers) == [20, 0]
    async with shell.client(balancer="round_robin", zone="b") as client:
        await call(client, 20)
    assert counts(servers) == [20, 20]
    async with shell.client(balancer="round_robin", zone="") as client:
        await call(client, 20)
    assert counts(servers) == [30, 30]
    monkeypatch.setenv("DISCO_ZONE", "")
    async with shell.client(balancer="round_robin") as client:
        await call(client, 20)
    assert counts(servers) == [40, 40]


@in_every_shell
async def test_what_a_small_zone_can_t_carry_goes_elsewhere(shell: Shell, fleet: Fleet) -> None:
    """One of four instances in one of two zones: it carries half of what comes from there."""
    servers = zoned(fleet, "a", "b", "b", "b")
    async with shell.client(balancer="round_robin", zone="a") as client:
        await call(client)
    assert 100 <= servers[0].requests <= 200
    assert min(counts(servers[1:])) > 20


@in_every_shell
async def test_weights_are_capacity(shell: Shell, fleet: Fleet) -> None:
    near, far = fleet.add(zone="a", weight=10), fleet.add(zone="b", weight=190)
    async with shell.client(balancer="round_robin", zone="a") as client:
        await call(client)
    assert 10 <= near.requests <= 60  # a tenth
    assert near.requests + far.requests == CALLS


@in_every_shell
async def test_a_zone_that_is_gone_is_made_up_for_by_the_others(shell: Shell, fleet: Fleet) -> None:
    near, far = zoned(fleet, "a", "b")
    async with shell.client(zone="a") as client:
        await call(client, 10)
        fleet.drain(near)
        await call(client, 10)
        back = fleet.add(zone="a")
        await call(client, 10)
    assert counts([near, far, back]) == [10, 10, 10]


@in_every_shell
async def test_what_is_left_alone_in_a_zone_spills_over(shell: Shell, fleet: Fleet) -> None:
    outlier = OutlierPolicy(base_ejection=1000.0, max_ejection=1000.0)
    with refused_port() as port:
        fleet.register(port=port, zone="a")
        near, far, other = zoned(fleet, "a", "b", "b")
        async with shell.client(zone="a", outlier=outlier) as client:
            await call(client, 200)
    # One of two is gone, so the other one is not to carry the double.
    assert 60 <= near.requests <= 140
    assert far.requests + other.requests == 200 - near.requests


@in_every_shell
async def test_a_zone_that_nobody_is_in_makes_no_difference(shell: Shell, fleet: Fleet) -> None:
    servers = zoned(fleet, "a", "b", None)
    async with shell.client(balancer="round_robin", zone="nowhere") as client:
        await call(client, 30)
    assert counts(servers) == [10, 10, 10]
