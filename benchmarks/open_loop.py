"""Requests on a schedule, whatever becomes of those before: ``python -m benchmarks.open_loop SIDE RATE SECONDS SEED PORT...``

The moments are fixed beforehand, and a request's latency counts from when it *should* have been sent (`schedule`).

SIDE is a balancer of ours, called through `AsyncDiscoClient` over the PORTs, or ``plain``: `httpx.AsyncClient` over the same
wire (`AsyncBareClient`) on the one PORT of a proxy. Not over httpx's own pool, which takes longer for each request the more
connections it has: under trouble it would be what limits. The client under test lives in this process and nothing else does.
It says when it is ready, begins when its input ends, and prints a `Report` when the last request is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import anyio
import httpx

from discoclient import AsyncDiscoClient
from discoclient.testing import memory_registry

from .bare_wire import AsyncBareClient
from .schedule import Answer, Report, Sample, drive, poisson

__all__ = ["ATTEMPT_TIMEOUT", "PLAIN", "Answer", "Report", "Sample", "drive", "poisson"]

ATTEMPT_TIMEOUT = 1.0
"""Seconds that one attempt at an instance may take, here and in the proxies."""
PLAIN = "plain"
_PROXY_TIMEOUT = 10.0
"""Seconds that a caller waits for a proxy: longer than all attempts that the proxy may make."""
_KEEPALIVE = 60.0
_SERVICE = "trouble"


@asynccontextmanager
async def _client(side: str, ports: Sequence[int]) -> AsyncIterator[httpx.AsyncClient]:
    if side == PLAIN:
        url = f"http://127.0.0.1:{ports[0]}"
        async with AsyncBareClient(
            ports[0], keepalive=_KEEPALIVE, base_url=url, timeout=_PROXY_TIMEOUT
        ) as plain:
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
