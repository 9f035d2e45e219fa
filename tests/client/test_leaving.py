"""Instances that drain, leave, or are not ready: what becomes of requests and of connections."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient, NoInstances, State
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import HttpServer, answer, refused_port, stream

WAYS = ("drain", "remove")


def leave(fleet: Fleet, way: str, server: HttpServer) -> None:
    fleet.drain(server) if way == "drain" else fleet.remove(server)


@pytest.mark.parametrize("way", WAYS)
@in_every_shell
async def test_what_leaves_gets_no_new_request(shell: Shell, fleet: Fleet, way: str) -> None:
    leaver, stayer = fleet.add(), fleet.add()
    async with shell.client(balancer="round_robin") as client:
        for _ in range(4):
            await client.get()
        leave(fleet, way, leaver)
        before = leaver.requests
        assert before > 0
        for _ in range(10):
            assert await client.port() == stayer.port
    assert leaver.requests == before


def test_when_all_drain_as_others_come_no_call_falls_in_between(fleet: Fleet) -> None:
    """The new set is published before the old endpoints are retired."""
    old, new = fleet.add(), fleet.servers.start()
    outcomes: list[object] = []
    with DiscoClient("experiment") as client:

        def call() -> None:
            try:
                outcomes.append(int(client.get("/").text))
            except Exception as error:
                outcomes.append(error)

        call()
        fleet.endpoint(old).on_retire(call)
        fleet.registry.set_down(True)  # so that both changes arrive as one
        fleet.registry.drain(fleet.instance(old))
        fleet.registry.add("experiment", new.port)
        fleet.registry.compact()
        fleet.registry.set_down(False)
        eventually(lambda: len(outcomes) == 2, timeout=20.0)
    assert outcomes == [old.port, new.port]


@pytest.mark.parametrize("way", WAYS)
@in_every_shell
async def test_idle_connections_to_what_leaves_are_closed_at_once(
    shell: Shell, fleet: Fleet, way: str
) -> None:
    leaver, stayer = fleet.add(http_keepalive=600), fleet.add(http_keepalive=600)
    async with shell.client(balancer="round_robin") as client:
        await shell.together(*[client.get] * 6)
        assert leaver.connections > 0
        assert stayer.connections > 0
        leave(fleet, way, leaver)
        await shell.eventually(lambda: leaver.connections == 0, what="the server sees them close")
        assert stayer.connections > 0


@pytest.mark.parametrize("way", WAYS)
@in_every_shell
async def test_a_busy_connection_to_what_leaves_is_closed_after_its_response(
    shell: Shell, fleet: Fleet, way: str
) -> None:
    is_over = threading.Event()
    leaver = fleet.add(stream([b"first", b"last"], wait=is_over.is_set), http_keepalive=600)
    async with shell.client() as client:
        response = await client.open()
        leave(fleet, way, leaver)
        fleet.add()
        await client.get()
        assert leaver.connections == 1
        is_over.set()
        assert await client.read(response) == b"firstlast"
        await shell.eventually(lambda: leaver.connections == 0)
    assert leaver.requests == 1


@in_every_shell
async def test_what_was_drained_and_says_that_it_is_ready_is_called_again(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as client:
        for turn in range(1, 4):
            assert await client.port() == server.port
            assert await client.port() == server.port
            assert server.accepted == turn  # one connection each time, and not the one that was closed
            fleet.drain(server)
            with pytest.raises(NoInstances, match="draining"):
                await client.get()
            await shell.eventually(lambda: server.connections == 0)
            fleet.change(server, replace(fleet.instance(server), state=State.READY))


@in_every_shell
async def test_what_drains_gets_no_request_even_if_it_is_the_last_one(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    fleet.drain(server)
    with refused_port() as port:
        fleet.register(port=port)
        async with shell.client() as client:
            for _ in range(3):
                with pytest.raises(httpx.ConnectError):
                    await client.get()
    assert server.requests == 0


@pytest.mark.parametrize("fields", [{"state": State.UNREADY}, {"weight": 0}], ids=["unready", "weight 0"])
@in_every_shell
async def test_a_last_resort_is_called_only_when_nothing_else_is_left(
    shell: Shell, fleet: Fleet, fields: dict[str, Any]
) -> None:
    last = fleet.add(slot="0", **fields)
    ready = fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(10):
            assert await client.port() == ready.port
        fleet.drain(ready)
        assert await client.port() == last.port
        fleet.remove(ready)
        assert await client.port() == last.port
        await client.wait_ready()


@in_every_shell
async def test_a_last_resort_is_where_a_request_goes_that_failed_everywhere_else(
    shell: Shell, fleet: Fleet
) -> None:
    last = fleet.add(state=State.UNREADY)
    with refused_port() as port:
        fleet.register(port=port)
        async with shell.client() as client:
            response = await client.get()
    assert response.extensions["disco"].attempts == 2
    assert last.requests == 1


@in_every_shell
async def test_an_unready_instance_keeps_its_connections(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(http_keepalive=600)
    async with shell.client() as client:
        await client.get()
        fleet.change(server, replace(fleet.instance(server), state=State.UNREADY))
        await client.get()
    assert server.accepted == 1


@in_every_shell
async def test_a_rolling_deploy_under_load_fails_no_request(shell: Shell, fleet: Fleet) -> None:
    """POSTs, which are never sent twice: what is lost here would be lost for good."""
    fleet_now = [fleet.add(answer(b"ok", delay=0.001)) for _ in range(3)]
    is_over = threading.Event()

    async def load() -> int:
        done = 0
        while not is_over.is_set():
            assert (await client.post()).status_code == 200
            done += 1
        return done

    async def deploy() -> int:
        for old in fleet_now:
            fleet.add(answer(b"ok", delay=0.001))
            await shell.sleep(0.03)
            fleet.drain(old)
            await shell.eventually(lambda: fleet.endpoint(old).in_flight == 0)  # noqa: B023
            await shell.eventually(lambda: old.connections == 0)  # noqa: B023
            fleet.servers.run(old.kill())
            fleet.remove(old)
        is_over.set()
        return 0

    async with shell.client() as client:
        done = await shell.together(*[load] * 4, deploy)
    assert [result for result in done if not isinstance(result, int)] == []
    assert 0 not in done[:4]
    assert fleet.in_flight() == 0
