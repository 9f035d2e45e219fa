"""A worker that calls a service and watches together with the others on its host, or not, as $DISCO_REGISTRY has it.

It prints "stands WORDS" whenever its standing among them changes, "knows IDS" whenever what it knows does, and "ready PID"
when it is live. At SIGUSR1 it forks a child that prints "forked PID" and does nothing more. SIGTERM ends it in order.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import threading
from typing import Any

from discoclient import DiscoClient, RegistryHandle
from discoclient.control.hub import find_address, fresh_hub
from discoclient.registry.etcd import messages
from tests.faults import controls
from tests.faults.harness import FAST


def fork() -> None:
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(60)
    os.write(1, b"forked %d\n" % os.getpid())
    while True:
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("services", nargs="+")
    parser.add_argument(
        "--without", default="", help="the protection to take away; see tests.faults.controls"
    )
    parser.add_argument("--uid", type=int, help="the user to be")
    options = parser.parse_args()
    if options.uid is not None:
        # What is needed later has to be here by then: the interpreter's folder may be closed to that user.
        for module in ("etcd.registry", "sharing.registry"):
            importlib.import_module(f"discoclient.registry.{module}")
        messages.load()
        os.setuid(options.uid)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    signal.signal(signal.SIGUSR1, lambda number, frame: fork())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if options.without:
        controls.take_away(options.without)
    with fresh_hub(settings=FAST) as hub:
        address = find_address(None)
        registry: Any = hub.registry(address)
        handle = RegistryHandle(address, hub, 20.0, is_caller=True)
        resolvers = {service: handle.resolver(service) for service in options.services}
        with DiscoClient(options.services[0]) as client:
            client.wait_ready(20.0)
            said: dict[str, str] = {}

            def say(what: str, words: str) -> None:
                if said.get(what) != words:
                    said[what] = words
                    print(what, words, flush=True)

            while not over.wait(0.01):
                say("stands", getattr(registry, "standing", "watches alone"))
                for service, resolver in resolvers.items():
                    snapshot = resolver.snapshot
                    ids = ",".join(sorted(snapshot.by_id)) if snapshot is not None else "?"
                    say("knows" if service == options.services[0] else f"knows-{service}", ids)
                phases = {str(resolver.phase) for resolver in resolvers.values()}
                say("phase", "/".join(sorted(phases)))
                if phases == {"live"}:
                    say("ready", str(os.getpid()))
        handle.close()


if __name__ == "__main__":
    main()
