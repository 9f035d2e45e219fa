"""A program that is registered, calls and watches, and then forks children that go on with what they inherited.

It prints "ready ID" when all of it is in use, forks at SIGUSR1, prints "forked CHILD" in each child and "ended CHILD CODE" in
the parent, and ends in order at the next SIGUSR1. Who sees what is "sees WHO ID"; WHO is "parent" or the number of a child.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults import controls

CHILDREN = 2
MANY = 6
TTL = 6.0


def say(*words: object) -> None:
    """One write, so that the lines of several processes stay whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


@contextmanager
def watching(handle: object) -> Iterator[None]:
    """What the parent sees, by an iterator in a thread of its own."""

    def look() -> None:
        seen: set[str] = set()
        for snapshot in handle.watch("experiment"):
            for id in sorted(set(snapshot.by_id) - seen):
                seen.add(id)
                say("sees parent", id)

    thread = threading.Thread(target=look)
    thread.start()
    yield
    handle.close()
    thread.join()


@contextmanager
def hammering(client: object) -> Iterator[None]:
    """Threads that are in the middle of everything, and hold whatever there is to hold, when the fork comes."""
    stopping = threading.Event()

    def call() -> None:
        while not stopping.is_set():
            client.get("/")

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stopping.set()
    for thread in threads:
        thread.join()


def wait_for_a_signal() -> None:
    signal.sigwait({signal.SIGUSR1})


class Program:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.known: set[str] = set()

    def wait_for_news(self, who: object) -> bool:
        """In a child: whether the client reaches an instance, and the handle knows one, that the parent did not know."""
        say("forked", who)
        deadline = time.monotonic() + self.options.patience
        called, listed = set(self.known), set(self.known)
        while called == self.known or listed == self.known:
            if time.monotonic() > deadline:
                return False
            called.add(self.client.get("/").extensions["disco"].instance.id)
            listed |= {instance.id for instance in self.handle.instances("experiment")}
            time.sleep(0.01)
        for id in (called & listed) - self.known:
            say("sees", who, id)
        return True

    async def wait_for_news_async(self, who: object) -> bool:
        deadline = time.monotonic() + self.options.patience
        while time.monotonic() < deadline:
            id = (await self.async_client.get("/")).extensions["disco"].instance.id
            if id not in self.known:
                say("sees", who, id)
                return True
            await asyncio.sleep(0.01)
        return False

    # ---- the ways to fork

    def fork(self) -> None:
        """The child goes back up through the `with` blocks, and its interpreter ends as every interpreter ends."""
        from discoclient import register

        pids = []
        for number in range(CHILDREN):
            pid = os.fork()
            if not pid:
                self.take_away_in_the_child()
                is_well = self.wait_for_news(number)
                if not is_well:
                    sys.exit(3)
                say("registered", number, register("child", 9, host="127.0.0.1", ttl=60).instance.id)
                sys.exit(0)
            pids.append(pid)
        self.reap(pids)

    def fork_in_an_iteration(self) -> None:
        """The child goes on with an iterator that the parent began."""
        pid = os.fork()
        if not pid:
            say("forked", 0)
            signal.alarm(int(self.options.patience))
            for snapshot in self.iterator:
                news = set(snapshot.by_id) - self.known
                if news:
                    say("sees", 0, *news)
                    sys.exit(0)
        self.reap([pid])

    def fork_while_calling(self) -> None:
        with hammering(self.client):
            pids = []
            for number in range(MANY):
                pid = os.fork()
                if not pid:
                    say("forked", number)
                    self.client.get("/")
                    sys.exit(0)
                pids.append(pid)
            self.reap(pids)

    def multiprocess(self) -> None:
        """The child closes all it got, by name; the interpreter is not asked."""

        def work(number: int) -> None:
            is_well = self.wait_for_news(number) and asyncio.run(self.wait_for_news_async(number))
            for thing in (self.registration, self.client, self.handle):
                thing.close()
            sys.exit(0 if is_well else 3)

        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work, args=(number,)) for number in range(CHILDREN)]
        for worker in workers:
            worker.start()
        for number, worker in enumerate(workers):
            worker.join()
            say("ended", number, worker.exitcode)

    def reap(self, pids: list[int]) -> None:
        for number, pid in enumerate(pids):
            _, status = os.waitpid(pid, 0)
            say("ended", number, os.waitstatus_to_exitcode(status))

    def take_away_in_the_child(self) -> None:
        from discoclient.control import hub
        from discoclient.serving.registration import Registration

        match self.options.without:
            case "ownership":  # a registration is whose object it is
                Registration._is_mine = lambda self: True
            case "abandoning":  # what was inherited is closed, as tidy programs do
                (registry,) = hub._abandoned[0]._registries.values()
                registry._members.close()

    # ---- the parent

    def run(self) -> None:
        from discoclient import AsyncDiscoClient, DiscoClient, connect, register

        with (
            register("parent", 9, host="127.0.0.1", ttl=TTL, quiet=0) as self.registration,
            DiscoClient("experiment", balancer="round_robin") as self.client,
            connect() as self.handle,
            watching(self.handle),
        ):
            self.async_client = AsyncDiscoClient("experiment", balancer="round_robin")
            asyncio.run(self.async_client.get("/"))
            self.client.get("/")
            self.known = {instance.id for instance in self.handle.instances("experiment")}
            self.iterator = self.handle.watch("experiment")
            next(self.iterator)
            say("ready", self.registration.instance.id)
            wait_for_a_signal()
            getattr(self, self.options.how)()
            self.client.get("/")
            wait_for_a_signal()

    async def run_async(self) -> None:
        """A child of a running loop: it uses the sync client, and leaves without going back up into the loop."""
        from discoclient import AsyncDiscoClient, DiscoClient, aregister, connect

        self.client = DiscoClient("experiment", balancer="round_robin")
        async with (
            aregister("parent", 9, host="127.0.0.1", ttl=TTL, quiet=0) as registration,
            AsyncDiscoClient("experiment", balancer="round_robin") as self.async_client,
        ):
            await self.async_client.get("/")
            with connect() as self.handle, watching(self.handle):
                self.client.get("/")
                self.known = {instance.id for instance in self.handle.instances("experiment")}
                say("ready", registration.instance.id)
                await asyncio.to_thread(wait_for_a_signal)
                pids = []
                for number in range(CHILDREN):
                    pid = os.fork()
                    if not pid:
                        os._exit(0 if self.wait_for_news(number) else 3)
                    pids.append(pid)
                await asyncio.to_thread(self.reap, pids)
                await self.async_client.get("/")
                await asyncio.to_thread(wait_for_a_signal)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "how", choices=["fork", "fork_in_an_iteration", "fork_while_calling", "multiprocess", "in_a_loop"]
    )
    parser.add_argument("--patience", type=float, default=15.0)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if options.without == "fork-reset":
        controls.take_away("fork-reset")
    program = Program(options)
    if options.how == "in_a_loop":
        asyncio.run(program.run_async())
    else:
        program.run()


if __name__ == "__main__":
    main()
