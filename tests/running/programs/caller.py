"""Calls a service, says what it knows, and goes on as the files in *folder* say: ``fork``, ``end``, ``fall``.

After ``fork`` a child calls as well, and lives until ``end`` like its parent.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import httpx

from discoclient import AsyncDiscoClient, DiscoClient

POLL = 0.01


def say(word: str, response: httpx.Response) -> None:
    found = response.extensions["disco"]
    print(word, os.getpid(), response.status_code, found.instance.id, found.revision)


def go_on(folder: Path, client: DiscoClient | None) -> None:
    has_forked = False
    while not (folder / "end").exists():
        time.sleep(POLL)
        if (folder / "fork").exists() and not has_forked:
            has_forked = True
            if os.fork() == 0:
                assert client is not None
                say("forked", client.get("/"))
        if (folder / "fall").exists():
            raise RuntimeError("the end")


async def call() -> AsyncDiscoClient:
    client = AsyncDiscoClient("experiment")
    say("got", await client.get("/"))
    return client


def main() -> None:
    folder = Path(sys.argv[2])
    if sys.argv[1] == "async":

        async def both() -> None:
            client = await call()
            await asyncio.to_thread(go_on, folder, None)
            await client.aclose()

        asyncio.run(both())
    else:
        client = DiscoClient("experiment")
        say("got", client.get("/"))
        go_on(folder, client)


if __name__ == "__main__":
    main()
