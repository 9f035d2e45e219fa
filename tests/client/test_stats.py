"""`stats()`: what the calls have come to."""

from __future__ import annotations

import httpx
import pytest

from discoclient import NoInstances, OutlierPolicy, RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import FirstWell, Waits, disco, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import answer, close_unanswered, in_turn, refused_port


@in_every_shell
async def test_nothing_was_counted_before_the_first_call(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    async with shell.client() as client:
        assert client.raw.stats() == {}
        await client.get()
        assert client.raw.stats() == {"requests": 1, "retries": 0}


@in_every_shell
async def test_calls_count_once_however_many_attempts_they_take(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, close_unanswered(), answer())
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(3):
            await client.get()
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post()
        stats = client.raw.stats()
    assert (stats["requests"], stats["retries"], stats["retries.no_answer"]) == (4, 3, 3)
    assert sum(server.requests for server in servers) == stats["requests"] + stats["retries"]


@in_every_shell
async def test_retries_are_counted_by_cause(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Waits(monkeypatch)
    failures = {
        "no_answer": close_unanswered(),  # first: its connection must not have been used
        "unavailable": answer(status=503),
        "overloaded": answer(status=429, headers={"Retry-After": "1"}),
        "misdirected": answer(status=421, headers={"X-Disco-Instance": "somebody-else"}),
    }
    server, _ = in_order(fleet, answer(), answer())
    async with shell.client(balancer=BySlot(), outlier=OutlierPolicy(max_ejected=0.0)) as client:
        for failure in failures.values():
            server.behaviour = failure
            await client.get()
        server.behaviour = in_turn(answer(), close_unanswered(), answer())
        await client.get()
        await client.get()
        with refused_port() as port:
            fleet.register(port=port, slot="")
            await client.get()
        stats = client.raw.stats()
    causes = {name.removeprefix("retries."): count for name, count in stats.items() if "retries." in name}
    assert causes == dict.fromkeys([*failures, "stale", "connect"], 1)
    assert stats["retries"] == sum(causes.values())


@in_every_shell
async def test_a_call_that_was_never_sent_is_no_request(shell: Shell, fleet: Fleet) -> None:
    async with shell.client() as client:
        with pytest.raises(NoInstances):
            await client.get()
        server = fleet.add()
        with pytest.raises(httpx.ReadTimeout):
            await client.get(**disco(deadline=0))
        assert client.raw.stats()["requests"] == 0
        await client.get()
        assert client.raw.stats()["requests"] == server.requests == 1


@in_every_shell
async def test_ejections_are_counted_by_reason_and_those_that_were_spared_too(
    shell: Shell, fleet: Fleet
) -> None:
    with refused_port() as port:
        for number in range(3):
            fleet.register(port=port, slot=str(number))
        fleet.add(slot="9")
        async with shell.client(balancer=FirstWell(), retry=RetryPolicy(max_attempts=4)) as client:
            await client.get()
            stats = client.raw.stats()
    assert stats["ejections.connect"] == 2  # half of four
    assert stats["ejections_skipped.max_ejected"] == 1


@in_every_shell
async def test_the_budget_s_end_is_counted(shell: Shell, fleet: Fleet) -> None:
    in_order(fleet, close_unanswered(), answer())
    policy = RetryPolicy(budget=0.0, budget_reserve=0.2)
    async with shell.client(balancer=BySlot(), retry=policy) as client:
        for _ in range(2):
            await client.get()
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get()
        stats = client.raw.stats()
    assert (stats["requests"], stats["retries"], stats["budget_exhausted"]) == (5, 2, 3)


@in_every_shell
async def test_clients_with_equal_policies_count_together_and_others_apart(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add()
    other = RetryPolicy(max_attempts=7)
    async with shell.client() as one, shell.client() as twin, shell.client(retry=other) as stranger:
        for client in (one, twin, stranger):
            await client.get()
        assert one.raw.stats()["requests"] == twin.raw.stats()["requests"] == 2
        assert stranger.raw.stats()["requests"] == 1


@in_every_shell
async def test_a_transport_for_many_services_adds_them_up(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    fleet.add(service="other")
    transport = shell.transport()
    async with shell.plain_client(mounts={"disco://": transport}) as client:
        assert transport.stats() == {}
        for service in ("experiment", "other", "other"):
            await client.get(f"disco://{service}/")
        assert transport.stats()["requests"] == 3


@in_every_shell
async def test_many_at_once_lose_no_count(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:

        async def load() -> None:
            for _ in range(20):
                await client.get()

        await shell.together(*[load] * 6)
        assert client.raw.stats() == {"requests": 120, "retries": 0}
    assert server.requests == 120
