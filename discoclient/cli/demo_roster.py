"""Somebody in the demo who watches the registry, and remembers who was there when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from ..control.handle import RegistryHandle, connect
from ..model.errors import DiscoError
from ..model.instance import Instance, State
from .demo_service import SERVICE

__all__ = ["Roster"]


class Roster:
    """Who is registered, as it changes: the instances by number, and since when (monotonic clock). A thread of its own."""

    def __init__(self, registry: str) -> None:
        self._handle: RegistryHandle = connect(registry)
        self._thread = threading.Thread(target=self._follow, name="demo-roster", daemon=True)
        self._changes: list[tuple[float, Mapping[int, Instance]]] = []

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
        return frozenset(self._changes[-1][1]) if self._changes else frozenset()

    def name(self, number: int) -> str:
        """Where *number* runs, and its version."""
        for _, instances in reversed(self._changes):
            if number in instances:
                return f"{instances[number].hostname} v{instances[number].version}"
        return ""

    def came_at(self, number: int) -> float | None:
        """When *number* was first found there, if it was."""
        return self._first(lambda instances: number in instances)

    def drains_at(self, number: int) -> float | None:
        """When *number* was first found draining."""
        return self._first(
            lambda instances: number in instances and instances[number].state is State.DRAINING
        )

    def left_at(self, number: int) -> float | None:
        """When *number* was found gone, if it is."""
        changes = list(self._changes)
        with_it = max((index for index, (_, found) in enumerate(changes) if number in found), default=None)
        if with_it is None or with_it == len(changes) - 1:
            return None
        return changes[with_it + 1][0]

    def seen_since(self, began: float) -> set[int]:
        """All numbers that were there at that time, or came later."""
        seen: set[int] = set()
        for at, instances in self._changes:
            seen = seen | set(instances) if at > began else set(instances)
        return seen

    def age(self) -> float:
        """Seconds since the registry last proved that what we know is all there is."""
        return self._handle.age(SERVICE) or 0.0

    def _first(self, is_so: Callable[[Mapping[int, Instance]], bool]) -> float | None:
        return next((at for at, instances in self._changes if is_so(instances)), None)

    def _follow(self) -> None:
        try:
            for snapshot in self._handle.watch(SERVICE):
                instances = {int(instance.metadata["number"]): instance for instance in snapshot}
                self._changes.append((monotonic(), instances))
        except (DiscoError, RuntimeError):
            pass  # nothing is known, or the handle is closed already: whoever waits for a change says so
