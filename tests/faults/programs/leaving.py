"""A program that registers, calls and watches, closes nothing of it, and ends.

It prints "ready ID" when all of it is in use, and "last" on its last line, after SIGUSR1. With the ending ``sigint`` it
goes on watching until SIGINT comes.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import signal
import sys
import threading
import time

from discoclient import AsyncDiscoClient, DiscoClient, RegistryHandle, aregister, connect, register
from discoclient.control import hub
from discoclient.control.resolver import Resolver
from discoclient.serving import registrar
from tests.faults import controls


def use_and_leave_open(handle: RegistryHandle) -> None:
    """Two iterators: one that nobody goes on with, and one in a thread that waits when the interpreter ends."""
    next(handle.watch("experiment"))
    looked = threading.Event()

    def look() -> None:
        for _ in handle.watch("experiment"):
            looked.set()

    threading.Thread(target=look, daemon=True).start()
    looked.wait()


def go_on_calling(client: DiscoClient) -> None:
    """Threads that are in the middle of a call when the interpreter ends, whatever it ends with."""

    def call() -> None:
        while True:
            client.get("/")
            DiscoClient("experiment").get("/")

    async def call_async() -> None:
        async with AsyncDiscoClient("experiment") as client:
            while True:
                await client.get("/")

    # Another hook runs after ours, and takes its time: long enough for a call or two.
    atexit.unregister(hub._close_at_exit)
    atexit.register(time.sleep, 0.3)
    atexit.register(hub._close_at_exit)
    threading.Thread(target=call, daemon=True).start()
    threading.Thread(target=asyncio.run, args=[call_async()], daemon=True).start()


def end(how: str) -> None:
    """Come back, or not."""
    signal.sigwait({signal.SIGUSR1})
    print("last")
    if how == "exception":
        raise RuntimeError("the end")
    if how == "exit":
        sys.exit(7)


def in_threads(how: str) -> None:
    registration = register("leaving", 9, host="127.0.0.1", ttl=60)
    client = DiscoClient("experiment")
    client.get("/")
    DiscoClient("experiment").get("/")  # inline, and dropped
    handle = connect()
    use_and_leave_open(handle)
    print("ready", registration.instance.id)
    if how == "calling":
        go_on_calling(client)
    if how == "sigint":
        for _ in handle.watch("nobody"):
            print("watching")
    end(how)


async def in_a_loop(how: str) -> None:
    asyncio.get_running_loop().slow_callback_duration = 60  # -X dev would tell of a busy machine
    registration = await aregister("leaving", 9, host="127.0.0.1", ttl=60)
    client = AsyncDiscoClient("experiment")
    await client.get("/")
    await AsyncDiscoClient("experiment").get("/")
    handle = connect()
    await asyncio.to_thread(use_and_leave_open, handle)
    print("ready", registration.instance.id)
    if how == "sigint":
        print("watching")
        await asyncio.Event().wait()
    end(how)


def take_away(name: str) -> None:
    match name:
        case "exit-bound":  # nothing but what each step takes
            atexit.unregister(hub._close_at_exit)
            atexit.register(lambda: hub.hub().close(60))
            registrar.LEAVE_TIMEOUT = 60
        case "calls-at-exit":  # all that was known is taken down, as for a service that nobody uses any more
            Resolver.close_shared = lambda self, close=Resolver.close_shared: (
                [endpoint.retire() for endpoint in self.endpoints.values()],
                close(self),
            )
        case "exit-hook":
            controls.take_away(name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["sync", "async"])
    parser.add_argument("how", choices=["fall", "exception", "exit", "sigint", "calling"])
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    take_away(options.without)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if options.kind == "async":
        asyncio.run(in_a_loop(options.how))
    else:
        in_threads(options.how)


if __name__ == "__main__":
    main()
