"""`explain()`: what would be chosen from, and why."""

from __future__ import annotations

import httpx
import pytest

from discoclient import ConfigError, DiscoveryTimeout, Explanation, OutlierPolicy, SlowStartPolicy, State
from discoclient.testing import TestRegistry
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import DecisionClock, FirstWell, in_order
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import answer, refused_port, stream


async def explain(client: Face) -> Explanation:
    explanation: Explanation = await client._do("explain")
    return explanation


@in_every_shell
async def test_it_knows_every_instance_and_how_it_stands(shell: Shell, fleet: Fleet) -> None:
    ready = fleet.add(version="2.4.1", zone="a")
    resting, unready = fleet.add(weight=0), fleet.add(state=State.UNREADY)
    draining = fleet.add()
    fleet.drain(draining)
    async with shell.client() as client:
        await shell.eventually(lambda: str(fleet.handle.resolver("experiment").phase) == "live")
        found = await explain(client)
        assert [(each.standing, each.instance) for each in found.candidates] == [
            ("ready", fleet.instance(ready)),
            ("weight 0", fleet.instance(resting)),
            ("unready", fleet.instance(unready)),
            ("draining", fleet.instance(draining)),
        ]
        assert (found.service, found.balancer, found.phase) == ("experiment", "PeakEwma", "live")
        assert found.age is not None
        assert not found.is_suspect
        assert not found.is_panic
        response = await client.get()
        assert (await explain(client)).revision == response.extensions["disco"].revision
    text = str(found)
    for word in ("experiment: 4 known", "(live, ", "2.4.1", "zone a", "unready", "weight 0", ready.address):
        assert word in text
    assert ready.requests == 1  # to ask is no request
    assert [server.requests for server in (resting, unready, draining)] == [0, 0, 0]


@in_every_shell
async def test_the_balancer_is_named_the_user_s_own_too(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    names = {"round_robin": "RoundRobin", "rendezvous": "Rendezvous", "random": "Random"}
    for name, shown in names.items():
        async with shell.client(balancer=name) as client:
            assert (await explain(client)).balancer.startswith(shown)
    async with shell.client(balancer=BySlot()) as client:
        assert "by BySlot" in str(await explain(client))


@in_every_shell
async def test_it_shows_load_and_latency_as_they_are(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(delay=0.02))
    async with shell.client() as client:
        (before,) = (await explain(client)).candidates
        assert (before.requests, before.failures, before.in_flight, before.answers) == (0, 0, 0, 0)
        for _ in range(3):
            await client.get()
        server.behaviour = stream([b"a", b"b"], wait=lambda: False)
        response = await client.open()
        (after,) = (await explain(client)).candidates
        await client.close_response(response)
        (closed,) = (await explain(client)).candidates
    assert (after.requests, after.failures, after.in_flight) == (4, 0, 1)
    assert after.latency > 0
    assert after.cost > 0
    assert (after.success_rate, after.answers, after.failures_in_a_row) == (1.0, 4, 0)
    assert after.known_for > 0
    assert closed.in_flight == 0


@in_every_shell
async def test_it_says_who_is_left_alone_and_for_what(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = DecisionClock(monkeypatch, is_frozen=True)
    outlier = OutlierPolicy(base_ejection=100.0, max_ejection=100.0)
    with refused_port() as port:
        refusing = fleet.register(port=port, slot="0")
        failing, good = in_order(fleet, answer(status=503), answer())
        fleet.add(slot="9")
        async with shell.client(balancer=FirstWell(), outlier=outlier) as client:
            for _ in range(4):
                await client.get()
            found = {each.instance.id: each for each in (await explain(client)).candidates}
            shown = found[refusing.id]
            assert (shown.reason, shown.requests, shown.failures) == ("connect", 1, 1)
            assert shown.ejected_for is not None
            assert 50 <= shown.ejected_for <= 100
            shown = found[fleet.instance(failing).id]
            assert (shown.reason, shown.ejected_for, shown.failures_in_a_row) == (None, None, 4)
            assert (shown.success_rate, shown.answers) == (0.0, 4)
            assert found[fleet.instance(good).id].ejected_for is None
            await client.get()
            found = {each.instance.id: each for each in (await explain(client)).candidates}
            assert found[fleet.instance(failing).id].reason == "consecutive"
            text = str(await explain(client))
            assert "left alone for" in text
            assert "(connect)" in text
            clock.advance(101.0)
            shown = {each.instance.id: each for each in (await explain(client)).candidates}[refusing.id]
            assert (shown.ejected_for, shown.reason) == (0.0, "connect")
            assert "until a probe goes well" in str(await explain(client))


@pytest.mark.parametrize(("window", "answers"), [(30.0, 0), (1000.0, 4)])
@in_every_shell
async def test_it_counts_the_answers_of_the_client_s_own_window(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, window: float, answers: int
) -> None:
    clock = DecisionClock(monkeypatch, is_frozen=True)
    fleet.add()
    async with shell.client(outlier=OutlierPolicy(success_window=window)) as client:
        for _ in range(4):
            await client.get()
        clock.advance(100.0)
        (shown,) = (await explain(client)).candidates
    assert shown.answers == answers


@in_every_shell
async def test_it_shows_what_a_newcomer_gets_just_now(shell: Shell, fleet: Fleet) -> None:
    async with shell.client(slow_start=SlowStartPolicy(window=10_000.0, floor=0.2)) as client:
        for _ in range(2):
            fleet.endpoint(fleet.add(weight=50)).first_seen -= 20_000.0
        new = fleet.add(weight=50)
        found = {each.instance.port: each.weight for each in (await explain(client)).candidates}
    assert found.pop(new.port) == 10.0
    assert list(found.values()) == [50.0, 50.0]


@in_every_shell
async def test_its_counts_are_the_client_s_stats(shell: Shell, fleet: Fleet) -> None:
    in_order(fleet, answer(status=503), answer())
    async with shell.client(balancer=BySlot()) as client:
        await client.get()
        found = await explain(client)
        assert found.counts == client.raw.stats()
        assert found.counts["retries.unavailable"] == 1
    assert "requests 1" in str(found)


@in_every_shell
async def test_rows_are_plain_values(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(version="1", zone="z", weight=30)
    async with shell.client() as client:
        await client.get()
        (row,) = (await explain(client)).rows()
    assert row["id"] == fleet.instance(server).id
    assert (row["address"], row["version"], row["zone"]) == (server.address, "1", "z")
    assert (row["standing"], row["weight"], row["requests"]) == ("ready", 30, 1)
    assert all(isinstance(value, str | int | float | None) for value in row.values())


@in_every_shell
async def test_a_client_may_be_asked_before_its_first_call(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(service="other")
    async with shell.client("other") as client:
        assert [each.instance.port for each in (await explain(client)).candidates] == [server.port]
    async with shell.client("nobody") as client:
        found = await explain(client)
        assert found.candidates == ()
        assert "nobody: 0 known" in str(found)
    assert server.requests == 0


@in_every_shell
async def test_where_nothing_is_known_it_fails_as_a_call_does(shell: Shell, registry: TestRegistry) -> None:
    registry.set_down(True)
    async with shell.client(discovery_timeout=0.1) as client:
        with pytest.raises(DiscoveryTimeout, match="nothing is known of service 'experiment'"):
            await explain(client)
    assert issubclass(DiscoveryTimeout, httpx.TimeoutException)


@in_every_shell
async def test_while_the_registry_is_away_it_says_how_old_the_knowledge_is(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add()
    async with shell.client() as client:
        await shell.eventually(lambda: str(fleet.handle.resolver("experiment").phase) == "live")
        young = await explain(client)
        fleet.registry.set_down(True)
        await shell.eventually(lambda: str(fleet.handle.resolver("experiment").phase) == "suspect")
        old = await explain(client)
        assert (young.phase, old.phase) == ("live", "suspect")
        assert young.age is not None
        assert old.age is not None
        assert len(old.candidates) == 1
        before = old.age
        later = (await explain(client)).age
        assert later is not None
        assert later > before


@in_every_shell
async def test_a_transport_for_one_service_can_be_asked_and_one_for_many_can_t(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add()
    transport = Face(shell.transport("experiment"))
    asked = transport.raw.explain()
    found = asked if shell.is_sync else await asked
    assert len(found.candidates) == 1
    many = shell.transport()
    with pytest.raises(ConfigError):
        asked = many.explain()
        if not shell.is_sync:
            await asked
    transport.raw.close() if shell.is_sync else await transport.raw.aclose()
