"""Engines of the user's making: an httpx transport for each instance, inside everything that we do around it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from discoclient import (
    ConfigError,
    DeadlineExceeded,
    Instance,
    OutlierPolicy,
    RetryPolicy,
)
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.transport.lending import Lender, Parts, failing, fine, two

# ---- who is asked, and with what


@in_every_shell
async def test_each_instance_is_lent_a_transport_once(shell: Shell, fleet: Fleet) -> None:
    one, other = two(fleet)
    lender = Lender()
    async with (
        shell.client(engine=lender, balancer="round_robin") as client,
        shell.client(engine=lender, balancer="round_robin") as same,
    ):
        for _ in range(4):
            assert (await client.get("/users/1?x=2", headers={"x-mine": "yes"})).text == "fine"
            await same.post(content=b"hello")
    assert len(lender.lent) == 2
    for instance in (one, other):
        requests = lender.of(instance).requests
        assert len(requests) == 4
        assert {request.url.port for request in requests} == {instance.port}
        assert {request.headers["host"] for request in requests} == {"experiment"}
        assert {request.headers["x-disco-expect"] for request in requests} == {f"experiment/{instance.id}"}
        (got,) = {str(request.url) for request in requests if request.method == "GET"}
        assert got == f"http://127.0.0.1:{instance.port}/users/1?x=2"
        assert all("disco" not in request.extensions for request in requests)


@pytest.mark.parametrize("shell", [Shell("asyncio"), Shell("trio")], ids=lambda shell: shell.name)
def test_each_loop_is_lent_its_own(shell: Shell, fleet: Fleet) -> None:
    """A connection belongs to its loop."""
    fleet.register(port=1)
    lender = Lender()

    async def twice() -> None:
        async with shell.client(engine=lender) as client:
            await client.get()
            await client.get()

    for _ in range(2):
        shell.run(twice)
    assert [len(lent.requests) for lent in lender.lent] == [2, 2]


@in_every_shell
async def test_a_mock_of_httpx_s_own_will_do(shell: Shell, fleet: Fleet) -> None:
    """It is of both flavours, and needs no server."""
    fleet.register(port=1)
    async with shell.client(engine=lambda instance: httpx.MockTransport(fine)) as client:
        response = await client.get()
        assert (response.text, response.extensions["disco"].instance.port) == ("fine", 1)
        async with client.stream() as response:
            assert await client.read(response) == b"fine"


@in_every_shell
async def test_a_transport_of_the_wrong_kind_is_an_error(shell: Shell, fleet: Fleet) -> None:
    fleet.register(port=1)
    wrong = httpx.AsyncHTTPTransport if shell.is_sync else httpx.HTTPTransport
    kind = "BaseTransport" if shell.is_sync else "AsyncBaseTransport"
    for engine in (lambda instance: wrong(verify=False), lambda instance: None):
        async with shell.client(engine=engine) as client:
            for _ in range(2):
                with pytest.raises(ConfigError, match=rf"httpx\.{kind} here"):
                    await client.get()
    assert fleet.in_flight() == 0


@in_every_shell
async def test_what_the_lender_raises_comes_out_and_leaves_nothing_behind(shell: Shell, fleet: Fleet) -> None:
    fleet.register(port=1)

    def lend(instance: Instance) -> Any:
        raise LookupError(instance.port)

    async with shell.client(engine=lend) as client:
        with pytest.raises(LookupError, match="1"):
            await client.get()
    assert fleet.in_flight() == 0


@in_every_shell
async def test_timeouts_are_handed_on_and_connecting_is_bounded_by_the_policy(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.register(port=1)
    lender = Lender()
    timeouts = []
    retry = RetryPolicy(connect_timeout=0.7)
    async with shell.client(engine=lender, retry=retry) as client:
        for said in (httpx.Timeout(5.0, read=3.0), httpx.Timeout(0.2), None):
            await client.get(timeout=said)
            timeouts.append(lender.lent[0].requests[-1].extensions["timeout"])
        await client.get(timeout=None, extensions={"disco": {"deadline": 0.5}})
        bounded = lender.lent[0].requests[-1].extensions["timeout"]
    assert timeouts == [
        {"connect": 0.7, "read": 3.0, "write": 5.0, "pool": 5.0},
        {"connect": 0.2, "read": 0.2, "write": 0.2, "pool": 0.2},
        {"connect": 0.7, "read": None, "write": None, "pool": None},
    ]
    assert 0 < bounded["connect"] <= 0.5
    assert 0 < bounded["read"] <= 0.5


# ---- what goes wrong


@pytest.mark.parametrize(
    ("error", "kind", "gets", "posts"),
    [
        (httpx.ConnectError("x"), httpx.ConnectError, 2, 2),
        (httpx.ConnectTimeout("x"), httpx.ConnectTimeout, 2, 2),
        (httpx.ProxyError("x"), httpx.ConnectError, 2, 2),
        (httpx.ReadError("x"), httpx.ReadError, 2, 1),
        (httpx.ReadTimeout("x"), httpx.ReadTimeout, 2, 1),
        (httpx.WriteError("x"), httpx.WriteError, 2, 1),
        (httpx.WriteTimeout("x"), httpx.WriteTimeout, 2, 1),
        (httpx.RemoteProtocolError("x"), httpx.RemoteProtocolError, 2, 1),
        (httpx.LocalProtocolError("x"), httpx.LocalProtocolError, 1, 1),
        (httpx.PoolTimeout("x"), httpx.PoolTimeout, 1, 1),
        (httpx.UnsupportedProtocol("x"), httpx.UnsupportedProtocol, 1, 1),
        (LookupError("x"), LookupError, 1, 1),
    ],
    ids=lambda it: type(it).__name__ if isinstance(it, Exception) else "",
)
@in_every_shell
async def test_its_errors_mean_what_ours_mean(
    shell: Shell, fleet: Fleet, error: Exception, kind: type[Exception], gets: int, posts: int
) -> None:
    """How many are asked: a GET is tried again unless it is our own fault, a POST only if surely nothing was sent."""
    two(fleet)
    lender = Lender(at_0=failing(error), at_1=failing(error))
    retry, outlier = RetryPolicy(max_attempts=2), OutlierPolicy(max_ejected=0)
    async with shell.client(engine=lender, retry=retry, outlier=outlier, balancer=BySlot()) as client:
        for ask, expected in ((client.get, gets), (client.post, posts)):
            before = sum(len(lent.requests) for lent in lender.lent)
            with pytest.raises(kind) as raised:
                await ask()
            assert type(raised.value) is kind
            assert sum(len(lent.requests) for lent in lender.lent) - before == expected
    assert fleet.in_flight() == 0


@in_every_shell
async def test_what_fails_is_tried_elsewhere_and_then_left_alone(shell: Shell, fleet: Fleet) -> None:
    one, other = two(fleet)
    lender = Lender(at_0=failing(httpx.ConnectError("no")))
    async with shell.client(engine=lender, balancer="round_robin") as client:
        attempts = [(await client.post(content=b"x")).extensions["disco"].attempts for _ in range(6)]
    assert sorted(attempts) == [1, 1, 1, 1, 1, 2]
    assert (len(lender.of(one).requests), len(lender.of(other).requests)) == (1, 6)


@in_every_shell
async def test_an_answer_that_says_try_elsewhere_is_obeyed(shell: Shell, fleet: Fleet) -> None:
    two(fleet)
    lender = Lender(at_0=lambda request: httpx.Response(503, text="busy"))
    async with shell.client(engine=lender, balancer=BySlot()) as client:
        response = await client.get()
    assert (response.text, response.extensions["disco"].attempts) == ("fine", 2)


@in_every_shell
async def test_a_body_that_raises_is_the_caller_s_own_error(shell: Shell, fleet: Fleet) -> None:
    """Also one of httpx's own, as whoever sends on what he reads elsewhere has it. Nothing is tried again."""
    two(fleet)
    lender = Lender()
    async with shell.client(engine=lender, balancer=BySlot()) as client:
        with pytest.raises(httpx.ConnectError, match="elsewhere"):
            await client.post(content=shell.body([b"x"], error=httpx.ConnectError("elsewhere")))
    assert len(lender.lent) == 1


@in_every_shell
async def test_a_body_that_breaks_off_is_tried_elsewhere_if_nobody_has_seen_it(
    shell: Shell, fleet: Fleet
) -> None:
    two(fleet)

    def broken(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=Parts([b"a", b"b"], failing(httpx.ReadError("cut")).__get__(request))
        )

    async with shell.client(engine=Lender(at_0=broken), balancer=BySlot()) as client:
        response = await client.get()
        assert (response.text, response.extensions["disco"].attempts) == ("fine", 2)
        with pytest.raises(httpx.ReadError, match="cut"):
            async with client.stream() as streamed:
                await client.read(streamed)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_deadline_holds_between_the_pieces_of_a_body(shell: Shell, fleet: Fleet) -> None:
    fleet.register(port=1)

    def slow(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Parts(itertools.repeat(b"x")))

    bounded: Any = {"extensions": {"disco": {"deadline": 0.05}}}
    async with shell.client(engine=Lender(at_0=slow), timeout=None) as client:
        async with client.stream():  # from here on the service is known
            pass
        with pytest.raises(DeadlineExceeded):
            await client.get(**bounded)
        with pytest.raises(DeadlineExceeded):
            async with client.stream(**bounded) as response:
                await client.read(response)
    assert fleet.in_flight() == 0


@pytest.mark.parametrize("shell", [Shell("asyncio"), Shell("trio")], ids=lambda shell: shell.name)
@in_every_shell
async def test_a_body_that_a_deadline_ends_is_closed_and_not_left_to_the_collector(
    shell: Shell, fleet: Fleet
) -> None:
    """As httpx has them, bodies are async generators; trio warns of one that is left."""
    fleet.register(port=1)
    ended = []

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
            finally:
                ended.append(self)

    lender = Lender(at_0=lambda request: httpx.Response(200, stream=Endless()))
    async with shell.client(engine=lender, timeout=None) as client:
        await client.wait_ready()
        with pytest.raises(DeadlineExceeded):
            await client.get(extensions={"disco": {"deadline": 0.2}})
        assert len(ended) == 1
