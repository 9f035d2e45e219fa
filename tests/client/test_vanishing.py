"""Instances that vanish from the registry together: they are called as a last resort, for a while, if they are still there."""

from __future__ import annotations

import httpx
import pytest

from discoclient import NoInstances, State
from discoclient.model.events import InstancesHeld
from tests.client.fleet import Fleet
from tests.client.scenes import Events, counts, disco, in_order
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import HttpServer, answer, never, refused_port


def several(fleet: Fleet, count: int = 3) -> list[HttpServer]:
    return [fleet.add() for _ in range(count)]


def vanish(fleet: Fleet, servers: list[HttpServer]) -> None:
    fleet.registry.expire(*map(fleet.instance, servers))


async def is_gone(client: Face) -> bool:
    try:
        await client.get()
    except NoInstances:
        return True
    except httpx.TransportError:
        return False
    return False


# ---- they live


@pytest.mark.parametrize("count", [2, 3, 7])
@in_every_shell
async def test_several_that_vanish_while_they_live_are_called_all_the_same(
    shell: Shell, fleet: Fleet, count: int
) -> None:
    servers = several(fleet, count)
    async with shell.client(balancer="round_robin") as client:
        await client.get()
        vanish(fleet, servers)
        for server in servers:
            server.seen.clear()
        for _ in range(10 * count):
            assert (await client.get()).status_code == 200
        assert min(counts(servers)) > 0
        assert (await client.post(content=b"x")).status_code == 200
        await client.wait_ready(0)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_without_the_grace_they_are_gone(shell: Shell, fleet: Fleet) -> None:
    """The negative control."""
    servers = several(fleet)
    async with shell.client(vanish_grace=0) as client:
        await client.get()
        vanish(fleet, servers)
        with pytest.raises(NoInstances, match="nothing is registered there"):
            await client.get()
        with pytest.raises(NoInstances):
            await client.wait_ready(0)
    assert sum(counts(servers)) == 1


@in_every_shell
async def test_each_client_has_the_grace_that_it_asked_for(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    async with shell.client(vanish_grace=0) as strict, shell.client() as lenient:
        await strict.get()
        await lenient.get()
        vanish(fleet, servers)
        with pytest.raises(NoInstances):
            await strict.get()
        assert (await lenient.get()).status_code == 200


@in_every_shell
async def test_after_the_grace_they_are_gone_although_they_live(shell: Shell, fleet: Fleet) -> None:
    servers, events = several(fleet), Events()
    async with shell.client(vanish_grace=0.3, hooks=[events]) as client:
        await client.get()
        vanish(fleet, servers)
        assert events.of(InstancesHeld)[0].seconds == 0.3
        while not await is_gone(client):
            await shell.sleep(0.01)
        await shell.eventually(lambda: sum(server.connections for server in servers) == 0)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_their_connections_are_used_again(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(), answer())
    async with shell.client(balancer="round_robin") as client:
        for _ in range(4):
            await client.get()
        vanish(fleet, servers)
        for _ in range(4):
            await client.get()
    assert [server.accepted for server in servers] == [1, 1]


@in_every_shell
async def test_a_body_that_is_being_read_goes_on(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    for server in servers:
        server.behaviour = answer(bytes(3_000_000))
    async with shell.client() as client:
        response = await client.open()
        vanish(fleet, servers)
        assert len(await client.read(response)) == 3_000_000
    assert fleet.in_flight() == 0


@in_every_shell
async def test_whoever_is_registered_comes_before_those_who_vanished(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    async with shell.client(balancer="round_robin") as client:
        await client.get()
        vanish(fleet, servers)
        newcomer = fleet.add()
        for server in servers:
            server.seen.clear()
        for _ in range(12):
            assert await client.port() == newcomer.port
        assert counts(servers) == [0, 0, 0]
        await fleet_down(fleet, newcomer)
        assert await client.port() in {server.port for server in servers}  # a last resort for retries too


async def fleet_down(fleet: Fleet, server: HttpServer) -> None:
    fleet.servers.run(server.kill())


@in_every_shell
async def test_who_is_back_is_an_instance_like_any_other(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    records = [fleet.instance(server) for server in servers]
    async with shell.client(balancer="round_robin") as client:
        await client.get()
        vanish(fleet, servers)
        await client.get()
        for server, record in zip(servers, records, strict=True):
            fleet.change(server, record)
        explanation = await client._do("explain")
        assert [each.standing for each in explanation.candidates] == ["ready"] * 3
        for server in servers:
            server.seen.clear()
        for _ in range(9):
            await client.get()
        assert counts(servers) == [3, 3, 3]


@in_every_shell
async def test_who_is_back_and_leaves_as_it_should_is_gone(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet, 2)
    records = [fleet.instance(server) for server in servers]
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        for server, record in zip(servers, records, strict=True):
            fleet.change(server, record)
        fleet.remove(*servers)
        with pytest.raises(NoInstances):
            await client.get()


@in_every_shell
async def test_they_are_shown_as_vanished(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        explanation = await client._do("explain")
        assert [each.standing for each in explanation.candidates] == ["vanished"] * 3
        assert "vanished" in str(explanation)
        response = await client.get()
        assert response.extensions["disco"].instance in map(fleet.instance, servers)


@in_every_shell
async def test_a_request_can_exclude_them_and_insist_on_their_version(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(version=version) for version in ("1", "2")]
    ids = [fleet.instance(server).id for server in servers]
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        assert await client.port(**disco(version="2")) == servers[1].port
        assert await client.port(**disco(exclude=[ids[1]])) == servers[0].port
        with pytest.raises(NoInstances):
            await client.get(**disco(exclude=ids))


@in_every_shell
async def test_a_wiped_registry_does_not_take_a_healthy_fleet_down(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    async with shell.client() as client:
        await client.get()
        fleet.registry.wipe()
        for _ in range(20):
            assert (await client.get()).status_code == 200
        assert fleet.handle.instances("experiment") == []
    assert sum(counts(servers)) == 21


# ---- they don't


@in_every_shell
async def test_when_they_are_really_gone_the_first_calls_find_out(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        for server in servers:
            await fleet_down(fleet, server)
        calls = 0
        while not await is_gone(client):
            calls += 1
            assert calls <= 3, "each call rules out one of them at least"
        with pytest.raises(NoInstances, match="nothing is registered there"):
            await client.get()
    assert fleet.in_flight() == 0


@in_every_shell
async def test_two_that_are_gone_are_known_to_be_within_one_call(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        instances = [fleet.register(port=port, slot=str(number)) for number in range(2)]
        async with shell.client() as client:
            await client._do("explain")
            fleet.registry.expire(*instances)
            with pytest.raises(NoInstances) as caught:
                await client.post(content=b"x")
            assert isinstance(caught.value.__cause__, httpx.ConnectError)
            with pytest.raises(NoInstances) as caught:
                await client.get()
            assert caught.value.__cause__ is None


@in_every_shell
async def test_whoever_of_them_lives_is_found(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet, 3)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        for server in servers[:2]:
            await fleet_down(fleet, server)
        for _ in range(20):
            assert await client.port() == servers[2].port


@in_every_shell
async def test_a_port_that_somebody_else_took_rules_it_out(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet, 2)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        for server in servers:
            server.behaviour = answer(status=421, headers={"X-Disco-Instance": "somebody-else"})
            server.seen.clear()
        with pytest.raises(NoInstances):  # and not the last one's 421, which would answer another question
            await client.post(content=b"x")
        with pytest.raises(NoInstances):
            await client.get()
    assert counts(servers) == [1, 1]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_one_that_does_not_answer_is_not_ruled_out_by_that(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet, 2)
    async with shell.client(timeout=httpx.Timeout(20, read=0.1)) as client:
        await client.get(timeout=20)
        vanish(fleet, servers)
        for server in servers:
            server.behaviour = never()
        with pytest.raises(httpx.ReadTimeout):
            await client.get()
        for server in servers:
            server.behaviour = answer()
        assert (await client.get(timeout=20)).status_code == 200


# ---- it was meant so


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "first all drain"])
@in_every_shell
async def test_those_that_drained_are_gone_at_once(shell: Shell, fleet: Fleet, is_slow: bool) -> None:
    servers, events = several(fleet), Events()
    async with shell.client(hooks=[events]) as client:
        await client.get()
        if is_slow:
            for server in servers:
                fleet.drain(server)
            vanish(fleet, servers)
        else:
            fleet.remove(*servers)
        with pytest.raises(NoInstances):
            await client.get()
        assert events.of(InstancesHeld) == []
    assert sum(counts(servers)) == 1


@in_every_shell
async def test_of_those_that_vanish_together_with_others_that_drained_only_the_former_are_kept(
    shell: Shell, fleet: Fleet
) -> None:
    servers = several(fleet, 5)
    async with shell.client() as client:
        await client.get()
        for server in servers[:2]:
            fleet.drain(server)
        vanish(fleet, servers)
        for server in servers:
            server.seen.clear()
        for _ in range(30):
            await client.get()
    assert counts(servers[:2]) == [0, 0]
    assert sum(counts(servers[2:])) == 30


@in_every_shell
async def test_one_that_vanishes_alone_is_gone(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:
        await client.get()
        vanish(fleet, [server])
        with pytest.raises(NoInstances):
            await client.get()


@in_every_shell
async def test_a_few_of_many_that_vanish_are_gone(shell: Shell, fleet: Fleet) -> None:
    servers = several(fleet, 5)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers[:2])
        for server in servers:
            server.seen.clear()
        for _ in range(30):
            await client.get()
    assert counts(servers[:2]) == [0, 0]


@in_every_shell
async def test_those_that_were_not_ready_are_kept_too(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(state=State.UNREADY) for _ in range(2)]
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        assert (await client.get()).status_code == 200


@in_every_shell
async def test_a_new_fleet_in_place_of_the_old_one_is_called_alone(shell: Shell, fleet: Fleet) -> None:
    """A deploy that did not say goodbye."""
    old = several(fleet)
    async with shell.client() as client:
        await client.get()
        new = several(fleet)
        vanish(fleet, old)
        for server in old:
            server.seen.clear()
        for _ in range(30):
            await client.get()
    assert counts(old) == [0, 0, 0]
    assert sum(counts(new)) == 30


@in_every_shell
async def test_who_called_nobody_yet_calls_those_that_vanished_before_too(shell: Shell, fleet: Fleet) -> None:
    """What a process knows is not one client's. Somebody has to care for a grace, though, when they vanish."""
    servers = several(fleet)
    async with shell.client() as client:
        await client.get()
        vanish(fleet, servers)
        async with shell.client(balancer="round_robin") as newcomer:
            assert (await newcomer.get()).status_code == 200
