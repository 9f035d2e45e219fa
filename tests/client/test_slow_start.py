"""Slow start: a newcomer gets little at first, unless most are new."""

from __future__ import annotations

import pytest

from discoclient import SlowStartPolicy
from tests.client.fleet import Fleet
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import HttpServer

LONG = SlowStartPolicy(window=10_000.0)
CALLS = 400


def settled(fleet: Fleet, count: int, *, seconds: float = 20_000.0) -> list[HttpServer]:
    """Servers that have been known for long."""
    servers = [fleet.add() for _ in range(count)]
    for server in servers:
        fleet.endpoint(server).first_seen -= seconds
    return servers


async def weights(client: Face) -> dict[int, float]:
    """What each server gets just now, by its port."""
    explanation = await client._do("explain")
    return {candidate.instance.port: candidate.weight for candidate in explanation.candidates}


@pytest.mark.parametrize("balancer", ["peak_ewma", "round_robin", "random"])
@in_every_shell
async def test_a_newcomer_gets_a_tenth_of_its_share(shell: Shell, fleet: Fleet, balancer: str) -> None:
    async with shell.client(balancer=balancer, slow_start=LONG) as client:
        old = settled(fleet, 3)
        await client.get()
        new = fleet.add()
        for _ in range(CALLS):
            await client.get()
        assert await weights(client) == {**{server.port: 100.0 for server in old}, new.port: 10.0}
    assert new.requests <= 50  # 13 are its share; with all of it, it would be 100
    assert sum(server.requests for server in old) + new.requests == CALLS + 1


@pytest.mark.parametrize(
    ("policy", "weight"),
    [(SlowStartPolicy(window=0), 100.0), (SlowStartPolicy(window=10_000.0, floor=0.5), 50.0)],
    ids=["off", "from a half"],
)
@in_every_shell
async def test_the_policy_says_how(
    shell: Shell, fleet: Fleet, policy: SlowStartPolicy, weight: float
) -> None:
    async with shell.client(balancer="round_robin", slow_start=policy) as client:
        settled(fleet, 3)
        new = fleet.add()
        for _ in range(CALLS):
            await client.get()
        assert (await weights(client))[new.port] == weight
    assert abs(new.requests - CALLS * weight / (300 + weight)) <= 15


@in_every_shell
async def test_while_most_are_new_everybody_gets_the_same(shell: Shell, fleet: Fleet) -> None:
    """A deploy. And our own start: at first everybody is new."""
    async with shell.client(balancer="round_robin", slow_start=LONG) as client:
        for _ in range(3):
            fleet.add()
        assert set((await weights(client)).values()) == {100.0}
        old = settled(fleet, 1)
        for _ in range(100):
            await client.get()
        assert old[0].requests == 25


@in_every_shell
async def test_a_newcomer_s_share_grows_by_itself_until_it_has_all_of_it(shell: Shell, fleet: Fleet) -> None:
    async with shell.client(slow_start=SlowStartPolicy(window=0.3)) as client:
        settled(fleet, 3)
        new = fleet.add()
        seen: set[float] = set()

        async def grown() -> bool:
            seen.add((await weights(client))[new.port])
            return 100.0 in seen

        while not await grown():
            await shell.sleep(0.005)
        assert seen <= {10.0 * step for step in range(1, 11)}
        view = fleet.handle.resolver("experiment")
        assert view.endpoints[fleet.instance(new).id].requests == 0


@in_every_shell
async def test_clients_have_policies_of_their_own(shell: Shell, fleet: Fleet) -> None:
    async with (
        shell.client(slow_start=LONG) as slow,
        shell.client(slow_start=SlowStartPolicy(window=0)) as sudden,
    ):
        settled(fleet, 3)
        new = fleet.add()
        await slow.get()
        await sudden.get()
        assert (await weights(slow))[new.port] == 10.0
        assert (await weights(sudden))[new.port] == 100.0
