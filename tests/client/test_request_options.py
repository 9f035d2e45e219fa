"""``extensions={"disco": {...}}``: what may be said for one request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from discoclient import ConfigError, NoInstances, RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import close_unanswered, refused_port


def disco(**options: Any) -> dict[str, Any]:
    return {"extensions": {"disco": options}}


@in_every_shell
async def test_an_excluded_instance_is_not_called(shell: Shell, fleet: Fleet) -> None:
    one, other = fleet.add(), fleet.add()
    async with shell.client() as client:
        for _ in range(20):
            assert await client.port(**disco(exclude=[fleet.instance(one).id])) == other.port
    assert one.requests == 0


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, iter, lambda ids: (id for id in ids)])
@in_every_shell
async def test_what_is_excluded_may_be_any_iterable(shell: Shell, fleet: Fleet, kind: Any) -> None:
    one, other = fleet.add(slot="0"), fleet.add(slot="1")
    ids: Iterable[str] = kind([fleet.instance(one).id, "not-there"])
    async with shell.client(balancer=BySlot()) as client:
        assert await client.port(**disco(exclude=ids)) == other.port


@in_every_shell
async def test_when_all_are_excluded_there_is_none_to_call(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client() as client:
        with pytest.raises(NoInstances, match="1 registered"):
            await client.get(**disco(exclude=[fleet.instance(server).id]))


@in_every_shell
async def test_an_excluded_instance_is_not_tried_again_either(shell: Shell, fleet: Fleet) -> None:
    first, second = fleet.add(close_unanswered(), slot="0"), fleet.add(slot="1")
    async with shell.client(balancer=BySlot()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(**disco(exclude=[fleet.instance(second).id]))
    assert (first.requests, second.requests) == (1, 0)


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (4, 5), (9, 5)])
@in_every_shell
async def test_retries_says_how_many_attempts_may_follow_the_first(
    shell: Shell, fleet: Fleet, retries: int, attempts: int
) -> None:
    with refused_port() as port:
        for number in range(5):
            fleet.register(port=port, slot=str(number))
        async with shell.client() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(**disco(retries=retries))
    assert len(getattr(caught.value, "__notes__", [None])) == attempts


@in_every_shell
async def test_retries_does_not_lift_the_bound_on_what_is_sent(shell: Shell, fleet: Fleet) -> None:
    servers = [fleet.add(close_unanswered()) for _ in range(4)]
    async with shell.client(retry=RetryPolicy(max_attempts_sent=3)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(**disco(retries=9))
    assert sum(server.requests for server in servers) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrys": 1}, r"'retrys'.*deadline, exclude, hash_key, retries, version"),
        ({"retries": -1}, "0 or more; got -1"),
        ({"retries": 1.5}, r"whole number.*1\.5"),
        ({"retries": True}, "whole number.*True"),
        ({"retries": "1"}, "whole number"),
        ({"exclude": "an-instance-id"}, "collection of instance ids"),
        ({"exclude": [1]}, "collection of instance ids"),
        ({"exclude": 7}, "collection of instance ids"),
        ("retries", "deadline, exclude, hash_key, retries, version"),
        (["retries"], "deadline, exclude, hash_key, retries, version"),
        (3, "deadline, exclude, hash_key, retries, version"),
    ],
)
@in_every_shell
async def test_a_wrong_option_is_a_config_error_that_names_the_valid_ones(
    shell: Shell, fleet: Fleet, options: Any, message: str
) -> None:
    server = fleet.add()
    async with shell.client() as client:
        with pytest.raises(ConfigError, match=message):
            await client.get(extensions={"disco": options})
    assert server.requests == 0
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_wrong_option_is_an_error_before_anything_is_waited_for(shell: Shell, fleet: Fleet) -> None:
    fleet.registry.set_down(True)
    async with shell.client("unknown", discovery_timeout=30.0) as client:
        with pytest.raises(ConfigError, match="retries"):
            await client.get(**disco(retrys=1))


@in_every_shell
async def test_options_hold_after_a_redirect_too(shell: Shell, fleet: Fleet) -> None:
    from tests.support.servers import redirect

    one, other = fleet.add(slot="0"), fleet.add(redirect("/there"), slot="1")
    async with shell.client(balancer=BySlot(), follow_redirects=True) as client:
        response = await client.get("/", **disco(exclude=[fleet.instance(one).id]))
    assert response.text == f"{other.port} /there"
    assert one.requests == 0


@in_every_shell
async def test_options_of_httpx_s_own_are_left_to_it(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    seen: list[str] = []

    def trace(name: str, info: dict[str, Any]) -> None:
        seen.append(name)

    async def trace_async(name: str, info: dict[str, Any]) -> None:
        trace(name, info)

    async with shell.client() as client:
        await client.get(extensions={"trace": trace if shell.is_sync else trace_async})
    assert "connection.connect_tcp.complete" in seen
    assert "http11.response_closed.complete" in seen
