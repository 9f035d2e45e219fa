"""One of several processes that serve the same sockets: what its supervisor tells it, through the environment."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..places import Kind, Listener, Place
from ..settings import Settings

__all__ = ["Worker", "find_worker"]

WORKER = "DISCO_SIDECAR_WORKER"


@dataclass(frozen=True, slots=True)
class Worker:
    """``number`` counts from 0. ``admin``: the path of the Unix socket on which it tells its supervisor how it does.
    ``follows``: others serve already, see `Sidecar.start`.

    ``said``: the values of the options, as the supervisor has them: a file of options that was changed meanwhile counts from
    the next SIGHUP on, and not when a worker happens to die.
    """

    number: int
    admin: str
    said: Mapping[str, Any]
    follows: bool = False

    def settings(self, settings: Settings) -> Settings:
        """Its own, of those for all."""
        listeners = [
            each
            for each in settings.listeners
            if each.kind is not Kind.ADMIN and (each.kind is not Kind.DNS or self.number == 0)
        ]
        listeners.append(Listener(Kind.ADMIN, Place(path=self.admin)))
        return replace(settings, listeners=tuple(listeners), workers=1)

    def environ(self) -> dict[str, str]:
        facts = {"number": self.number, "admin": self.admin, "said": dict(self.said), "follows": self.follows}
        return {WORKER: json.dumps(facts)}

    def at_parents_end(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """Call *callback* when the supervisor is gone, killed for instance: it holds the other end of our standard input."""

        def heard() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                callback()

        loop.add_reader(0, heard)

    def tidy(self) -> None:
        """Remove the folder of the admin sockets, if its supervisor can't do it any more and we are the last to go."""
        with suppress(OSError):
            Path(self.admin).parent.rmdir()


def find_worker(environ: Mapping[str, str]) -> Worker | None:
    """Who we are, if we are one."""
    said = environ.get(WORKER)
    return Worker(**json.loads(said)) if said else None
