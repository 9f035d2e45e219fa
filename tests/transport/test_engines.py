"""Each engine carries the same: bodies, streams, timeouts, errors, limits, retries."""

from __future__ import annotations

import gc

import httpx
import pytest

from discoclient import (
    AsyncDiscoClient,
    AsyncDiscoTransport,
    DeadlineExceeded,
    DiscoClient,
    DiscoTransport,
    RetryPolicy,
)
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import (
    Exchange,
    answer,
    blackhole,
    break_off,
    close_unanswered,
    echo,
    never,
    refused_port,
    reset_unanswered,
    stream,
)
from tests.transport.engines import engine_for, everywhere, ways

ONCE = RetryPolicy(max_attempts=1)

FACES = pytest.mark.parametrize("face", [DiscoClient, AsyncDiscoClient, DiscoTransport, AsyncDiscoTransport])


@everywhere
@in_every_shell
async def test_bodies_go_both_ways(shell: Shell, engine: str, fleet: Fleet) -> None:
    server = fleet.add(echo(), http_keepalive=600)
    big = bytes(range(256)) * 4000
    async with shell.client(engine=engine_for(shell, engine)) as client:
        for _ in range(2):
            assert (await client.post(content=b"hello")).content == b"hello"
            assert (await client.post(content=big)).content == big
            assert (await client.post(content=shell.body([b"he", b"", b"llo"]))).content == b"hello"
            assert (await client.get()).content == b""
            assert (await client.request("HEAD")).content == b""
            async with client.stream("PUT", content=big) as response:
                assert b"".join([part async for part in client.parts(response)]) == big
    assert server.accepted == 1
    assert fleet.in_flight() == 0
    sent = [
        (seen.headers.get("content-length"), seen.headers.get("transfer-encoding"))
        for seen in server.seen[:4]
    ]
    assert sent == [("5", None), (str(len(big)), None), (None, "chunked"), (None, None)]


@everywhere
@in_every_shell
async def test_a_stream_comes_as_it_is_sent_and_may_be_left(shell: Shell, engine: str, fleet: Fleet) -> None:
    is_over: list[int] = []
    fleet.add(stream([b"one"], wait=lambda: bool(is_over)))
    async with shell.client(engine=engine_for(shell, engine)) as client:
        async with client.stream() as response:
            async for part in client.parts(response):
                assert part == b"one"
                assert fleet.in_flight() == 1
                is_over.append(1)
        async with client.stream():
            pass  # nobody reads it
        assert fleet.in_flight() == 0


@everywhere
@in_every_shell
async def test_errors_are_httpx_s_own(shell: Shell, engine: str, fleet: Fleet) -> None:
    options = {"engine": engine_for(shell, engine), "retry": ONCE}
    expected = {
        never(): httpx.ReadTimeout,
        close_unanswered(): httpx.RemoteProtocolError,
        break_off(): httpx.RemoteProtocolError,
        reset_unanswered(): httpx.ReadError,
    }
    for number, (behaviour, kind) in enumerate(expected.items()):
        fleet.add(behaviour, service=f"experiment-{number}")
        async with shell.client(
            f"experiment-{number}", timeout=httpx.Timeout(5.0, read=0.05), **options
        ) as client:
            for ask in (client.get, client.post):
                with pytest.raises(httpx.TransportError) as raised:
                    await ask()
                assert type(raised.value) is kind
                assert raised.value.request.url.host == f"experiment-{number}"


@pytest.mark.filterwarnings(
    "ignore:Async generator:ResourceWarning"
)  # trio's, of the body that httpcore leaves
@everywhere
@in_every_shell
async def test_who_takes_nothing_is_a_write_timeout(shell: Shell, engine: str, fleet: Fleet) -> None:
    async def deaf(exchange: Exchange) -> None:
        await exchange.wait_until(lambda: False)

    fleet.add(deaf, server={"receive_buffer": 65_536})
    timeout = httpx.Timeout(5.0, write=0.05)
    async with shell.client(engine=engine_for(shell, engine), retry=ONCE, timeout=timeout) as client:
        with pytest.raises(httpx.WriteTimeout):
            await client.post(content=b"x" * 16_000_000)
    gc.collect()  # while that warning is let through
    assert fleet.in_flight() == 0


@everywhere
@in_every_shell
async def test_what_can_not_be_sent_is_the_caller_s_own_error(
    shell: Shell, engine: str, fleet: Fleet
) -> None:
    server = fleet.add()
    async with shell.client(engine=engine_for(shell, engine)) as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.get(headers={"x-name": "a\r\nb: c"})
        assert await client.port() == server.port
    assert server.requests == 1


@everywhere
@in_every_shell
async def test_who_is_not_there_is_a_connect_error(shell: Shell, engine: str, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port)
        async with shell.client(engine=engine_for(shell, engine), retry=ONCE) as client:
            with pytest.raises(httpx.ConnectError):
                await client.post(content=shell.body([b"x"]))


@everywhere
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(0.05, 5.0), (5.0, 0.05), (0.05, None)],
    ids=["the policy's", "httpx's", "the policy's alone"],
)
@in_every_shell
async def test_the_smaller_connect_timeout_holds(
    shell: Shell, engine: str, fleet: Fleet, ours: float, theirs: float | None
) -> None:
    retry = RetryPolicy(max_attempts=1, connect_timeout=ours)
    with blackhole() as port:
        fleet.register(port=port)
        timeout = httpx.Timeout(5.0, connect=theirs)
        async with shell.client(engine=engine_for(shell, engine), retry=retry, timeout=timeout) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get()


@everywhere
@in_every_shell
async def test_a_deadline_ends_a_request(shell: Shell, engine: str, fleet: Fleet) -> None:
    fleet.add(never())
    async with shell.client(engine=engine_for(shell, engine), timeout=None, deadline=0.05) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get()
    assert fleet.in_flight() == 0


@everywhere
@in_every_shell
async def test_limits_hold_for_each_instance(shell: Shell, engine: str, fleet: Fleet) -> None:
    fleet.add(stream([b"x"], wait=lambda: False))
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5.0, pool=0.02)
    async with shell.client(engine=engine_for(shell, engine), limits=limits, timeout=timeout) as client:
        held = await client.open()
        with pytest.raises(httpx.PoolTimeout):
            await client.open()
        await client.close_response(held)
        await client.close_response(await client.open())


@everywhere
@in_every_shell
async def test_retries_work_over_every_engine(shell: Shell, engine: str, fleet: Fleet) -> None:
    fleet.add(close_unanswered(), slot="0")
    right = fleet.add(slot="1")
    async with shell.client(engine=engine_for(shell, engine), balancer="round_robin") as client:
        assert {await client.port() for _ in range(4)} == {right.port}


# ---- what they share


@ways
@in_every_shell
async def test_clients_with_different_engines_share_no_connections(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(b"x"), http_keepalive=600)
    lend = engine_for(shell, "lent")
    async with (
        shell.client(engine="native") as native,
        shell.client(engine="native") as same,
        shell.client(engine="httpcore") as httpcore,
        shell.client(engine=lend) as lent,
        shell.client(engine=lend) as lent_too,
    ):
        counts = []
        for client in (native, same, httpcore, native, lent, lent_too, httpcore):
            await client.get()
            counts.append(server.accepted)
    assert counts == [1, 1, 2, 2, 3, 3, 3]
