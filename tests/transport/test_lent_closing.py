"""When a transport that was lent is closed: once, and not while it is needed."""

from __future__ import annotations

import pytest

from discoclient import (
    DiscoClient,
)
from discoclient.control.shared import SPARE
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.transport.lending import Lender, two


@in_every_shell
async def test_it_is_closed_when_its_instance_leaves(shell: Shell, fleet: Fleet) -> None:
    one, other = two(fleet)
    lender = Lender()
    async with shell.client(engine=lender, balancer="round_robin") as client:
        for _ in range(2):
            await client.get()
        fleet.registry.remove(one)
        await shell.eventually(lambda: lender.of(one).closed)
        assert lender.of(other).closed == 0
        await client.get()
    assert lender.of(one).closed == 1


@in_every_shell
async def test_it_is_not_closed_while_a_request_is_under_way(shell: Shell, fleet: Fleet) -> None:
    one = fleet.register(port=1)
    lender = Lender()
    async with shell.client(engine=lender) as client:
        await client.get()
        first, second = await client.open(), await client.open()
        other = fleet.register(port=2)
        fleet.registry.remove(one)
        await shell.eventually(
            lambda: len(lender.lent) == 2 or fleet.handle.instances("experiment") == [other]
        )
        await client.close_response(first)
        assert lender.of(one).closed == 0
        await client.read(second)
        await client.close_response(second)
        await shell.eventually(lambda: lender.of(one).closed)
    assert lender.of(one).closed == 1


@pytest.mark.parametrize("shell", [Shell("asyncio"), Shell("trio")], ids=lambda shell: shell.name)
def test_it_is_closed_with_its_loop(shell: Shell, fleet: Fleet) -> None:
    fleet.register(port=1)
    lender = Lender()

    async def once() -> int:
        async with shell.client(engine=lender) as client:
            await client.get()
        return lender.lent[0].closed

    assert shell.run(once) == 0, "for the next client, which may come at once"
    assert lender.lent[0].closed == 1


def test_it_is_closed_some_time_after_its_last_client_in_threads(fleet: Fleet) -> None:
    """When clients with other options have come and gone: so many wires are kept for who comes back."""
    fleet.register(port=1)
    lenders = [Lender() for _ in range(SPARE + 1)]
    for lender in lenders:
        with DiscoClient("experiment", engine=lender) as client:
            client.get("/")
    eventually(lambda: lenders[0].lent[0].closed == 1, what="the oldest one is closed")
    assert lenders[-1].lent[0].closed == 0
