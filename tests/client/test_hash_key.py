"""``hash_key`` with ``rendezvous``: equal keys to the same instance, whoever calls."""

from __future__ import annotations

import threading

import pytest

from discoclient import OutlierPolicy
from tests.client.fleet import Fleet
from tests.client.scenes import disco
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import answer, hold, refused_port

KEYS: list[str | bytes | int] = [*(f"user-{number}" for number in range(40)), b"bytes", 7, -1, 10**30, ""]


async def homes(client: Face, *, keys: list[str | bytes | int] = KEYS) -> list[int]:
    """Where each key goes."""
    return [await client.port(**disco(hash_key=key)) for key in keys]


@in_every_shell
async def test_equal_keys_go_to_the_same_instance_whoever_calls(shell: Shell, fleet: Fleet) -> None:
    ports = {fleet.add().port for _ in range(4)}
    async with (
        shell.client(balancer="rendezvous") as one,
        shell.client(balancer="rendezvous", zone="") as other,
    ):
        first = await homes(one)
        assert set(first) == ports
        assert await homes(one) == first
        assert await homes(other) == first
    many = shell.plain_client(mounts={"disco://": shell.transport(balancer="rendezvous")})
    async with many:
        for key, home in zip(KEYS, first, strict=True):
            assert await many.port("disco://experiment/", **disco(hash_key=key)) == home


@in_every_shell
async def test_a_client_that_starts_anew_finds_the_same_homes(shell: Shell, fleet: Fleet) -> None:
    for _ in range(4):
        fleet.add()
    found = []
    for _ in range(2):
        async with shell.client(balancer="rendezvous", timeout=20) as client:
            found.append(await homes(client))
    assert found[0] == found[1]


@pytest.mark.parametrize("balancer", ["peak_ewma", "round_robin", "random"])
@in_every_shell
async def test_other_balancers_pay_no_heed_to_keys(shell: Shell, fleet: Fleet, balancer: str) -> None:
    """The negative control."""
    ports = {fleet.add().port for _ in range(2)}
    async with shell.client(balancer=balancer) as client:
        assert set(await homes(client, keys=["the same"] * 60)) == ports


@in_every_shell
async def test_without_a_key_everybody_is_called(shell: Shell, fleet: Fleet) -> None:
    ports = {fleet.add().port for _ in range(2)}
    async with shell.client(balancer="rendezvous") as client:
        assert {await client.port() for _ in range(60)} == ports


@in_every_shell
async def test_when_one_leaves_only_its_keys_move_and_they_come_back_with_it(
    shell: Shell, fleet: Fleet
) -> None:
    servers = [fleet.add() for _ in range(4)]
    async with shell.client(balancer="rendezvous") as client:
        before = await homes(client)
        leaver = next(server for server in servers if server.port == before[0])
        record = fleet.instance(leaver)
        fleet.drain(leaver)
        after = await homes(client)
        assert all(new == old for old, new in zip(before, after, strict=True) if old != leaver.port)
        assert leaver.port not in after
        fleet.change(leaver, record)
        assert await homes(client) == before


@in_every_shell
async def test_a_key_whose_home_fails_goes_to_the_next_one_and_stays_there(
    shell: Shell, fleet: Fleet
) -> None:
    servers = [fleet.add() for _ in range(3)]
    outlier = OutlierPolicy(base_ejection=1000.0, max_ejection=1000.0)
    async with shell.client(balancer="rendezvous", outlier=outlier) as client:
        home = await client.port(**disco(hash_key="k"))
        failing = next(server for server in servers if server.port == home)
        failing.behaviour = answer(status=503)
        seconds = {await client.port(**disco(hash_key="k")) for _ in range(10)}
    assert len(seconds) == 1
    assert seconds != {home}
    assert failing.requests < 10  # it is left alone after a while


@in_every_shell
async def test_a_key_that_is_refused_goes_to_the_next_one_at_once(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port)
        servers = [fleet.add() for _ in range(2)]
        async with shell.client(balancer="rendezvous") as client:
            found = await homes(client)
            assert await homes(client) == found
    assert set(found) == {server.port for server in servers}


@in_every_shell
async def test_one_hot_key_does_not_flood_its_home(shell: Shell, fleet: Fleet) -> None:
    is_over = threading.Event()
    servers = [fleet.add(hold(is_over.is_set)) for _ in range(4)]
    async with shell.client(balancer="rendezvous", timeout=20) as client:

        async def call() -> int:
            return await client.port(**disco(hash_key="hot"))

        async def release() -> int:
            await shell.eventually(lambda: sum(server.requests for server in servers) == 20)
            is_over.set()
            return 0

        await shell.together(*[call] * 20, release)
    assert max(server.requests for server in servers) <= 8  # 1.25 times a fair share, and rounding
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_key_stays_with_its_version(shell: Shell, fleet: Fleet) -> None:
    """A user does not see the canary now and the old version then."""
    for number in range(4):
        fleet.add(answer(), version=str(number % 2))
    async with shell.client(balancer="rendezvous", versions={"1": 0.5}) as client:
        first = await homes(client)
        assert await homes(client) == first
        versions = set()
        for key in KEYS:
            response = await client.get(**disco(hash_key=key))
            versions.add(response.extensions["disco"].instance.version)
    assert versions == {"0", "1"}


@in_every_shell
async def test_options_go_together(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(version="1") for _ in range(3)]
    fleet.add(version="2")
    async with shell.client(balancer="rendezvous") as client:
        home = await client.port(**disco(hash_key="k", version="1"))
        id = next(fleet.instance(server).id for server in servers if server.port == home)
        options = disco(hash_key="k", version="1", exclude=[id], retries=0, deadline=20.0)
        others = {await client.port(**options) for _ in range(5)}
    assert len(others) == 1
    assert others < {server.port for server in servers} - {home}


@pytest.mark.parametrize("key", [1.5, True, None, ["a"], ("a",), object()])
@in_every_shell
async def test_what_is_no_key_is_an_error_or_none(shell: Shell, fleet: Fleet, key: object) -> None:
    server = fleet.add()
    async with shell.client(balancer="rendezvous") as client:
        if key is None:
            assert await client.port(**disco(hash_key=None)) == server.port
            return
        with pytest.raises(ValueError, match=r"hash_key.*must be a string, bytes or a whole number"):
            await client.get(**disco(hash_key=key))
    assert server.requests == 0
