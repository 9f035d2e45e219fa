"""What to do next, and when: render, check, replace, reload, or wait. Pure: time is an argument, and others do it.

::

    WAIT ──changed, or time to try again──> RENDER ──the same──> WAIT (or on, if a reload is owed)
                                              │ different
             with a check of the new file:    CHECK ──> REPLACE ──────────> RELOAD ──> WAIT
             with a check of what is there:   REPLACE ──> CHECK ──────────> RELOAD
                                                            └─ failed ──> TAKE_BACK ──> WAIT

Rules: what failed its check does not stay in place. A reload is *owed* from the moment that a file was replaced until one went
through, also over a failure. After one attempt the next begins ``interval`` seconds later at the earliest. What failed is tried
again at the next change, and else after a while that grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Do", "Machine", "Step"]

FIRST_RETRY = 1.0
"""Seconds to the first try again, if the interval is not longer; then doubled."""
LONGEST_RETRY = 60.0
"""Seconds that it grows to."""


class Do(StrEnum):
    """What can be asked for."""

    WAIT = "wait"
    RENDER = "render"
    CHECK = "check"
    REPLACE = "replace"
    TAKE_BACK = "take back"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class Step:
    """Do this; with WAIT: until ``until``, or until something changed. ``None``: nothing is due by itself."""

    do: Do
    until: float | None = None


class Machine:
    """Ask `next`, do it, and say how it went: `passed` or `failed`, or `rendered`."""

    def __init__(
        self, *, interval: float, checks: bool, in_place: bool, reloads: bool, owes: bool = False
    ) -> None:
        """*checks*, *reloads*: whether there is a command for that. *in_place*: the check looks at what is there, not at a
        new file. *owes*: an earlier life replaced a file, and its reload is not known to have gone through.
        """
        self._interval = interval
        self._checks = checks
        self._in_place = in_place
        self._reloads = reloads
        self._owes = owes
        self._doing = Do.WAIT
        self._is_due = False
        self._is_placed = False  # what is being checked is where it is to be
        self._earliest: float | None = None
        self._retry_at: float | None = None
        self._failures = 0

    @property
    def owes(self) -> bool:
        """Whether a file was replaced that nobody has been told of yet."""
        return self._owes

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is under way."""
        return self._doing is Do.WAIT

    @property
    def is_committed(self) -> bool:
        """Whether an attempt is under way that should not be left as it is: something was replaced."""
        return self._doing in (Do.RELOAD, Do.TAKE_BACK) or (self._doing is Do.CHECK and self._is_placed)

    def changed(self) -> None:
        """What a template sees is not what it was."""
        self._is_due = True

    def next(self, now: float) -> Step:
        """What to do at *now*. Until it is said how that went, the same."""
        if self._doing is not Do.WAIT:
            return Step(self._doing)
        if not self._is_due and (self._retry_at is None or now < self._retry_at):
            return Step(Do.WAIT, self._retry_at)
        if self._earliest is not None and now < self._earliest:
            return Step(Do.WAIT, self._earliest)
        self._is_due = False
        self._retry_at = None
        self._doing = Do.RENDER
        return Step(Do.RENDER)

    def rendered(self, is_different: bool, now: float) -> None:
        """It was rendered, and is or is not what stands in the file."""
        self._is_placed = not is_different
        if is_different:
            self._doing = Do.CHECK if self._checks and not self._in_place else Do.REPLACE
        elif self._owes:
            self._go_on(now)
        else:
            self._failures = 0
            self._doing = Do.WAIT

    def passed(self, now: float) -> None:
        """What was asked for is done."""
        match self._doing:
            case Do.CHECK if not self._is_placed:
                self._doing = Do.REPLACE
            case Do.CHECK:
                self._reload_or_end(now)
            case Do.REPLACE:
                self._owes = True
                if self._in_place:
                    self._is_placed = True
                    self._go_on(now)
                else:
                    self._reload_or_end(now)
            case Do.TAKE_BACK:
                self._owes = False
                self._pause(now)
            case _:
                self._end(now)

    def failed(self, now: float) -> None:
        """What was asked for did not work."""
        match self._doing:
            case Do.RENDER:  # the same would come of the same
                self._doing = Do.WAIT
            case Do.CHECK if self._is_placed:
                self._doing = Do.TAKE_BACK
            case _:
                self._pause(now)

    def _go_on(self, now: float) -> None:
        if self._checks:
            self._doing = Do.CHECK
        else:
            self._reload_or_end(now)

    def _reload_or_end(self, now: float) -> None:
        if self._reloads:
            self._doing = Do.RELOAD
        else:
            self._end(now)

    def _end(self, now: float) -> None:
        self._owes = False
        self._failures = 0
        self._earliest = now + self._interval
        self._doing = Do.WAIT

    def _pause(self, now: float) -> None:
        wait = max(self._interval, FIRST_RETRY)
        self._retry_at = now + max(wait, min(LONGEST_RETRY, wait * 2.0 ** min(self._failures, 10)))
        self._failures += 1
        self._earliest = now + self._interval
        self._doing = Do.WAIT
