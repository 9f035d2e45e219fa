"""Requests that are given up at any moment: nothing stays busy, nothing stays open, and the next one gets its own answer."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import httpx
import pytest

from tests.support.eventually import eventually

from .engines import OURS, Way
from .observing import Answer, Ask, ask, is_right
from .origin import Origin, origin
from .plays import Act, bytewise, chunked, early, ok, response, split_at, whole

PLAYS = {
    "quick": ok(),
    "bytewise": whole(*bytewise(response(b"one by one"))),
    "chunks": whole(
        response(b"", b"Transfer-Encoding: chunked", length=False),
        *split_at(chunked(*[b"abc"] * 20), *range(0, 200, 7)),
    ),
    "large": whole(response(b"x" * 2_000_000)),
    "stalls": whole(response(b"x" * 100)[:-10], Act.STALL),
    "never": whole(Act.STALL),
    "until the end": whole(response(b"x" * 1000, length=False), Act.SHUT),
    "early": early(response(b"early", b"Connection: close"), Act.SHUT),
}
UPLOADS = {"early", "quick", "never"}
LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def upload() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"y" * 20_000
        await asyncio.sleep(0)


def what(chance: random.Random) -> Ask:
    name = chance.choice(list(PLAYS))
    if name in UPLOADS and chance.random() < 0.5:
        return Ask("POST", f"/{name}", content=lambda is_sync: upload(), is_whole=chance.random() < 0.5)
    return Ask("GET", f"/{name}", is_whole=chance.random() < 0.5)


async def give_up(client: object, chance: random.Random) -> Answer | None:
    """One request, cancelled after so many turns of the loop or after so short a time."""
    task = asyncio.ensure_future(ask(client, what(chance)))  # type: ignore[arg-type]
    if chance.random() < 0.6:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(chance.random() * 0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


@pytest.mark.parametrize("together", [1, 4, 20])
def test_200_cancelled_requests_leave_nothing_behind(together: int) -> None:
    chance = random.Random(together)
    server = Origin(PLAYS)

    async def case() -> None:
        async with OURS.client(Way("asyncio"), server.port, limits=LIMITS, timeout=30.0) as client:
            assert is_right(await ask(client, Ask(path="/after")))
            cancelled = 0
            for _ in range(200 // together):
                found = await asyncio.gather(*[give_up(client, chance) for _ in range(together)])
                cancelled += found.count(None)
            assert cancelled > 50, "the negative control: it came to cancelling"
            # every place in the pool is free again: as many at once as it has, and each gets its own
            plays = {f"n{number}": ok(f"n{number}".encode()) for number in range(24)}
            server.plays |= plays
            answers = await asyncio.gather(*[ask(client, Ask(path=f"/{name}")) for name in plays])
            assert [answer.body.decode() for answer in answers] == list(plays), answers
            await Way("asyncio").until(lambda: server.open <= 8, what="only idle ones are left")

    try:
        asyncio.run(case())
    finally:
        server.close()


def test_no_file_is_left_open(way: Way) -> None:
    """With the client closed and the server gone, as many are open as before."""
    chance = random.Random(7)
    warm(way)
    before = files()

    async def case() -> None:
        async with OURS.client(way, server.port, limits=LIMITS, timeout=30.0) as client:
            if way.is_sync:
                for _ in range(50):
                    await ask(
                        client,
                        Ask(path="/" + chance.choice(["quick", "large", "chunks"]), more={"timeout": 0.001}),
                    )
            else:
                for _ in range(50):
                    await give_up(client, chance)
            assert is_right(await ask(client, Ask(path="/after")))

    with origin(PLAYS) as server:
        way.run(case)

    gc.collect()

    eventually(lambda: files() <= before, what=f"{before} files open, as before")


def warm(way: Way) -> None:
    """What is made once in a process is made before anything is counted."""

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            await ask(client, Ask())

    with origin() as server:
        way.run(case)


def test_a_wait_for_the_pool_that_is_cancelled_takes_nobodys_turn() -> None:
    async def case() -> None:
        limits = httpx.Limits(max_connections=1)
        async with OURS.client(Way("asyncio"), server.port, limits=limits, timeout=30.0) as client:
            held = await client.open("GET", "/large")
            waiting = [asyncio.ensure_future(ask(client, Ask(path="/after"))) for _ in range(10)]
            for _ in range(20):
                await asyncio.sleep(0)
            for task in waiting[::2]:
                task.cancel()
            await client.close_response(held)
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
            assert all(isinstance(answer, Answer) and is_right(answer) for answer in answers[1::2]), answers

    with origin(PLAYS) as server:
        asyncio.run(case())


def test_threads_that_time_out_at_any_moment_leave_the_pool_free() -> None:
    """What cancelling is for tasks, a timeout is for threads."""
    chance = random.Random(3)
    way = Way("sync")

    async def case() -> None:
        async with OURS.client(way, server.port, limits=LIMITS, timeout=30.0) as client:
            asks = [
                Ask(
                    path=f"/{chance.choice(list(PLAYS))}",
                    more={"timeout": chance.choice([0.0005, 0.002, 0.01])},
                )
                for _ in range(100)
            ]
            lock = threading.Lock()

            async def several(number: int) -> None:
                while True:
                    with lock:
                        if not asks:
                            return
                        next_one = asks.pop()
                    await ask(client, next_one)

            await way.together(*[partial(several, number) for number in range(10)])
            answers = await way.together(*[lambda: ask(client, Ask(path="/after"))] * 24)
            assert all(is_right(answer) for answer in answers), answers

    with origin(PLAYS) as server:
        way.run(case)
