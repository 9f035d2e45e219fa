"""Transports that are lent for what they are there for: a Unix socket, and a proxy. Real servers, and a real proxy."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from discoclient import Instance, RetryPolicy
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.forwarding import Proxy, UnixServer, answering, serving
from tests.support.servers import close_unanswered, echo, refused_port
from tests.transport.engines import TLS


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    started = Proxy()
    with serving(started):
        yield started


def through(shell: Shell, **options: Any) -> Any:
    kind = httpx.HTTPTransport if shell.is_sync else httpx.AsyncHTTPTransport
    return kind(verify=TLS, trust_env=False, **options)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # httpcore leaves a Unix socket that does not connect
@in_every_shell
async def test_instances_are_reached_over_their_unix_sockets(
    shell: Shell, fleet: Fleet, tmp_path: Path
) -> None:
    paths = [str(tmp_path / f"{number}.sock") for number in range(3)]
    for number, path in enumerate(paths):
        fleet.register(port=number + 1, slot=str(number), metadata={"socket": path})

    def lend(instance: Instance) -> Any:
        return through(shell, uds=instance.metadata["socket"])

    with contextlib.ExitStack() as stack:
        for number, path in enumerate(paths[:2]):  # at the third nobody listens
            stack.enter_context(serving(UnixServer(path, answering(f"number {number}"))))
        async with shell.client(engine=lend, balancer="round_robin") as client:
            answers = [await client.get("/users/1") for _ in range(8)]
            streamed = await client.open("GET", "/stream")
            assert b"/stream experiment" in await client.read(streamed)
            await client.close_response(streamed)
    assert {answer.text for answer in answers} == {
        f"number {number} /users/1 experiment" for number in range(2)
    }
    assert sum(answer.extensions["disco"].attempts > 1 for answer in answers) == 1, "then it was left alone"
    for answer in answers:
        assert answer.text.startswith(f"number {answer.extensions['disco'].instance.slot}")
    assert fleet.in_flight() == 0
    gc.collect()  # while that warning is let through


@in_every_shell
async def test_instances_are_reached_through_a_proxy(shell: Shell, fleet: Fleet, proxy: Proxy) -> None:
    one, other = fleet.add(echo(), slot="0"), fleet.add(echo(), slot="1")

    def lend(instance: Instance) -> Any:
        return through(shell, proxy=proxy.url)

    async with shell.client(engine=lend, balancer="round_robin") as client:
        for number in range(4):
            content = b"hello %d" % number
            assert (await client.post(content=content)).content == content
    assert sorted(proxy.passed) == sorted([one.address, other.address] * 2)
    assert (one.requests, other.requests) == (2, 2)
    assert {seen.headers["host"] for seen in one.seen} == {"experiment"}


@in_every_shell
async def test_what_the_proxy_says_of_an_instance_is_an_answer_like_another(
    shell: Shell, fleet: Fleet, proxy: Proxy
) -> None:
    """That an instance is gone it tells with a 502: a GET is tried elsewhere, a POST may have been carried out."""
    fleet.add(close_unanswered(), slot="0")
    right = fleet.add(slot="1")
    async with shell.client(
        engine=lambda instance: through(shell, proxy=proxy.url), balancer=BySlot()
    ) as client:
        response = await client.get()
        assert (response.text, response.extensions["disco"].attempts) == (str(right.port), 2)
        assert (await client.post()).status_code == 502


@in_every_shell
async def test_a_proxy_that_is_away_or_refuses_has_not_sent_anything(
    shell: Shell, fleet: Fleet, proxy: Proxy
) -> None:
    """So any request may be tried again. The instance is to blame as far as anybody can tell."""
    fleet.register(port=1, slot="0", scheme="https")  # a tunnel, which this proxy refuses
    fleet.register(port=2, slot="1")
    right = fleet.add(slot="2")
    with refused_port() as gone:
        urls = {"0": proxy.url, "1": f"http://127.0.0.1:{gone}"}

        def lend(instance: Instance) -> Any:
            url = urls.get(instance.slot)
            return through(shell) if url is None else through(shell, proxy=url)

        async with shell.client(engine=lend, balancer=BySlot()) as client:
            response = await client.post(content=shell.body([b"x"]))
            assert (response.text, response.extensions["disco"].attempts) == (str(right.port), 3)
        async with shell.client(engine=lend, balancer=BySlot(), retry=RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(httpx.ConnectError, match="403"):
                await client.get()
    assert set(proxy.passed) == {"127.0.0.1:1"}
