"""The stage of the demo: a real etcd, service processes, callers, and somebody who watches the registry.

All of it is gone when the ``with`` block ends, however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from ..control.handle import RegistryHandle, connect
from ..dev import EtcdCluster
from ..model.errors import DiscoError
from ..system.process import Process, end, spawn
from .demo_callers import Callers
from .demo_service import SERVICE
from .errors import Failure

__all__ = ["DemoFailed", "Interrupted", "Interruption", "Service", "Stage"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL = 0.01
SERVICE_TIMEOUT = 20.0


class DemoFailed(Failure):
    """The demo could not be played: something that it needs did not come up."""


class Interrupted(DiscoError):
    """Somebody wants the demo to end: Ctrl-C, SIGTERM, or a terminal that was closed. ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption:
    """Remembers a signal to end while its block lasts, so that the demo ends at a point where everything is known.

    The second one is a `KeyboardInterrupt` at once. A signal that was ignored before (``nohup``) stays so.
    """

    def __init__(self) -> None:
        self._number = 0

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._number:
            raise Interrupted(self._number)

    @contextmanager
    def heeded(self) -> Iterator[Self]:
        if threading.current_thread() is not threading.main_thread():
            yield self  # only the main thread gets signals
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._came)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            raise KeyboardInterrupt
        self._number = number


@dataclass(frozen=True, slots=True)
class Service:
    """One instance: its process, the number that it answers with, and when it was registered (monotonic clock)."""

    process: Process
    number: int
    id: str
    port: int
    registered_at: float


class Stage:
    """Everything that the story needs. What it starts, it ends."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._stack = ExitStack()
        self._drawn = 0
        self.cluster = EtcdCluster(nodes=3, heartbeat=0.05, election=0.25)
        self.services: list[Service] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_etcd(self) -> str:
        """Start the cluster; its registry URL."""
        self._stack.enter_context(self.cluster)
        self.check()
        return self.cluster.registry_url

    def launch_service(self, registry: str, ttl: float) -> Callable[[], Service]:
        """Start a process, and do not wait. The function returned waits until it is registered.

        Each one draws its number from a hundred of its own, so that no two are the same.
        """
        self._drawn += 100
        arguments = [registry, str(self._drawn), str(self._drawn + 99), str(ttl)]
        process = spawn(
            [sys.executable, "-m", "discoclient.cli.demo_service", *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith("DISCO_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        # At the end there is no etcd to sign off from: a service that tried to would only keep us waiting.
        self._stack.callback(end, process, grace=0.0)
        words = _Words(process)
        return lambda: self._registered(process, words)

    def start_callers(self, callers: Callers) -> Callers:
        return self._stack.enter_context(callers)

    def start_roster(self, registry: str) -> Roster:
        return self._stack.enter_context(Roster(registry))

    def check(self) -> None:
        self._interruption.check()

    def pause(self, seconds: float) -> None:
        """Let things go on for so long."""
        self.wait_for(lambda: False, seconds)

    def wait_for(self, condition: Callable[[], Any], timeout: float) -> bool:
        """Whether *condition* came true within *timeout* seconds. Raises `Interrupted`."""
        deadline = monotonic() + timeout
        idle = threading.Event()
        while not condition():
            self.check()
            left = deadline - monotonic()
            if left <= 0:
                return bool(condition())
            idle.wait(min(POLL, left))
        return True

    def _registered(self, process: Process, words: _Words) -> Service:
        self.wait_for(lambda: words.found or words.is_over, SERVICE_TIMEOUT)
        if not words.found:
            raise DemoFailed(
                f"a service did not come up; its last words: {(words.said.splitlines() or ['none'])[-1]}"
            )
        service = Service(process, **words.found)
        self.services.append(service)
        return service


class _Words:
    """Reads what a service prints, to the end, so that it never waits for us: one line of JSON, and complaints."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._lines = process.stdout
        self.found: dict[str, Any] = {}
        self.said = ""
        self.is_over = False
        threading.Thread(target=self._read, name="demo-service-words", daemon=True).start()

    def _read(self) -> None:
        with self._lines:
            for line in self._lines:
                if not self.found and line.startswith(b"{"):
                    self.found = json.loads(line)
                else:
                    self.said = (self.said + line.decode(errors="replace"))[-2000:]
        self.is_over = True


class Roster:
    """Who is registered, as it changes: the numbers, and since when (monotonic clock). A thread of its own."""

    def __init__(self, registry: str) -> None:
        self._handle: RegistryHandle = connect(registry)
        self._thread = threading.Thread(target=self._follow, name="demo-roster", daemon=True)
        self.changes: list[tuple[float, frozenset[int]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.close()
        self._thread.join()

    @property
    def numbers(self) -> frozenset[int]:
        return self.changes[-1][1] if self.changes else frozenset()

    def left_at(self, number: int) -> float | None:
        """When *number* was found gone, if it is."""
        if number in self.numbers:
            return None
        with_it = max(
            (index for index, (_, numbers) in enumerate(self.changes) if number in numbers), default=None
        )
        return None if with_it is None else self.changes[with_it + 1][0]

    def age(self) -> float:
        """Seconds since the registry last proved that what we know is all there is."""
        return self._handle.age(SERVICE) or 0.0

    def _follow(self) -> None:
        try:
            for snapshot in self._handle.watch(SERVICE):
                numbers = frozenset(int(instance.metadata["number"]) for instance in snapshot)
                self.changes.append((monotonic(), numbers))
        except (DiscoError, RuntimeError):
            pass  # nothing is known, or the handle is closed already: whoever waits for a change says so
