"""Programs that end without closing anything: at once, and without a word."""

from __future__ import annotations

import time

import pytest

from tests.support.processes import Processes
from tests.support.servers import Servers, answer

SYNC = """
from discoclient import DiscoClient
client = DiscoClient("experiment")
assert client.get("/").text == "ok"
assert DiscoClient("experiment").get("/").text == "ok"
"""

STREAM = """
from discoclient import DiscoClient
with DiscoClient("experiment").stream("GET", "/") as response:
    assert response.status_code == 200
"""

THREADS = """
import threading
from discoclient import DiscoClient
client = DiscoClient("experiment")
threads = [threading.Thread(target=lambda: client.get("/")) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

DAEMON = """
import threading
from discoclient import DiscoClient
client = DiscoClient("experiment")
started = threading.Event()
def work():
    while True:
        try:
            client.get("/")
        except Exception:
            return
        started.set()
threading.Thread(target=work, daemon=True).start()
started.wait()
"""

ASYNC = """
import asyncio
from discoclient import AsyncDiscoClient
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # ours to judge is what *we* print
    client = AsyncDiscoClient("experiment")
    assert (await client.get("/")).text == "ok"
    assert (await AsyncDiscoClient("experiment").get("/")).text == "ok"
asyncio.run(main())
asyncio.run(main())
"""

TRIO = """
import trio
from discoclient import AsyncDiscoClient
async def main():
    assert (await AsyncDiscoClient("experiment").get("/")).text == "ok"
trio.run(main)
trio.run(main)
"""

GLOBAL = """
import asyncio
from discoclient import AsyncDiscoClient
client = AsyncDiscoClient("experiment")
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    await asyncio.gather(*[client.get("/") for _ in range(5)])
asyncio.run(main())
"""

FAILS = """
import sys
from discoclient import DiscoClient
client = DiscoClient("experiment")
client.get("/")
sys.exit(7)
"""

NOBODY = """
from discoclient import DiscoClient, NoInstances
try:
    DiscoClient("nobody").get("/")
except NoInstances:
    pass
"""

SLOW = """
import asyncio, time
from discoclient import DiscoClient
from discoclient.control.hub import hub
DiscoClient("experiment").get("/")
hub().background.post(time.sleep, 0.2)  # a debugging loop would complain of that
hub().background.submit(asyncio.sleep(0)).result()
"""

HANDLE = """
from discoclient import connect
handle = connect()
handle.age("experiment")
snapshots = handle.watch("experiment")
next(snapshots)
"""

PROGRAMS = {
    "sync": SYNC,
    "stream": STREAM,
    "threads": THREADS,
    "daemon thread": DAEMON,
    "asyncio": ASYNC,
    "trio": TRIO,
    "global client": GLOBAL,
    "sys.exit": FAILS,
    "nobody": NOBODY,
    "slow background": SLOW,
    "handle": HANDLE,
}


def memory(source: str, address: str) -> str:
    """The same with a registry in memory, which has to be filled first."""
    port = address.rpartition(":")[2]
    return f"""
import os
os.environ["DISCO_REGISTRY"] = "memory://exit"
from discoclient import connect
from discoclient.control.hub import hub
from discoclient.testing import TestRegistry
TestRegistry(hub(), "memory://exit").add("experiment", {port})
{source}"""


def end_with_a_line(source: str) -> str:
    """*source* with a line that says when it was through, before it exits in its own way."""
    ending = 'print("last line", __import__("time").monotonic(), flush=True)\n'
    before, exit, after = source.rpartition("sys.exit")
    return before + ending + exit + after if exit else source + ending


STRICT = ("-X", "dev", "-W", "error")


@pytest.mark.parametrize(
    ("kind", "flags", "names"),
    [
        ("static", STRICT, list(PROGRAMS)),
        ("static", (), ["sync", "asyncio"]),
        ("memory", STRICT, ["sync", "asyncio"]),
    ],
    ids=["static-strict", "static-plain", "memory-strict"],
)
def test_a_program_that_closes_nothing_ends_at_once_and_in_silence(
    servers: Servers, processes: Processes, kind: str, flags: tuple[str, ...], names: list[str]
) -> None:
    server = servers.start(answer(b"ok"))
    environment = {"DISCO_REGISTRY": f"static://experiment={server.address}"}
    running = {}
    for name in names:
        source = PROGRAMS[name] if kind == "static" else memory(PROGRAMS[name], server.address)
        running[name] = processes.python(*flags, "-c", end_with_a_line(source), env=environment)
    for name, process in running.items():
        line = process.wait_for_line("last line", timeout=50.0)
        assert process.wait(timeout=30.0) == (7 if name == "sys.exit" else 0), name
        # A second is what is promised; beside so many others it may take a few.
        assert time.monotonic() - float(line.split()[-1]) < 5.0, name
        assert process.errors == "", name


def test_the_end_is_quick_also_when_the_registry_was_never_reached(processes: Processes) -> None:
    process = processes.code(
        """
import time
from discoclient import DiscoClient, DiscoveryTimeout
client = DiscoClient("experiment", discovery_timeout=0.2)
try:
    client.get("/")
except DiscoveryTimeout:
    print("last line", time.monotonic(), flush=True)
""",
        env={"DISCO_REGISTRY": "etcd://127.0.0.1:1"},
    )
    line = process.wait_for_line("last line", timeout=30.0)
    assert process.wait(timeout=30.0) == 0
    assert time.monotonic() - float(line.split()[-1]) < 3.0
    assert process.errors == ""
