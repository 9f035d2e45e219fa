"""``versions=``, a canary's share of the requests, and ``version``, which one request insists on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from discoclient import NoInstances, OutlierPolicy, State
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import counts, disco
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import answer, close_unanswered, refused_port

CALLS = 200


async def versions_of(client: Face, calls: int = CALLS, **options: Any) -> Counter[str | None]:
    """Which versions answered how many of so many calls."""
    found: Counter[str | None] = Counter()
    for _ in range(calls):
        response = await client.get(**options)
        found[response.extensions["disco"].instance.version] += 1
    return found


@pytest.mark.parametrize("balancer", ["peak_ewma", "round_robin"])
@in_every_shell
async def test_a_canary_gets_its_share_of_the_requests_however_slow_it_is(
    shell: Shell, fleet: Fleet, balancer: str
) -> None:
    for _ in range(3):
        fleet.add(version="1")
    fleet.add(answer(delay=0.003), version="2")
    async with shell.client(balancer=balancer, versions={"2": 0.1}) as client:
        found = await versions_of(client)
    assert 2 <= found["2"] <= 45  # 20 are expected, and 4 more or less usual
    assert found["1"] == CALLS - found["2"]


@in_every_shell
async def test_without_a_share_a_slow_one_gets_what_the_load_metric_leaves_it(
    shell: Shell, fleet: Fleet
) -> None:
    """The negative control."""
    for _ in range(3):
        fleet.add(version="1")
    fleet.add(answer(delay=0.03), version="2")
    async with shell.client() as client:
        found = await versions_of(client)
    assert found["2"] < 25  # a fair share would be 50


@pytest.mark.parametrize(
    ("versions", "least", "most"),
    [({"2": 0.0}, 0, 0), ({"2": 1.0}, CALLS, CALLS), ({"2": 0.5}, 65, 135), ({"1": 0.9, "2": 0.1}, 2, 45)],
)
@in_every_shell
async def test_the_share_is_what_was_said(
    shell: Shell, fleet: Fleet, versions: dict[str, float], least: int, most: int
) -> None:
    fleet.add(version="1")
    fleet.add(version="2")
    async with shell.client(balancer="round_robin", versions=versions) as client:
        found = await versions_of(client)
    assert least <= found["2"] <= most


@in_every_shell
async def test_a_canary_that_fails_is_made_up_for_by_the_others(shell: Shell, fleet: Fleet) -> None:
    good, bad = fleet.add(version="1"), fleet.add(close_unanswered(), version="2")
    outlier = OutlierPolicy(base_ejection=1000.0, max_ejection=1000.0)
    async with shell.client(versions={"2": 0.5}, outlier=outlier) as client:
        assert await versions_of(client, 100) == {"1": 100}
    assert good.requests == 100
    assert 0 < bad.requests <= 5  # and then it is left alone


@in_every_shell
async def test_a_version_that_is_not_there_leaves_its_share_to_the_others(shell: Shell, fleet: Fleet) -> None:
    fleet.add(version="1")
    async with shell.client(versions={"2": 1.0}) as client:
        assert await versions_of(client, 20) == {"1": 20}
        canary = fleet.add(version="2")
        assert await versions_of(client, 20) == {"2": 20}
        fleet.drain(canary)
        assert await versions_of(client, 20) == {"1": 20}


@in_every_shell
async def test_clients_have_shares_of_their_own(shell: Shell, fleet: Fleet) -> None:
    fleet.add(version="1")
    fleet.add(version="2")
    async with shell.client(versions={"2": 0.0}) as old, shell.client(versions={"2": 1.0}) as new:
        for _ in range(5):
            assert await versions_of(old, 4) == {"1": 4}
            assert await versions_of(new, 4) == {"2": 4}


# ---- one request


@in_every_shell
async def test_a_request_may_insist_on_a_version(shell: Shell, fleet: Fleet) -> None:
    fleet.add(version="1")
    fleet.add(version="2")
    fleet.add()
    async with shell.client(versions={"2": 0.0}) as client:
        assert await versions_of(client, 20, **disco(version="2")) == {"2": 20}
        assert await versions_of(client, 20, **disco(version="1")) == {"1": 20}


@in_every_shell
async def test_what_insists_is_not_tried_again_elsewhere(shell: Shell, fleet: Fleet) -> None:
    other, wanted = fleet.add(version="1", slot="0"), fleet.add(close_unanswered(), version="2", slot="1")
    twin = fleet.add(close_unanswered(), version="2", slot="2")
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(**disco(version="2"))
    assert counts([other, wanted, twin]) == [0, 1, 1]


@in_every_shell
async def test_a_version_that_nobody_has_is_an_error_that_says_which_there_are(
    shell: Shell, fleet: Fleet
) -> None:
    servers = [fleet.add(version="1.0"), fleet.add(version="2.0"), fleet.add()]
    async with shell.client() as client:
        with pytest.raises(
            NoInstances, match=r"none of version '3\.0' may be called; there are 1\.0, 2\.0, none"
        ):
            await client.get(**disco(version="3.0"))
        fleet.drain(servers[1])
        with pytest.raises(NoInstances, match=r"none of version '2\.0' may be called"):
            await client.post(**disco(version="2.0"))
    assert counts(servers) == [0, 0, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_of_a_version_too_the_ready_ones_are_called_first(shell: Shell, fleet: Fleet) -> None:
    unready = fleet.add(version="2", state=State.UNREADY, slot="0")
    ready = fleet.add(version="2", slot="1")
    fleet.add(version="1", slot="2")
    async with shell.client(balancer=BySlot()) as client:
        assert await client.port(**disco(version="2")) == ready.port
        fleet.drain(ready)
        assert await client.port(**disco(version="2")) == unready.port


@in_every_shell
async def test_a_version_that_changes_is_the_new_one_with_the_next_call(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(version="1")
    async with shell.client() as client:
        await client.get(**disco(version="1"))
        fleet.change(server, replace(fleet.instance(server), version="2"))
        assert await client.port(**disco(version="2")) == server.port
        with pytest.raises(NoInstances, match="there are 2"):
            await client.get(**disco(version="1"))


@in_every_shell
async def test_an_instance_of_a_version_that_refuses_is_followed_by_another_of_it(
    shell: Shell, fleet: Fleet
) -> None:
    with refused_port() as port:
        fleet.register(port=port, version="2", slot="0")
        other, wanted = fleet.add(version="1", slot="1"), fleet.add(version="2", slot="2")
        async with shell.client(balancer=BySlot()) as client:
            assert await client.port(**disco(version="2")) == wanted.port
    assert other.requests == 0
