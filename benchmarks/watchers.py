"""Processes that watch services and note when they know of a change.

``python -m benchmarks.watchers bare|disco COUNT REGISTRY SERVICE [SERVICE...]`` forks COUNT children. Each watches all the
services: ``bare`` on one etcd connection with nothing around it, ``disco`` with a `DiscoClient` for each. The parent says
``{"ready": COUNT}`` when all of them watch; when its input ends it prints a list with what each child noted: for every
change the revision, when it was known, and what its process had spent by then (seconds of `monotonic` and of CPU).

`monotonic` is one clock for all processes of a machine (Linux), so what they note can be compared with when a put returned.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryFile
from time import monotonic, process_time
from typing import IO, TypeAlias

from discoclient import DiscoClient, connect
from discoclient.balancing.preferences import Preferences
from discoclient.control.resolver import Resolver, Slot
from discoclient.registry.happenings import Phase

from .bare_etcd import BareEtcd, prefix_of

__all__ = ["Noted"]

Noted: TypeAlias = "list[tuple[int, float, float]]"


def _watch_bare(registry: str, services: list[str], ready: Callable[[], object]) -> Noted:
    noted: Noted = []
    standing: set[str] = set()

    async def follow(etcd: BareEtcd, service: str) -> None:
        async for response in etcd.watch(prefix_of(service)):
            if response.created:
                standing.add(service)
                if len(standing) == len(services):
                    ready()
            elif response.events:
                noted.append((response.events[-1].kv.mod_revision, monotonic(), process_time()))

    async def main() -> None:
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
        async with BareEtcd(registry) as etcd:
            following = [asyncio.create_task(follow(etcd, service)) for service in services]
            ending = asyncio.create_task(over.wait())
            done, _ = await asyncio.wait([ending, *following], return_when=asyncio.FIRST_COMPLETED)
            for task in [ending, *following]:
                task.cancel()
            await asyncio.wait(following)
            if ending not in done:
                raise RuntimeError("a watch ended") from done.pop().exception()

    asyncio.run(main())
    return noted


def _watch_disco(registry: str, services: list[str], ready: Callable[[], object]) -> Noted:
    noted: Noted = []
    with ExitStack() as stack:
        handle = stack.enter_context(connect(registry, discovery_timeout=30.0))
        for service in services:
            client = stack.enter_context(DiscoClient(service, registry=registry, discovery_timeout=30.0))
            client.wait_ready()
            resolver = handle.resolver(service)  # the client's own: it is one per process and service
            slot = resolver.slot(Preferences())  # where the views appear that a client picks from
            stack.callback(resolver.subscribe(_note(resolver, slot, noted)))
            _await_live(resolver)
        ready()
        sys.stdin.read()
    return noted


def _note(resolver: Resolver, slot: Slot, noted: Noted) -> Callable[[], None]:
    def note() -> None:
        """Called on the background thread right after the view was published."""
        view = slot.view
        assert view is not None
        assert view.snapshot is resolver.snapshot
        noted.append((view.snapshot.revision, monotonic(), process_time()))

    return note


def _await_live(resolver: Resolver) -> None:
    """No callback tells of it: that the watch stands changes nothing for a caller."""
    pause = threading.Event()
    while resolver.phase is not Phase.LIVE:
        pause.wait(0.005)


_KINDS = {"bare": _watch_bare, "disco": _watch_disco}
_READY, _FAILED = b".", b"!"


def main() -> None:
    kind, count, registry, *services = sys.argv[1:]
    reading, telling = os.pipe()
    with ExitStack() as stack:
        # These have no name: nothing is left of them, however we end.
        files = [stack.enter_context(TemporaryFile("w+")) for _ in range(int(count))]
        children = [
            _fork(lambda ready: _KINDS[kind](registry, services, ready), telling, file) for file in files
        ]
        try:
            said = b""
            while len(said) < len(children) and _FAILED not in said:
                said += os.read(reading, len(children))
            if _FAILED in said:
                raise SystemExit("a watcher failed")
            print(json.dumps({"ready": len(children), "pids": children}), flush=True)
            while children:  # they see the end of the input as we would
                if os.waitpid(children.pop(), 0)[1]:
                    raise SystemExit("a watcher failed")
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for file in files:
            file.seek(0)
        print(json.dumps([json.load(file) for file in files]), flush=True)


def _fork(watch: Callable[[Callable[[], object]], Noted], telling: int, file: IO[str]) -> int:
    """A child that watches until the input ends, and then writes into *file* what it noted."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        json.dump(watch(lambda: os.write(telling, _READY)), file)
        file.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
        os.write(telling, _FAILED)
    finally:
        os._exit(code)  # and not the parent's way out, which ends the other children


if __name__ == "__main__":
    main()
