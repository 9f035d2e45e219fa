"""What ``disco run`` tells people, in a line each."""

from __future__ import annotations

from collections.abc import Callable

from ..model.instance import Instance
from .drain import Drained
from .replacing import Replacement

__all__ = ["Reporter"]


class Reporter:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._was_lost = False

    def state(self, state: str) -> None:
        """The registration's new state, where that is news."""
        if state == "lost":
            self._was_lost = True
            self._say("the registration is lost; it is put back as soon as the registry allows")
        elif state == "registered" and self._was_lost:
            self._was_lost = False
            self._say("registered again")

    def drained(self, drained: Drained) -> None:
        known = {None: "who calls is not known here", 0: "no callers", 1: "1 caller has left"}
        callers = known.get(drained.callers, f"{drained.callers} callers have left")
        how = callers if drained.is_clean else f"not clean: {drained.problem}"
        self._say(f"drained in {drained.seconds:.1f} s ({how})")

    def replaced(self, replacement: Replacement) -> None:
        if not replacement.gone and not replacement.left:
            self._say("took over; there was no older instance here")
            return
        if replacement.gone:
            gone = ", ".join(map(_name, replacement.gone))
            self._say(f"took over from {gone} in {replacement.seconds:.1f} s")
        for instance in replacement.left:
            self._say(
                f"still there: {_name(instance)}, which was asked to retire {replacement.seconds:.0f} s ago"
            )


def _name(instance: Instance) -> str:
    version = f" {instance.version}" if instance.version else ""
    return f"{instance.id[:8]}{version} (pid {instance.pid})"
