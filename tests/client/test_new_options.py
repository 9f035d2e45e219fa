"""The options that are about trouble: what they take, what they refuse, and that they hold for every kind of client."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from discoclient import (
    AsyncDiscoClient,
    AsyncDiscoTransport,
    ConfigError,
    DeadlineExceeded,
    DiscoClient,
    DiscoTransport,
    Endpoint,
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    SlowStartPolicy,
    ThrottlePolicy,
)
from discoclient.control.hub import fresh_hub
from discoclient.transport.settings import TransportOptions
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import Events, counts, disco
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import answer, close_unanswered, never

MAKERS = [DiscoClient, AsyncDiscoClient, DiscoTransport, AsyncDiscoTransport]
OPTIONS: dict[str, Any] = {
    "hedge": HedgePolicy(),
    "throttle": ThrottlePolicy(),
    "recovery": RecoveryPolicy(min_working=2),
    "slow_start": SlowStartPolicy(window=1.0),
    "zone": "a",
    "versions": {"2": 0.5},
    "subset": 3,
    "vanish_grace": 5.0,
    "deadline": 20.0,
    "last_known": "a-folder",
    "hooks": [Events()],
}


# ---- what they take


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hedge": True}, "hedge= must be a HedgePolicy; got True"),
        ({"hedge": {}}, "hedge= must be a HedgePolicy"),
        ({"throttle": 2.0}, "throttle= must be a ThrottlePolicy; got 2.0"),
        ({"recovery": 3}, "recovery= must be a RecoveryPolicy; got 3"),
        ({"slow_start": 10}, "slow_start= must be a SlowStartPolicy; got 10"),
        ({"slow_start": None}, "slow_start= must be a SlowStartPolicy"),
        ({"zone": 3}, "zone= must be a zone's name; got 3"),
        ({"zone": ["a"]}, "zone= must be a zone's name"),
        ({"versions": {"2": 1.1}}, "must be a share between 0 and 1; got 1.1"),
        ({"versions": {"2": -0.1}}, "must be a share between 0 and 1"),
        ({"versions": {"2": "half"}}, "must be a share between 0 and 1; got 'half'"),
        ({"versions": {"1": 0.6, "2": 0.6}}, "must not add up to more than 1"),
        ({"versions": ["2"]}, "versions= must map versions to shares"),
        ({"versions": "2"}, "versions= must map versions to shares"),
        ({"subset": 0}, "subset= must be a whole number, 1 or more; got 0"),
        ({"subset": 2.5}, "subset= must be a whole number"),
        ({"subset": True}, "subset= must be a whole number"),
        ({"vanish_grace": -1}, "vanish_grace= must be a number of seconds, 0 or more; got -1"),
        ({"vanish_grace": None}, "vanish_grace="),
        ({"vanish_grace": math.inf}, "vanish_grace="),
        ({"deadline": 0}, "deadline= must be a number of seconds, more than 0; got 0"),
        ({"deadline": -1}, "deadline="),
        ({"deadline": "1"}, "deadline="),
        ({"deadline": math.nan}, "deadline="),
        ({"last_known": 3}, "last_known= must be a folder's path; got 3"),
        ({"last_known": True}, "last_known= must be a folder's path"),
        ({"hooks": [print]}, "is no hook: hooks= takes objects with a method on_event"),
        ({"hooks": [Events]}, "is no hook"),
        ({"hooks": [None]}, "None is no hook"),
        ({"hooks": Events()}, "hooks"),
        ({"hooks": 3}, "hooks"),
        ({"hooks": None}, "hooks"),
    ],
)
def test_a_wrong_option_is_a_config_error_that_says_what_is_right(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make("experiment", **options)


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (RetryPolicy, {"budget": 1.5}, "RetryPolicy.budget must be a share between 0 and 1; got 1.5"),
        (RetryPolicy, {"budget": True}, "RetryPolicy.budget"),
        (RetryPolicy, {"budget_reserve": -1}, "RetryPolicy.budget_reserve must be a number, 0 or more"),
        (RetryPolicy, {"budget_reserve": math.inf}, "RetryPolicy.budget_reserve"),
        (RetryPolicy, {"budget_reserve": math.nan}, "RetryPolicy.budget_reserve"),
        (RetryPolicy, {"backoff_first": -0.1}, "RetryPolicy.backoff_first must be a number of seconds"),
        (RetryPolicy, {"backoff_cap": "1"}, "RetryPolicy.backoff_cap"),
        (RetryPolicy, {"max_retry_after": -1}, "RetryPolicy.max_retry_after"),
        (OutlierPolicy, {"min_success_rate": 1.1}, "OutlierPolicy.min_success_rate must be a share"),
        (OutlierPolicy, {"success_window": 0}, "OutlierPolicy.success_window"),
        (OutlierPolicy, {"min_requests": 0}, "OutlierPolicy.min_requests"),
        (SlowStartPolicy, {"window": -1}, "SlowStartPolicy.window"),
        (SlowStartPolicy, {"floor": 2}, "SlowStartPolicy.floor must be a share"),
        (HedgePolicy, {"percentile": 95}, "HedgePolicy.percentile must be a share between 0 and 1; got 95"),
        (HedgePolicy, {"budget": -0.1}, "HedgePolicy.budget"),
        (HedgePolicy, {"min_delay": -1}, "HedgePolicy.min_delay"),
        (HedgePolicy, {"min_samples": 0}, "HedgePolicy.min_samples must be a whole number, 1 or more"),
        (ThrottlePolicy, {"ratio": 0.5}, "ThrottlePolicy.ratio must be a number, 1 or more; got 0.5"),
        (ThrottlePolicy, {"window": 0}, "ThrottlePolicy.window"),
        (ThrottlePolicy, {"max_probability": 1.01}, "ThrottlePolicy.max_probability"),
        (RecoveryPolicy, {"min_working": 0}, "RecoveryPolicy.min_working must be a whole number, 1 or more"),
        (RecoveryPolicy, {"min_working": 1, "hold": -1}, "RecoveryPolicy.hold"),
    ],
)
def test_a_wrong_value_of_a_policy_is_a_config_error_that_names_it(
    policy: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        policy(**options)


@pytest.mark.parametrize("make", MAKERS)
def test_an_unknown_option_is_refused_as_ever(make: Any) -> None:
    with pytest.raises(TypeError, match="hedging"):
        make("experiment", hedging=HedgePolicy())


def test_the_four_take_the_same_options_with_the_same_defaults() -> None:
    sync, other = (inspect.signature(each).parameters for each in (DiscoClient, AsyncDiscoClient))
    assert {*OPTIONS} <= {*sync} & {*TransportOptions.__annotations__}
    for name in OPTIONS:
        assert sync[name].default == other[name].default
        assert sync[name].kind is inspect.Parameter.KEYWORD_ONLY
    off = {name for name in OPTIONS if sync[name].default is None}
    assert off == {
        "deadline",
        "hedge",
        "last_known",
        "recovery",
        "subset",
        "throttle",
        "versions",
        "zone",
    }


@pytest.mark.parametrize("make", MAKERS)
def test_making_one_with_all_options_does_nothing_yet(make: Any, tmp_path: Path, fleet: Fleet) -> None:
    events, folder = Events(), tmp_path / "known"
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        made = make("experiment", **OPTIONS | {"hooks": [events], "last_known": folder})
        best = min(best, time.perf_counter() - began)
        del made
    assert best < 0.01
    assert events.all == []
    assert not folder.exists()


@in_every_shell
async def test_all_options_go_together(shell: Shell, fleet: Fleet, tmp_path: Path) -> None:
    events = Events()
    servers = [fleet.add(version=str(number % 2 + 1), zone="ab"[number // 2]) for number in range(4)]
    options = OPTIONS | {"hooks": [events], "last_known": tmp_path, "recovery": RecoveryPolicy(min_working=1)}
    async with shell.client(**options) as client:
        for number in range(20):
            await client.get(**disco(hash_key=number, version="1", deadline=10.0))
        await client.post()
    assert sum(counts(servers)) == 21
    assert servers[1].requests + servers[3].requests <= 1
    assert len(events.all) == 84 + sum("Snapshot" in name or "Phase" in name for name in events.names)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_they_hold_for_many_services_behind_one_transport(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    hanging, failing = fleet.add(never()), fleet.add(close_unanswered(), service="other", version="1")
    fleet.add(service="other", version="2")
    transport = shell.transport(deadline=0.1, versions={"1": 1.0}, hooks=[events])
    async with shell.plain_client(mounts={"disco://": transport}, timeout=20) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("disco://experiment/")
        response = await client.get("disco://other/", **disco(deadline=20.0))
    assert response.extensions["disco"].instance.version == "2"
    assert (hanging.requests, failing.requests) == (1, 1)
    assert [name for name in events.names if name == "CallEnded"] == ["CallEnded"] * 2


# ---- what no file of its own is about


class Witness(BySlot):
    """A balancer that remembers among whom it was to choose."""

    ports: set[int]

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Any:
        self.ports = {endpoint.instance.port for endpoint in endpoints}
        return super().picker(endpoints, rng)


@in_every_shell
async def test_a_subset_is_all_that_one_process_uses(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add() for _ in range(6)]
    async with shell.client(subset=2, balancer="round_robin") as client:
        for _ in range(30):
            await client.get()
        assert sorted(counts(servers)) == [0, 0, 0, 0, 15, 15]
        used = {server.port for server in servers if server.requests}
        async with shell.client(subset=2, balancer="random") as twin:
            assert {await twin.port() for _ in range(40)} == used
        async with shell.client(balancer="round_robin") as free:
            assert {await free.port() for _ in range(6)} == {server.port for server in servers}
        leaver = next(server for server in servers if server.requests and server.port in used)
        fleet.drain(leaver)
        after = {await client.port() for _ in range(20)}
    assert len(after) == 2
    assert used - {leaver.port} < after


@in_every_shell
async def test_each_process_draws_another_subset_and_all_of_its_clients_the_same(shell: Shell) -> None:
    """Else all callers would load the same few. A hub of its own stands for a process; nobody is called."""
    registry = "static://experiment=" + ",".join(f"127.0.0.1:{port}" for port in range(1, 41))
    drawn: list[set[int]] = []
    for _ in range(6):
        with fresh_hub():
            twins = [Witness(), Witness()]
            for witness in twins:
                async with shell.client(registry=registry, subset=3, balancer=witness) as client:
                    await client.wait_ready()
            assert twins[0].ports == twins[1].ports
            assert len(twins[0].ports) == 3
            drawn.append(twins[0].ports)
    assert any(ports != drawn[0] for ports in drawn)


@in_every_shell
async def test_what_is_left_alone_of_a_subset_is_made_up_for_by_the_rest_of_it(
    shell: Shell, fleet: Fleet
) -> None:
    servers = [fleet.add() for _ in range(4)]
    outlier = OutlierPolicy(consecutive_failures=1, base_ejection=1000.0, max_ejection=1000.0)
    async with shell.client(subset=2, balancer="round_robin", outlier=outlier) as client:
        for _ in range(4):
            await client.get()
        used = [server for server in servers if server.requests]
        used[0].behaviour = answer(status=503)
        for _ in range(10):
            assert (await client.get()).status_code == 200
    assert used[1].requests == 12
    assert sum(counts(servers)) == 15


@in_every_shell
async def test_policies_of_one_client_are_not_another_s(shell: Shell, fleet: Fleet) -> None:
    """What they have learnt of an instance is the process's; how often they try is each one's own."""
    fleet.add(close_unanswered())
    other = fleet.add()
    none, some = RetryPolicy(max_attempts=1), RetryPolicy()
    outlier = OutlierPolicy(max_ejected=0.0)
    async with (
        shell.client(retry=none, outlier=outlier, balancer="round_robin") as one,
        shell.client(retry=some, outlier=outlier, balancer="round_robin") as two,
    ):
        failures = 0
        for _ in range(10):
            try:
                await one.get()
            except Exception:
                failures += 1
            assert (await two.get()).status_code == 200
    assert failures == 5
    assert other.requests == 15
