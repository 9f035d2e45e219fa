"""Addresses where nobody answers, or says no."""

from __future__ import annotations

import time
from functools import partial

import httpx
import pytest

from discoclient import RetryPolicy
from tests.support.servers import blackhole, refused_port

from .engines import OURS, SIDES, Side, Way
from .observing import Ask, ask, is_right
from .origin import Origin


async def error(side: Side, way: Way, port: int, what: Ask, timeout: httpx.Timeout) -> tuple[str, float]:
    async with side.client(way, port, timeout=timeout) as client:
        began = time.monotonic()
        return (await ask(client, what)).error, time.monotonic() - began


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused(way: Way, method: str) -> None:
    what = Ask(method, content=(lambda is_sync: b"body") if method == "POST" else None)
    with refused_port() as port:
        for side in SIDES:
            found, _ = way.run(partial(error, side, way, port, what, httpx.Timeout(5.0)))
            assert found == "ConnectError", side


def test_no_answer_is_a_connect_timeout(way: Way) -> None:
    """The read timeout is far longer, and is not what ends it."""
    with blackhole() as port:
        for side in SIDES:
            limits = httpx.Timeout(30.0, connect=0.1)
            found, took = way.run(partial(error, side, way, port, Ask(), limits))
            assert found == "ConnectTimeout", side
            assert 0.05 < took < 5.0, side


def test_the_retry_policys_connect_timeout_is_the_smaller_one(way: Way) -> None:
    async def case() -> None:
        retry = RetryPolicy(max_attempts=1, connect_timeout=0.1)
        async with OURS.client(way, port, timeout=30.0, retry=retry) as client:
            began = time.monotonic()
            assert (await ask(client, Ask())).error == "ConnectTimeout"
            assert time.monotonic() - began < 5.0

    with blackhole() as port:
        way.run(case)


def test_many_at_once_to_an_address_that_refuses(way: Way) -> None:
    async def case() -> None:
        async with OURS.client(way, port, timeout=10.0) as client:
            answers = await way.together(*[lambda: ask(client, Ask())] * 50)
            assert {answer.error for answer in answers} == {"ConnectError"}

    with refused_port() as port:
        way.run(case)


def test_a_server_that_comes_back_is_used_again(way: Way) -> None:
    async def case() -> None:
        async with OURS.client(way, server.port, timeout=10.0) as client:
            assert is_right(await ask(client, Ask(path="/after")))
            server.close()
            for _ in range(3):
                assert (await ask(client, Ask(path="/after"))).error in (
                    "ConnectError",
                    "ReadError",
                    "RemoteProtocolError",
                )
            back = Origin(port=server.port)
            try:
                assert is_right(await ask(client, Ask(path="/after")))
            finally:
                back.close()

    server = Origin()
    way.run(case)
