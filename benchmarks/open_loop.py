"""Requests on a schedule, whatever becomes of those before: ``python -m benchmarks.open_loop SIDE RATE SECONDS SEED PORT...``

A generator that waits for an answer before it sends the next request slows down with whom it measures, and leaves out just the
requests that would have waited ("coordinated omission"). So the moments are fixed beforehand, and a request's latency counts
from when it *should* have been sent.

SIDE is a balancer of ours, called through `AsyncDiscoClient` over the PORTs, or ``plain``: `httpx.AsyncClient` over the same
wire (`AsyncBareWire`) on the one PORT of a proxy. Not over httpx's own pool, which takes longer for each request the more
connections it has: under trouble it would be what limits. The client under test lives in this process and nothing else does.
It says when it is ready, begins when its input ends, and prints a `Report` when the last request is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from time import monotonic, process_time
from typing import NamedTuple

import anyio
import httpx

from discoclient import AsyncDiscoClient
from discoclient.testing import memory_registry

from .bare_wire import AsyncBareWire

__all__ = ["ATTEMPT_TIMEOUT", "PLAIN", "Answer", "Report", "Sample", "drive", "poisson"]

ATTEMPT_TIMEOUT = 1.0
"""Seconds that one attempt at an instance may take, here and in the proxies."""
PLAIN = "plain"
_PROXY_TIMEOUT = 10.0
"""Seconds that a caller waits for a proxy: longer than all attempts that the proxy may make."""
_KEEPALIVE = 60.0
_SERVICE = "trouble"
_HEAD_START = 0.05


class Answer(NamedTuple):
    error: str | None
    """What went wrong: a status, or the class of an exception."""
    served: float
    """Seconds that the server says it had the request for; 0 if it doesn't."""


class Sample(NamedTuple):
    """One request; seconds."""

    due: float
    """When it should have been sent, counted from the begin."""
    late: float
    """How much later that was done. More than a few milliseconds mean that the generator is what was measured."""
    latency: float
    """From when it should have been sent to its answer or error."""
    served: float
    error: str | None


class Report(NamedTuple):
    began: float
    """`monotonic`, when the schedule began."""
    cpu: float
    """Seconds of CPU that the process spent, from there to the last answer."""
    wall: float
    samples: list[Sample]


def poisson(rate: float, seconds: float, rng: Random) -> list[float]:
    """Moments at which *rate* requests a second are due that know nothing of each other, for *seconds*."""
    moments, at = [], rng.expovariate(rate)
    while at < seconds:
        moments.append(at)
        at += rng.expovariate(rate)
    return moments


async def drive(moments: Sequence[float], send: Callable[[], Awaitable[Answer]]) -> Report:
    """Send at each of the *moments* (ascending) and wait for everything. *send* raises nothing."""
    samples: list[Sample] = []
    began = monotonic() + _HEAD_START

    async def call(moment: float) -> None:
        late = monotonic() - began - moment
        error, served = await send()
        samples.append(Sample(moment, late, monotonic() - began - moment, served, error))

    cpu = process_time()
    async with asyncio.TaskGroup() as group:
        for moment in moments:
            await asyncio.sleep(max(0.0, began + moment - monotonic()))
            group.create_task(call(moment))
    samples.sort()
    return Report(began, process_time() - cpu, monotonic() - began, samples)


@asynccontextmanager
async def _client(side: str, ports: Sequence[int]) -> AsyncIterator[httpx.AsyncClient]:
    if side == PLAIN:
        url = f"http://127.0.0.1:{ports[0]}"
        wire = AsyncBareWire(ports[0], keepalive=_KEEPALIVE)
        async with httpx.AsyncClient(base_url=url, timeout=_PROXY_TIMEOUT, transport=wire) as plain:
            yield plain
        return
    with memory_registry() as registry:
        for port in ports:
            registry.add(_SERVICE, port, http_keepalive=_KEEPALIVE)
        async with AsyncDiscoClient(_SERVICE, balancer=side, timeout=ATTEMPT_TIMEOUT) as client:
            await client.wait_ready()
            yield client


async def _measure(side: str, moments: Sequence[float], ports: Sequence[int]) -> Report:
    async with _client(side, ports) as client:

        async def send() -> Answer:
            try:
                response = await client.get("/work")
            except Exception as error:
                return Answer(type(error).__name__, 0.0)
            timing = response.headers.get("server-timing", "here;dur=0")
            return Answer(
                None if response.is_success else str(response.status_code),
                float(timing.partition("dur=")[2]) / 1e3,
            )

        await anyio.sleep(0)  # imports what the first connection would wait for
        gc.collect()
        gc.freeze()  # what stands now stays: collections look only at what requests leave behind
        print(json.dumps({"ready": side}), flush=True)
        sys.stdin.read()
        return await drive(moments, send)


def main() -> None:
    side, rate, seconds, seed, *ports = sys.argv[1:]
    logging.getLogger("discoclient").setLevel(logging.ERROR)  # that instances are ejected is the plan
    moments = poisson(float(rate), float(seconds), Random(seed))
    print(json.dumps(asyncio.run(_measure(side, moments, [int(port) for port in ports]))), flush=True)


if __name__ == "__main__":
    main()
