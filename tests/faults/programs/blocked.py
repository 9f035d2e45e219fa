"""An asyncio service that registers itself, and then does to its process what a bad handler does.

It prints "serving ID PORT" as `service.py` does, begins at SIGUSR1, and prints "done" afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import sys
import threading
import time

from discoclient import aregister
from tests.faults import controls


def say(line: str) -> None:
    """In one write: two threads speak at the same moment when the GIL is given back, and `print` writes in pieces."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def block(seconds: float) -> None:
    """A blocking call in a coroutine: the event loop stands still."""
    time.sleep(seconds)


def spin(seconds: float) -> None:
    """Pure Python that computes in several threads, the event loop's among them: the GIL is always wanted."""

    def compute() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(1000))

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    compute()
    for thread in threads:
        thread.join()


def hold(seconds: float) -> None:
    """An extension that never gives the GIL back: no thread of this process runs. Nobody can help that from inside."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("service")
    parser.add_argument("how", choices=["block", "spin", "hold"])
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--ttl", type=float, required=True)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    if options.without:
        controls.take_away(options.without)
    beginning, stopping = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, beginning.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with aregister(
        options.service,
        9,
        host="127.0.0.1",
        ttl=options.ttl,
        quiet=0,
        on_state=lambda state: say(f"state {state}"),
    ) as registration:
        say(f"serving {registration.instance.id} 9")
        await beginning.wait()
        {"block": block, "spin": spin, "hold": hold}[options.how](options.seconds)
        say("done")
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(main())
