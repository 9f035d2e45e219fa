"""The background thread waits for nobody: whoever would have it wait for itself is told so at once."""

from __future__ import annotations

import threading

import pytest

from discoclient import DiscoClient, NoInstances, connect
from discoclient.model.events import Event, SnapshotChanged
from discoclient.testing import memory_registry


class Curious:
    """A hook that asks, on the background thread, for what only that thread could tell."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_done = threading.Event()

    def on_event(self, event: Event) -> None:
        if isinstance(event, SnapshotChanged) and not self.is_done.is_set():
            for ask in (
                lambda: DiscoClient("other").get("/"),
                lambda: connect().instances("other"),
                connect().services,
            ):
                with pytest.raises(RuntimeError, match="hand it to a thread of your own") as caught:
                    ask()
                self.told.append(str(caught.value))
            self.is_done.set()


@pytest.mark.timeout(20)
def test_a_hook_that_waits_on_the_background_thread_is_told_and_stops_nobody() -> None:
    with memory_registry() as registry:
        hook = Curious()
        with DiscoClient("experiment", hooks=[hook]) as client:
            with pytest.raises(NoInstances):
                client.get("/")
            registry.add("experiment", port=1)
            assert hook.is_done.wait(10)
            assert len(hook.told) == 3
            client.wait_ready(10)
