"""The stage of the demo: a real etcd, service processes, callers, and somebody who watches the registry.

All of it is gone when the ``with`` block ends, however it ends.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from ..dev import EtcdCluster
from ..model.errors import DiscoError
from ..system.process import Process, end
from .demo_actors import Run, Service, Words, end_run, start_run, start_service
from .demo_callers import Callers
from .demo_roster import Roster
from .errors import Failure

__all__ = ["DemoFailed", "Interrupted", "Interruption", "Stage"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL = 0.01
SERVICE_TIMEOUT = 20.0
APART = 90


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


class Stage:
    """Everything that the story needs. What it starts, it ends."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._stack = ExitStack()
        self._drawn = 100 - APART
        self.cluster = EtcdCluster(nodes=3, heartbeat=0.05, election=0.25)
        self.done: list[int] = []
        """What the POSTs carried that the services have done, by what they say."""

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

    def launch_service(
        self, registry: str, hostname: str, ttl: float, *, is_hasty: bool = False
    ) -> Callable[[], Service]:
        """Start a process of version 1, and do not wait. The function returned waits until it is registered."""
        number = self._draw()
        process = start_service(number, hostname, registry=registry, ttl=ttl, is_hasty=is_hasty)
        # At the end there is no etcd to sign off from: a service that tried to would only keep us waiting.
        self._stack.callback(end, process, grace=0.0)
        words = Words(process, self.done.append)
        return lambda: self._registered(process, words, hostname, number)

    def launch_run(self, registry: str, hostname: str, bake: float, *, is_broken: bool = False) -> Run:
        """Start a ``disco run --replace`` of version 2, and do not wait."""
        number, started_at = self._draw(), monotonic()
        process = start_run(number, hostname, registry=registry, bake=bake, is_broken=is_broken)
        self._stack.callback(end_run, process)
        return Run(process, Words(process, self.done.append), hostname, number, started_at)

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

    def _draw(self) -> int:
        """A number for an instance, from ninety of its own: no two are the same, and all ten have three digits."""
        self._drawn += APART
        return self._drawn + random.randrange(APART)

    def _registered(self, process: Process, words: Words, hostname: str, number: int) -> Service:
        self.wait_for(lambda: words.found or words.is_over, SERVICE_TIMEOUT)
        if not words.found:
            last = words.said[-1] if words.said else "none"
            raise DemoFailed(f"a service did not come up; its last words: {last}")
        return Service(process, words, hostname, number, words.found["registered_at"])
