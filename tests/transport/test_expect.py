"""``Expect: 100-continue`` and a change of the protocol: what native does with interim responses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from discoclient import RetryPolicy
from discoclient.transport.http1 import async_connection, sync_connection
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import Exchange
from tests.transport.engines import carried_by, engine_for, everywhere, ways

EXPECT = {"Expect": "100-continue"}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello"


async def welcoming(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await exchange.reply(200, await exchange.body())


async def refusing(exchange: Exchange) -> None:
    await exchange.reply(417, b"no")


async def silent(exchange: Exchange) -> None:
    await exchange.reply(200, await exchange.body())


async def switching(exchange: Exchange) -> None:
    await exchange.write(SWITCH)
    await exchange.wait_for_end()


@ways
@pytest.mark.parametrize("is_whole", [True, False])
@in_every_shell
async def test_the_body_is_sent_once_it_is_welcome(shell: Shell, fleet: Fleet, is_whole: bool) -> None:
    server = fleet.add(welcoming, http_keepalive=600)
    async with shell.client() as client:
        for _ in range(2):
            content: Any = b"hello" if is_whole else shell.body([b"hel", b"lo"])
            response = await client.post(content=content, headers=EXPECT)
            assert (response.status_code, response.content, carried_by(response)) == (200, b"hello", "native")
    assert server.accepted == 1


@ways
@in_every_shell
async def test_a_body_that_is_refused_is_not_read_at_all(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(refusing, http_keepalive=600)
    error = AssertionError("nobody was to read it")
    async with shell.client() as client:
        response = await client.post(content=shell.body([], error=error), headers=EXPECT)
        assert (response.status_code, response.content) == (417, b"no")
        with pytest.raises(AssertionError):  # the negative control
            await client.post(content=shell.body([], error=error))
        what = "a new connection: the one that announced a body and did not send it is over"
        await shell.eventually(lambda: server.accepted == 2, what=what)


@ways
@in_every_shell
async def test_a_service_that_says_nothing_gets_its_body_after_a_while(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sync_connection, async_connection):
        monkeypatch.setattr(module, "CONTINUE", 0.02)
    fleet.add(silent)
    async with shell.client() as client:
        assert (await client.post(content=b"hello", headers=EXPECT)).content == b"hello"


# ---- another protocol


@ways
@pytest.mark.parametrize(
    "headers", [{}, {"Connection": "Upgrade", "Upgrade": "echo"}], ids=["unasked", "asked"]
)
@in_every_shell
async def test_native_refuses_a_change_of_the_protocol_and_says_who_does_not(
    shell: Shell, fleet: Fleet, headers: dict[str, str]
) -> None:
    server = fleet.add(switching)
    async with shell.client(retry=RetryPolicy(max_attempts=1)) as client:
        for _ in range(2):
            with pytest.raises(
                httpx.RemoteProtocolError, match=r"changes the protocol \(101\): engine='httpcore'"
            ):
                await client.get(headers=headers)
        await shell.eventually(lambda: server.connections == 0, what="its connections are closed")
    assert fleet.in_flight() == 0


@everywhere
@in_every_shell
async def test_httpcore_hands_the_connection_over(shell: Shell, engine: str, fleet: Fleet) -> None:
    """What the message says is true."""
    if engine == "native":
        engine = "httpcore"
    fleet.add(switching)
    upgrade = {"Connection": "Upgrade", "Upgrade": "echo"}
    async with (
        shell.client(engine=engine_for(shell, engine)) as client,
        client.stream(headers=upgrade) as response,
    ):
        assert response.status_code == 101
        found = response.extensions["network_stream"].read(5, 5.0)
        assert (found if shell.is_sync else await found) == b"hello"
    assert fleet.in_flight() == 0
