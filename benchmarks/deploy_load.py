"""One caller during deploys: ``python -m benchmarks.deploy_load TARGET CONNECTIONS RATE SECONDS SEED``

TARGET is a registry, for `AsyncDiscoClient`; or the URL of a proxy, for `httpx.AsyncClient` over the same wire. CONNECTIONS is
``kept``, or ``fresh``: a new one for each request. Half of the requests are POSTs with an id of their own in the body, in an
order that follows from SEED. The schedule is that of `open_loop`: requests go out when they are due, whatever became of those
before.

It says when it is ready, begins when its input ends, and prints a `Told` when the last request is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
import httpx

from discoclient import AsyncDiscoClient

from .bare_wire import AsyncBareClient
from .open_loop import Answer, Report, drive, poisson

__all__ = ["CONNECTIONS", "SERVICE", "Note", "Told"]

SERVICE = "experiment"
CONNECTIONS = ("kept", "fresh")
_TIMEOUT = 5.0
"""Seconds, on all sides: nothing here takes a tenth of it unless something is wrong."""
_KEEPALIVE = 60.0


class Note(NamedTuple):
    """What a sample does not say."""

    method: str
    key: str
    """The id in the body of a POST."""
    by: str
    """The version that answered; empty if none did."""
    attempts: int


class Told(NamedTuple):
    report: Report
    notes: list[Note]
    """In the order of the report's samples."""


@asynccontextmanager
async def _client(target: str, connections: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Connection": "close"} if connections == "fresh" else {}
    if target.startswith("http://"):
        port = urlsplit(target).port
        assert port is not None
        async with AsyncBareClient(
            port, keepalive=_KEEPALIVE, base_url=target, headers=headers, timeout=_TIMEOUT
        ) as plain:
            yield plain
        return
    async with AsyncDiscoClient(SERVICE, registry=target, headers=headers, timeout=_TIMEOUT) as client:
        await client.wait_ready()
        yield client


async def _measure(target: str, connections: str, rate: float, seconds: float, seed: str) -> Told:
    rng = Random(seed)
    moments = poisson(rate, seconds, rng)
    notes = [Note(rng.choice(("GET", "POST")), f"{seed}/{number}", "", 1) for number in range(len(moments))]
    sent = iter(range(len(moments)))
    async with _client(target, connections) as client:

        async def send() -> Answer:
            number = next(sent)  # tasks begin in the order of their moments, and so of the samples
            note = notes[number]
            content = note.key.encode() if note.method == "POST" else None
            try:
                response = await client.request(note.method, "/work", content=content)
            except Exception as error:
                return Answer(type(error).__name__, 0.0)
            disco = response.extensions.get("disco")
            attempts = disco.attempts if disco is not None else 1
            if not response.is_success:
                notes[number] = note._replace(attempts=attempts)
                return Answer(str(response.status_code), 0.0)
            notes[number] = note._replace(by=response.text, attempts=attempts)
            return Answer(None, 0.0)

        await anyio.sleep(0)  # imports what the first connection would wait for
        await client.get("/healthz")  # and the first connection is nobody's sample
        gc.collect()
        gc.freeze()  # what stands now stays: collections look only at what requests leave behind
        print(json.dumps({"ready": target}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # presence and watch go on meanwhile
        return Told(await drive(moments, send), notes)


def main() -> None:
    target, connections, rate, seconds, seed = sys.argv[1:]
    if connections not in CONNECTIONS:
        raise SystemExit(f"connections are {' or '.join(CONNECTIONS)}, not {connections!r}")
    logging.getLogger("discoclient").setLevel(logging.ERROR)
    told = asyncio.run(_measure(target, connections, float(rate), float(seconds), seed))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
