"""May an instance that drains stop? It is proved, not waited for. Decisions only; the shell is `serving.farewell`.

Callers put a presence key before they learn of any instance, and say in it up to which revision they know everything, and
what they still have in flight at instances that drain (`registry.presence`). So once every presence knows of the drain, and
is busy with us no more, no caller that follows the rules will ever send another request. Others there may be: who may not
write presence gets a quiet time to learn of the drain. And who was stopped, and will not answer, holds it up until its lease
ends, or until ``timeout`` is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..registry.presence import Presence

__all__ = ["Drain", "Drained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How a drain ended. ``is_clean``: no caller will send anything more, and nothing is in flight, as far as can be known.

    ``seconds`` it took; ``callers`` that were seen, ``None`` if it is not ours to know;
    ``problem``: what was still waited for, or could not be done.
    """

    is_clean: bool
    seconds: float
    callers: int | None = None
    problem: str = ""


class Drain:
    """One drain of *instance*, that began at *now*. Times in seconds."""

    def __init__(self, instance: str, *, quiet: float, timeout: float, now: float) -> None:
        self._instance = instance
        self._quiet = quiet
        self._began = now
        self._ends = now + timeout
        self._revision = 0
        self._told_at: float | None = None
        self._is_untold = False
        self._presences: Mapping[str, Presence] | None = None
        self._is_blind = False
        self._in_flight = 0
        self._is_hurried = False

    def told(self, revision: int, now: float) -> None:
        """The registry has it since *revision*; 0: it could not be told, and callers learn nothing before the lease ends."""
        self._revision, self._told_at = revision, now
        self._is_untold = not revision

    def saw(self, presences: Mapping[str, Presence] | None) -> None:
        """All callers there are, by their keys; ``None``: it is not ours to know, as the registry's roles have it."""
        self._is_blind = presences is None
        self._presences = presences

    def counted(self, in_flight: int) -> None:
        """The requests that are in flight here by our own count."""
        self._in_flight = in_flight

    def hurry(self) -> None:
        """Wait no longer."""
        self._is_hurried = True

    def wake_at(self, now: float) -> float:
        """When to look again, if nothing happens."""
        if self._told_at is None or now >= self._told_at + self._quiet:
            return self._ends
        return min(self._ends, self._told_at + self._quiet)

    @property
    def waiting(self) -> list[str]:
        """The callers that may still send, or wait for an answer, by their keys."""
        presences = self._presences or {}
        return [key for key, each in presences.items() if not each.has_left(self._instance, self._revision)]

    def verdict(self, now: float) -> Drained | None:
        """How it ended, once it has."""
        problem = self._open(now)
        if problem and not self._is_hurried and now < self._ends:
            return None
        if not problem and self._is_untold:
            problem = "the registry could not be told"
        return Drained(
            is_clean=not problem,
            seconds=now - self._began,
            callers=None if self._presences is None else len(self._presences),
            problem=problem,
        )

    def _open(self, now: float) -> str:
        """What is still waited for; empty when it is nothing."""
        if self._told_at is None:
            return "the registry was not told yet"
        if self._in_flight:
            return f"{self._in_flight} requests in flight"
        if not self._is_untold and not self._is_blind:
            if self._presences is None:
                return "who calls was not learnt yet"
            if self.waiting:
                return self._describe()
        if now < self._told_at + self._quiet:
            return f"the quiet time of {self._quiet:g} s was not over"
        return ""

    def _describe(self) -> str:
        presences, waiting = self._presences or {}, self.waiting
        one = presences[waiting[0]]
        who = f"{one.hostname or 'unknown host'}, pid {one.pid}" if one.pid else one.id
        busy = one.busy.get(self._instance, 0)
        what = f"{busy} requests in flight" if one.applied >= self._revision else "did not acknowledge"
        return f"{len(waiting)} of {len(presences)} callers ({who}: {what})"
