"""Which engine carries what, and what is said of one that can't."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pytest

from discoclient import (
    AsyncDiscoClient,
    AsyncDiscoTransport,
    ConfigError,
    DiscoClient,
    DiscoTransport,
)
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.http2 import Http2Server
from tests.transport.engines import carried_by, ways

FACES = pytest.mark.parametrize("face", [DiscoClient, AsyncDiscoClient, DiscoTransport, AsyncDiscoTransport])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"sync": "native", "asyncio": "native", "trio": "httpcore"}),
        ({"engine": "auto"}, {"sync": "native", "asyncio": "native", "trio": "httpcore"}),
        ({"engine": "httpcore"}, dict.fromkeys(("sync", "asyncio", "trio"), "httpcore")),
        ({"http2": True}, dict.fromkeys(("sync", "asyncio", "trio"), "httpcore")),
        ({"engine": "httpcore", "http2": True}, dict.fromkeys(("sync", "asyncio", "trio"), "httpcore")),
    ],
)
@in_every_shell
async def test_the_engine_fits_what_is_asked_for(
    shell: Shell, fleet: Fleet, options: dict[str, Any], expected: dict[str, str]
) -> None:
    fleet.add()
    async with shell.client(**options) as client:
        for _ in range(2):
            assert carried_by(await client.get()) == expected[shell.name]
        async with client.stream() as response:
            assert carried_by(response) == expected[shell.name]


@ways
@in_every_shell
async def test_native_is_native(shell: Shell, fleet: Fleet) -> None:
    fleet.add()
    async with shell.client(engine="native") as client:
        assert carried_by(await client.get()) == "native"


@in_every_shell
async def test_http2_alone_goes_over_httpcore(shell: Shell, fleet: Fleet) -> None:
    with Http2Server() as server:
        fleet.register(port=server.port)
        async with shell.client(http1=False, http2=True) as client:
            response = await client.get()
    assert (carried_by(response), response.http_version) == ("httpcore", "HTTP/2")


@in_every_shell
async def test_http2_is_balanced_too(shell: Shell, fleet: Fleet) -> None:
    with Http2Server() as one, Http2Server() as two, Http2Server() as three:
        ports = [server.port for server in (one, two, three)]
        for port in ports:
            fleet.register(port=port, http_keepalive=600)
        async with shell.client(http1=False, http2=True, balancer="round_robin") as client:
            counts = Counter([(await client.get()).extensions["disco"].instance.port for _ in range(9)])
        assert counts == dict.fromkeys(ports, 3)
        assert all(len(server._open) == 1 for server in (one, two, three)), "each on one connection"


# ---- what can't be


WRONG = [
    "",
    "natve",
    "aiohttp",
    None,
    1,
    ["native"],
    b"native",
    httpx.MockTransport(lambda _: httpx.Response(200)),
]


@pytest.mark.parametrize("engine", WRONG)
@FACES
def test_an_engine_that_does_not_exist_is_an_error_that_names_those_that_do(face: Any, engine: Any) -> None:
    with pytest.raises(ConfigError, match=r"auto, native, httpcore, or a function .* httpx transport"):
        face("experiment", engine=engine)


@pytest.mark.parametrize("options", [{"http2": True}, {"http1": False}, {"http1": False, "http2": True}])
@FACES
def test_native_and_http2_is_an_error_that_says_what_to_do(face: Any, options: Any) -> None:
    with pytest.raises(ConfigError, match=r"HTTP/1\.1 alone.*engine='httpcore'"):
        face("experiment", engine="native", **options)


@pytest.mark.parametrize("shell", [Shell("trio")], ids=["trio"])
@in_every_shell
async def test_native_on_trio_is_an_error_that_says_what_to_do(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client(engine="native") as client:
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"needs asyncio.*engine='auto'"):
                await client.get()
    assert (server.requests, fleet.in_flight()) == (0, 0)
